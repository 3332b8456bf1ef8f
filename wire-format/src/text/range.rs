//! A range coder: a sequence of choices, each with its probability, as one number with few bytes.
//!
//! After Martin (1979), "Range encoding: an algorithm for removing redundancy from a digitised message", with a
//! carry that runs back into bytes already written. Each choice is a part `start..start + size` of `total`.
//! The state has 56 bits, so `total` may be up to 2^32 and the loss by rounding is nil.

/// Bits of the state; a carry stands above them.
const STATE_BITS: u32 = 56;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
/// The range before the first choice: all of the state's values. Later it is below.
const RANGE_ONE: u64 = 1 << STATE_BITS;
/// Below this the range is widened by a byte.
const RANGE_MIN: u64 = 1 << (STATE_BITS - 8);
/// Bytes that a decoder holds ahead; so many it may read past the end of what was written, as zeros.
const AHEAD_BYTES: usize = (STATE_BITS / 8) as usize;

/// Bits of an adaptive probability.
const BIT_PROBABILITY_BITS: u32 = 16;
/// How fast an adaptive probability follows what is seen: by 1/16 of the distance.
const BIT_RATE: u32 = 4;

/// The probability of a zero, which learns from each bit coded with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AdaptiveBit(u16);

impl AdaptiveBit {
    pub(crate) const EVEN: Self = Self(1 << (BIT_PROBABILITY_BITS - 1));

    /// `zeros` of 65,536 are zero.
    pub(crate) const fn new(zeros: u16) -> Self {
        Self(zeros)
    }

    fn part(self, bit: bool) -> (u32, u32) {
        let zeros = u32::from(self.0);
        if bit { (zeros, (1 << BIT_PROBABILITY_BITS) - zeros) } else { (0, zeros) }
    }

    fn learn(&mut self, bit: bool) {
        // Neither side ever gets to nothing: the distance shrinks with each step and is rounded down.
        if bit {
            self.0 -= self.0 >> BIT_RATE;
        } else {
            self.0 += (u16::MAX - self.0) >> BIT_RATE;
        }
    }
}

/// What can be coded either way: the encoder takes each choice, the decoder finds it.
///
/// Written once for both, a layout cannot differ between them.
pub(crate) trait Coder {
    /// Codes a bit by a probability that learns.
    fn bit(&mut self, probability: &mut AdaptiveBit, bit: bool) -> bool;

    /// Codes `bits` bits of which nothing is known, highest first; at most 32.
    fn even(&mut self, bits: u32, value: u32) -> u32;

    /// Codes a number by its bit length (in unary, by adaptive bits) and its lower bits: what is small is short.
    fn number(&mut self, lengths: &mut Lengths, value: u64) -> u64 {
        let length = u64::BITS - value.leading_zeros();
        let mut found = 0;
        while found < u64::BITS && self.bit(&mut lengths.0[found as usize], found < length) {
            found += 1;
        }
        if found < 2 {
            return u64::from(found);
        }
        let mut lower_bits = found - 1;
        let mut number = 1u64;
        while lower_bits > 0 {
            let step = lower_bits.min(32);
            lower_bits -= step;
            let part = self.even(step, (value >> lower_bits) as u32 & (u32::MAX >> (32 - step)));
            number = number << step | u64::from(part);
        }
        number
    }
}

/// The probabilities of a number's bit length.
#[derive(Clone, Debug)]
pub(crate) struct Lengths([AdaptiveBit; u64::BITS as usize]);

impl Lengths {
    /// For numbers of usually some bits: one more is `likely` of 65,536 as long as there are fewer than `bits`; from
    /// there on all is even.
    pub(crate) const fn new(likely: u16, bits: usize) -> Self {
        let mut lengths = [AdaptiveBit::EVEN; u64::BITS as usize];
        let mut index = 0;
        while index < bits {
            lengths[index] = AdaptiveBit::new(u16::MAX - likely);
            index += 1;
        }
        Self(lengths)
    }
}

/// Writes choices behind what `out` holds already.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    low: u64,
    range: u64,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start, low: 0, range: RANGE_ONE }
    }

    /// Goes on in a copy of what was written.
    pub(crate) fn fork<'b>(&self, out: &'b mut Vec<u8>) -> Encoder<'b> {
        out.clone_from(self.out);
        Encoder { out, ..*self }
    }

    /// Takes the part `start..start + size` of `total`; `size` is not zero.
    pub(crate) fn encode(&mut self, start: u32, size: u32, total: u32) {
        debug_assert!(size > 0 && start.checked_add(size).is_some_and(|end| end <= total));
        let unit = self.range / u64::from(total);
        self.low += unit * u64::from(start);
        self.range = unit * u64::from(size);
        if self.low > STATE_MASK {
            self.low &= STATE_MASK;
            carry(&mut self.out[self.start..]);
        }
        while self.range < RANGE_MIN {
            self.out.push((self.low >> (STATE_BITS - 8)) as u8);
            self.low = self.low << 8 & STATE_MASK;
            self.range <<= 8;
        }
    }

    /// Writes the shortest number that lies in what is left of the range, its zeros at the end left out: a
    /// decoder reads up to seven zeros there anyway.
    pub(crate) fn finish(self) {
        for kept_bits in (0..=STATE_BITS).step_by(8) {
            let rest = (1u64 << (STATE_BITS - kept_bits)) - 1;
            let value = (self.low + rest) & !rest;
            if value < self.low + self.range {
                if value > STATE_MASK {
                    carry(&mut self.out[self.start..]);
                }
                let bytes = (value & STATE_MASK) << (u64::BITS - STATE_BITS);
                self.out.extend(&bytes.to_be_bytes()[..(kept_bits / 8) as usize]);
                break;
            }
        }
    }
}

/// Adds one to the number that the bytes are.
fn carry(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
}

impl Coder for Encoder<'_> {
    fn bit(&mut self, probability: &mut AdaptiveBit, bit: bool) -> bool {
        let (start, size) = probability.part(bit);
        self.encode(start, size, 1 << BIT_PROBABILITY_BITS);
        probability.learn(bit);
        bit
    }

    fn even(&mut self, bits: u32, value: u32) -> u32 {
        for shift in even_steps(bits) {
            let (shift, step) = shift;
            self.encode(value >> shift & ((1 << step) - 1), 1, 1 << step);
        }
        value
    }
}

/// Reads choices that an [`Encoder`] took.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    input: &'a [u8],
    past_end: usize,
    /// How far into the range the number lies.
    offset: u64,
    range: u64,
}

/// What there is of a decoder's range for one of a total: the total is divided by once a choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit(u64);

impl<'a> Decoder<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        let mut decoder = Self { input, past_end: 0, offset: 0, range: RANGE_ONE };
        for _ in 0..AHEAD_BYTES {
            decoder.shift();
        }
        decoder
    }

    fn shift(&mut self) {
        let byte = match self.input.split_first() {
            Some((&byte, rest)) => {
                self.input = rest;
                byte
            }
            None => {
                self.past_end += 1;
                0
            }
        };
        self.offset = self.offset << 8 | u64::from(byte);
    }

    /// Where in `total` the next choice lies, for [`Self::take`] with the part around it.
    pub(crate) fn position(&self, total: u32) -> (u32, Unit) {
        let unit = self.unit(total);
        // What rounding leaves over at the top belongs to nobody; an encoder never goes there.
        ((self.offset / unit.0).min(u64::from(total) - 1) as u32, unit)
    }

    pub(crate) fn unit(&self, total: u32) -> Unit {
        Unit(self.range / u64::from(total))
    }

    /// Takes the part `start..start + size` of the total that the unit was made of.
    pub(crate) fn take(&mut self, start: u32, size: u32, Unit(unit): Unit) {
        self.offset -= unit * u64::from(start);
        self.range = unit * u64::from(size);
        // Only where no encoder goes; kept inside so that nonsense stays bounded.
        self.offset = self.offset.min(self.range - 1);
        while self.range < RANGE_MIN {
            self.range <<= 8;
            self.shift();
        }
    }

    /// Whether more was read than can have been written: the bytes are cut or damaged.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.past_end > AHEAD_BYTES
    }

    /// Whether bytes are left that no choice needed.
    pub(crate) fn has_rest(&self) -> bool {
        !self.input.is_empty()
    }
}

impl Coder for Decoder<'_> {
    fn bit(&mut self, probability: &mut AdaptiveBit, _: bool) -> bool {
        let unit = self.unit(1 << BIT_PROBABILITY_BITS);
        let (_, zeros) = probability.part(false);
        let bit = self.offset >= unit.0 * u64::from(zeros);
        let (start, size) = probability.part(bit);
        self.take(start, size, unit);
        probability.learn(bit);
        bit
    }

    fn even(&mut self, bits: u32, _: u32) -> u32 {
        let mut value = 0;
        for (shift, step) in even_steps(bits) {
            let (part, unit) = self.position(1 << step);
            self.take(part, 1, unit);
            value |= part << shift;
        }
        value
    }
}

/// Up to 32 bits in steps of at most 16, highest first: the shift and the width of each.
fn even_steps(bits: u32) -> impl Iterator<Item = (u32, u32)> {
    let high = bits.saturating_sub(16);
    [(bits - high, high), (0, bits - high)].into_iter().filter(|&(_, step)| step > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One choice of each kind.
    #[derive(Clone, Debug)]
    enum Choice {
        Part { start: u32, size: u32, total: u32 },
        Bit(bool),
        Even(u32, u32),
        Number(u64),
    }

    fn choice() -> impl Strategy<Value = Choice> {
        prop_oneof![
            (1..=u32::MAX, any::<u32>(), any::<u32>()).prop_map(|(total, a, b)| {
                let start = a % total;
                Choice::Part { start, size: 1 + b % (total - start), total }
            }),
            any::<bool>().prop_map(Choice::Bit),
            (1..=32u32, any::<u32>()).prop_map(|(bits, value)| Choice::Even(bits, value >> (32 - bits))),
            (0..=64u32, any::<u64>())
                .prop_map(|(bits, value)| Choice::Number(value.checked_shr(64 - bits).unwrap_or(0))),
        ]
    }

    fn encode(choices: &[Choice]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        let mut encoder = Encoder::new(&mut out);
        let (mut bit, mut lengths) = (AdaptiveBit::EVEN, Lengths::new(0, 0));
        for choice in choices {
            match *choice {
                Choice::Part { start, size, total } => encoder.encode(start, size, total),
                Choice::Bit(value) => assert_eq!(encoder.bit(&mut bit, value), value),
                Choice::Even(bits, value) => assert_eq!(encoder.even(bits, value), value),
                Choice::Number(value) => assert_eq!(encoder.number(&mut lengths, value), value),
            }
        }
        encoder.finish();
        assert!(out.starts_with(b"before"));
        out.split_off(6)
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_found(choices in prop::collection::vec(choice(), 0..200)) {
            let coded = encode(&choices);
            let mut decoder = Decoder::new(&coded);
            let (mut bit, mut lengths) = (AdaptiveBit::EVEN, Lengths::new(0, 0));
            for choice in &choices {
                match *choice {
                    Choice::Part { start, size, total } => {
                        let (position, unit) = decoder.position(total);
                        prop_assert!((start..start + size).contains(&position));
                        decoder.take(start, size, unit);
                    }
                    Choice::Bit(value) => prop_assert_eq!(decoder.bit(&mut bit, false), value),
                    Choice::Even(bits, value) => prop_assert_eq!(decoder.even(bits, 0), value),
                    Choice::Number(value) => prop_assert_eq!(decoder.number(&mut lengths, 0), value),
                }
            }
            prop_assert!(!decoder.is_exhausted() && !decoder.has_rest());
        }

        #[test]
        fn nonsense_neither_panics_nor_goes_on_for_ever(
            bytes in prop::collection::vec(any::<u8>(), 0..50),
            totals in prop::collection::vec(2..=u32::MAX, 1..20),
        ) {
            let mut decoder = Decoder::new(&bytes);
            let mut steps = 0;
            while !decoder.is_exhausted() {
                let total = totals[steps % totals.len()];
                let (position, unit) = decoder.position(total);
                decoder.take(position, 1, unit);
                steps += 1;
            }
            // Each step takes a bit at least.
            prop_assert!(steps <= (bytes.len() + AHEAD_BYTES + 2) * 8);
        }
    }

    #[test]
    fn choices_cost_what_their_probability_says() {
        let coded = encode(&vec![Choice::Part { start: 7, size: 1, total: 10 }; 1_000]);
        assert_eq!(coded.len(), (1_000.0 * 10f64.log2() / 8.0) as usize);
        // 999 of 1,000, two thousand times: 2.9 bits.
        let coded = encode(&vec![Choice::Part { start: 0, size: 999, total: 1_000 }; 2_000]);
        assert!(coded.is_empty(), "zeros at the end are left out");
        let coded = encode(&vec![Choice::Part { start: 1, size: 999, total: 1_000 }; 2_000]);
        assert_eq!(coded.len(), 1);
    }

    #[test]
    fn a_carry_runs_through_a_row_of_full_bytes() {
        // 0.4999... and then a step above the half.
        let mut choices = vec![Choice::Even(1, 0)];
        choices.extend(vec![Choice::Part { start: u32::MAX - 1, size: 1, total: u32::MAX }; 20]);
        let coded = encode(&choices);
        let mut decoder = Decoder::new(&coded);
        assert_eq!(decoder.even(1, 0), 0);
        for _ in 0..20 {
            let (position, unit) = decoder.position(u32::MAX);
            assert_eq!(position, u32::MAX - 1);
            decoder.take(position, 1, unit);
        }
    }
}
