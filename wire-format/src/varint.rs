//! Unsigned LEB128 over a cursor, as postcard writes it: seven bits a byte, least significant first. There is one way to write a
//! number: what ends in a byte of zero beyond the first would be shorter without it, and is refused.

/// Why a varint could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum VarintError {
    /// The input ends inside it.
    Truncated,
    /// It does not fit into 64 bits, or is longer than it needs to be.
    Overlong,
}

/// Appends `value`; at most 10 bytes.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`put`] appends for `value`.
pub(crate) fn len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Takes one varint off the front of `input`.
pub(crate) fn take(input: &mut &[u8]) -> Result<u64, VarintError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(VarintError::Truncated)?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(VarintError::Overlong);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { Err(VarintError::Overlong) } else { Ok(value) };
        }
    }
    Err(VarintError::Overlong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_comes_back_and_its_length_is_foretold(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            prop_assert_eq!(bytes.len(), len(value));
            let mut rest = &bytes[..];
            prop_assert_eq!(take(&mut rest), Ok(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_number_is_read_in_no_other_way_than_it_is_written(
            bytes in proptest::collection::vec(prop_oneof![Just(0), Just(0x80), any::<u8>()], 0..12),
        ) {
            let mut rest = &bytes[..];
            if let Ok(value) = take(&mut rest) {
                let mut again = Vec::new();
                put(&mut again, value);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
            }
        }
    }

    #[test]
    fn a_cut_and_an_overlong_number_are_told_apart() {
        assert_eq!(take(&mut &[0xff, 0][..]), Err(VarintError::Overlong));
        assert_eq!(take(&mut &[0x80, 0x80, 0][..]), Err(VarintError::Overlong));
        assert_eq!(take(&mut &[0][..]), Ok(0));
        assert_eq!(take(&mut &[0x80][..]), Err(VarintError::Truncated));
        assert_eq!(take(&mut &[0xff; 10][..]), Err(VarintError::Overlong));
        assert_eq!(take(&mut &[][..]), Err(VarintError::Truncated));
    }
}
