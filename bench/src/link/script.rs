//! What is written in the scenarios, and when, whoever carries it.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thinpost_netem::Profile;

/// Mean time between two messages of the steady scenarios.
const GAP: Duration = Duration::from_secs(3);
pub(crate) const STEADY_MESSAGES: usize = 100;
pub(crate) const QUEUED_MESSAGES: usize = 200;

pub(crate) const OBJECT_BYTES: usize = 200_000;
pub(crate) const TEXT_GAP: Duration = Duration::from_secs(10);
pub(crate) const CUTS: u32 = 50;

/// For how long the link is dead in `outage`.
pub(crate) const OUTAGE: Duration = Duration::from_secs(20);

pub(crate) const BLACKOUT: Duration = Duration::from_secs(30 * 60);
pub(crate) const BLACKOUT_MESSAGES: usize = 240;

/// 45 characters.
pub(crate) const TEXT: &str = "can you pick me up at eight, same place as us";

pub(crate) fn one() -> Vec<String> {
    vec![TEXT.to_owned()]
}

/// Real chat lines, English and Russian in turn: 62 UTF-8 bytes on average.
pub(crate) fn lines(count: usize) -> Vec<String> {
    let english = include_str!("../../corpora/demo/en-chat.txt").lines();
    let russian = include_str!("../../corpora/demo/ru-social.txt").lines();
    english
        .zip(russian)
        .flat_map(|(english, russian)| [english, russian])
        .take(count)
        .map(str::to_owned)
        .collect()
}

/// What no codec makes shorter.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

/// The pauses before the messages of the steady scenarios, as if nobody knew of the one before.
pub(crate) fn steady_gaps(seed: u64) -> impl Iterator<Item = Duration> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    std::iter::repeat_with(move || GAP.mul_f64(-(1.0 - random.random::<f64>()).ln()))
}

/// The pause before each of so many messages that are written in the first half of a blackout.
pub(crate) fn blackout_pause(count: usize) -> Duration {
    BLACKOUT / 2 / count as u32
}

/// How many bits a second arrive at most.
pub(crate) fn carried(link: &Profile) -> f64 {
    link.up.rate_bit_s.get() as f64 * (1.0 - link.up.loss.fraction())
}

/// How long an object is under way if nothing is wasted.
pub(crate) fn object_lasts(link: &Profile) -> Duration {
    Duration::from_secs_f64(OBJECT_BYTES as f64 * 8.0 / carried(link))
}

/// What of the link was of use where an object took so long, in percent; none where the link's rate changes.
pub(crate) fn object_share_percent(link: &Profile, seconds: f64) -> Option<f64> {
    let share = OBJECT_BYTES as f64 * 8.0 / carried(link) / seconds * 100.0;
    link.up.steps.is_empty().then_some(share)
}

/// A text for every [`TEXT_GAP`] of an object's way.
pub(crate) fn texts_beside_an_object(link: &Profile) -> Vec<String> {
    let count = object_lasts(link).as_secs_f64() / TEXT_GAP.as_secs_f64();
    lines((count as usize).max(1))
}

/// When the first of them is written: not in step with anything.
pub(crate) fn first_text_after(seed: u64) -> Duration {
    TEXT_GAP.mul_f64(ChaCha8Rng::seed_from_u64(seed).random())
}
