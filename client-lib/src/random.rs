//! Randomness: the system's, or a simulation's.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// The system gives no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRandomness;

/// A stream of random bytes: BLAKE3's output over a key.
pub(crate) struct Random {
    stream: blake3::OutputReader,
}

impl Random {
    /// Keyed by the system.
    pub(crate) fn from_system() -> Result<Self, NoRandomness> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).map_err(|_| NoRandomness)?;
        Ok(Self { stream: blake3::Hasher::new_keyed(&key).finalize_xof() })
    }

    /// The same bytes for the same seed, use and moment.
    pub(crate) fn from_seed(seed: u64, of: &str, unix_ms: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("thinpost/1 simulated randomness");
        hasher.update(&seed.to_le_bytes()).update(&unix_ms.to_le_bytes()).update(of.as_bytes());
        Self { stream: hasher.finalize_xof() }
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.fill(&mut bytes);
        bytes
    }

    /// Anything from zero up to this.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        let part = f64::from(u32::from_le_bytes(self.bytes())) / f64::from(u32::MAX);
        most.mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_only_for_the_same_use_and_moment() {
        let draw = |seed, of, at| Random::from_seed(seed, of, at).bytes::<8>();
        assert_eq!(draw(1, "a", 5), draw(1, "a", 5));
        assert_ne!(draw(1, "a", 5), draw(2, "a", 5));
        assert_ne!(draw(1, "a", 5), draw(1, "b", 5));
        assert_ne!(draw(1, "a", 5), draw(1, "a", 6));
    }

    #[test]
    fn durations_stay_within_their_bound_and_use_its_width() {
        let mut random = Random::from_seed(7, "test", 0);
        let most = Duration::from_millis(500);
        let drawn: Vec<_> = (0..100).map(|_| random.up_to(most)).collect();
        assert!(drawn.iter().all(|d| *d <= most));
        assert!(drawn.iter().any(|d| *d < most / 4) && drawn.iter().any(|d| *d > most * 3 / 4));
    }
}
