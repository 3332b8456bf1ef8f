//! The number by which two people make sure that nobody stands between them.

use std::fmt;
use std::str::FromStr;

use thinpost_wire::ids::AccountKey;

use crate::seal::Identity;

/// Digits of one person's half: 30 of them tell 10^30 keys apart, 99 bits.
const GROUPS: usize = 6;
const GROUP_DIGITS: usize = 5;

/// The same on both sides if each has the other's keys, and no others: 60 digits, compared by reading them
/// aloud or by scanning. `PROTOCOL.md`, section "Safety numbers".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafetyNumber([u32; 2 * GROUPS]);

/// A text that is no safety number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a safety number has 60 digits")]
pub struct BadSafetyNumber;

impl SafetyNumber {
    /// Of two people's keys, in either order.
    pub(crate) fn of(ours: (AccountKey, Identity), theirs: (AccountKey, Identity)) -> Self {
        let mut halves = [half(ours), half(theirs)];
        halves.sort_unstable();
        let mut groups = [0; 2 * GROUPS];
        groups[..GROUPS].copy_from_slice(&halves[0]);
        groups[GROUPS..].copy_from_slice(&halves[1]);
        Self(groups)
    }

    /// The 60 digits without spaces, as a QR code holds them.
    pub fn digits(&self) -> String {
        self.0.iter().map(|group| format!("{group:05}")).collect()
    }
}

/// 60 digits, with spaces wherever a person or a program puts them.
impl FromStr for SafetyNumber {
    type Err = BadSafetyNumber;

    fn from_str(text: &str) -> Result<Self, BadSafetyNumber> {
        let digits: Vec<u32> = text
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| c.to_digit(10).ok_or(BadSafetyNumber))
            .collect::<Result<_, _>>()?;
        let mut groups = [0; 2 * GROUPS];
        if digits.len() != groups.len() * GROUP_DIGITS {
            return Err(BadSafetyNumber);
        }
        for (group, digits) in groups.iter_mut().zip(digits.chunks_exact(GROUP_DIGITS)) {
            *group = digits.iter().fold(0, |number, digit| number * 10 + digit);
        }
        Ok(Self(groups))
    }
}

/// Groups of five digits.
impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<_> = self.0.iter().map(|group| format!("{group:05}")).collect();
        f.write_str(&groups.join(" "))
    }
}

fn half((account, identity): (AccountKey, Identity)) -> [u32; GROUPS] {
    let mut hasher = blake3::Hasher::new_derive_key("thinpost/1 safety number");
    hasher.update(&account.0).update(&identity);
    let mut bytes = [0; 5 * GROUPS];
    hasher.finalize_xof().fill(&mut bytes);
    let mut groups = [0; GROUPS];
    for (group, bytes) in groups.iter_mut().zip(bytes.chunks_exact(5)) {
        let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        *group = (number % 100_000) as u32;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: (AccountKey, Identity) = (AccountKey([1; 32]), [2; 32]);
    const BOB: (AccountKey, Identity) = (AccountKey([3; 32]), [4; 32]);

    /// The vector of `PROTOCOL.md`.
    #[test]
    fn both_sides_see_the_same_and_another_key_changes_it() {
        let number = SafetyNumber::of(ANN, BOB);
        assert_eq!(number, SafetyNumber::of(BOB, ANN));
        assert_eq!(number.digits(), number.to_string().replace(' ', ""));
        assert_eq!(number.digits().len(), 60);
        assert_eq!([number.digits().parse(), number.to_string().parse()], [Ok(number); 2]);
        for bad in ["", "24929", &number.digits()[1..], &format!("x{}", &number.digits()[1..])] {
            assert_eq!(bad.parse::<SafetyNumber>(), Err(BadSafetyNumber), "{bad:?}");
        }
        for changed in [(ANN.0, [9; 32]), (AccountKey([9; 32]), ANN.1)] {
            assert_ne!(number, SafetyNumber::of(changed, BOB));
        }
        let expected = "24929 40830 46407 46340 44938 19152 70167 16021 94700 23702 35550 83202";
        assert_eq!(number.to_string(), expected);
    }
}
