//! Which model to try: the one that served last, until the sizes say that another may serve better.

use std::cmp::Reverse;

use super::models::ModelName;

/// A text is ill served when it takes more than these bits for ten letters, and some for its ends. A model of its own language
/// takes 15 to 25, another of the same script 30 and more.
const BITS_TEN_LETTERS: usize = 25;
const BITS_FOR_ENDS: usize = 24;
/// So many ill-served contents in a row make us try all models again; each time in vain, twice as many, up to
/// the most.
const PATIENCE_MIN: u8 = 1;
const PATIENCE_MAX: u8 = 8;

/// The model that has served best lately, for one contact and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Favourite {
    name: Option<ModelName>,
    ill_served: u8,
    patience: u8,
}

impl Default for Favourite {
    fn default() -> Self {
        Self { name: None, ill_served: 0, patience: PATIENCE_MIN }
    }
}

/// A content in one coding, or the first part of it.
#[derive(Debug)]
pub(crate) struct Coded {
    /// How much of it this is.
    pub(crate) items: usize,
    /// So many characters of text.
    pub(crate) characters: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Favourite {
    /// One that is known from before.
    pub fn new(name: ModelName) -> Self {
        Self { name: Some(name), ..Self::default() }
    }

    /// The model itself.
    pub const fn name(&self) -> Option<ModelName> {
        self.name
    }

    /// The coding, of those that are tried, of `suiting`, that holds most, and of those the shortest; learns from it.
    pub(crate) fn best(
        &mut self,
        suiting: &[ModelName],
        mut code: impl FnMut(ModelName) -> Option<Coded>,
    ) -> Option<Coded> {
        let names = self.tried(suiting);
        let coded = names.iter().filter_map(|&name| Some((name, code(name)?)));
        let (name, best) = coded.min_by_key(|(_, coded)| (Reverse(coded.items), coded.bytes.len()))?;
        if best.characters > 0 {
            self.learn(names.len(), name, best.characters, best.bytes.len());
        }
        Some(best)
    }

    /// Those that are tried, of `suiting`: the favourite alone, if it suits and serves well.
    fn tried<'a>(&self, suiting: &'a [ModelName]) -> &'a [ModelName] {
        let place = suiting.iter().position(|name| Some(*name) == self.name);
        match place {
            Some(place) if self.ill_served < self.patience => &suiting[place..=place],
            _ => suiting,
        }
    }

    /// Learns which was best of those tried, and what the text took.
    fn learn(&mut self, tried: usize, best: ModelName, letters: usize, bytes: usize) {
        if tried > 1 {
            let in_vain = self.name == Some(best);
            self.patience = if in_vain { (self.patience * 2).min(PATIENCE_MAX) } else { PATIENCE_MIN };
            (self.name, self.ill_served) = (Some(best), 0);
        } else if self.name.is_none() {
            self.name = Some(best);
        }
        let is_ill_served = bytes * 80 > letters * BITS_TEN_LETTERS + BITS_FOR_ENDS * 10;
        self.ill_served = if is_ill_served { self.ill_served.saturating_add(1) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ModelName = ModelName::Number(0);
    const B: ModelName = ModelName::Number(1);

    #[test]
    fn the_favourite_is_tried_alone_until_it_serves_ill() {
        let mut favourite = Favourite::default();
        assert_eq!(favourite.tried(&[A, B]), [A, B]);
        favourite.learn(2, B, 40, 15);
        assert_eq!(favourite.tried(&[A, B]), [B]);
        favourite.learn(1, B, 40, 16);
        assert_eq!(favourite.tried(&[A, B]), [A, B]);
        favourite.learn(2, A, 40, 15);
        assert_eq!((favourite.tried(&[A, B]), favourite.name()), (&[A][..], Some(A)));
        assert_eq!(favourite.tried(&[B]), [B], "another script");
    }

    #[test]
    fn trying_in_vain_is_done_ever_more_seldom() {
        let mut favourite = Favourite::new(A);
        let mut tries = Vec::new();
        for message in 0..40 {
            let tried = favourite.tried(&[A, B]).len();
            if tried > 1 {
                tries.push(message);
            }
            favourite.learn(tried, A, 10, 20);
        }
        let gaps: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps[..4], [2, 4, 8, 8]);
    }
}
