//! Links in a storm, and what may be wrong with them beside what their profiles say.

use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::profile::THIN_LINKS;
use crate::{Burst, LinkParams, Loss, Mapping, Profile};

/// Links on which something else is wrong.
const ODD_LINKS: [&str; 5] = ["censored", "gprs-far", "mangled", "sleepy", "train"];

/// Each mishap befalls one of so many links, by itself: one link has several now and then.
const BEFALLS_IN: u32 = 6;

/// What may befall a link, both ways.
const MISHAPS: [fn(&mut LinkParams, &mut ChaCha8Rng); 5] = [
    |link, random| link.doubled = random.random_range(0.01..0.1),
    |link, random| link.damaged = random.random_range(0.01..0.05),
    // Enough that a packet overtakes others even where each takes long to send.
    |link, random| {
        link.reorders = true;
        link.jitter = Duration::from_millis(random.random_range(200..1_500));
        link.delay = link.delay.max(link.jitter);
    },
    |link, _| link.delay = link.delay.max(Duration::from_secs(1)),
    |link, random| {
        let burst = Burst::Packets(random.random_range(1.0..4.0));
        link.loss = Loss::new(random.random_range(0.15..0.3), burst).expect("bursts are long enough");
    },
];

/// How soon a NAT may forget.
const NAT_FORGETS_S: [u64; 3] = [15, 30, 120];

/// Draws somebody's link: a profile, and whether it is an odd one, and what else is wrong with it.
pub(super) fn draw_link(random: &mut ChaCha8Rng, odd: &mut ChaCha8Rng, more: &mut ChaCha8Rng) -> Profile {
    let name = THIN_LINKS.choose(random).expect("there are links");
    let is_odd = odd.random_ratio(1, 4);
    let name = if is_odd { ODD_LINKS.choose(odd).expect("there are such links") } else { name };
    let mut profile = Profile::named(name).expect("the profiles of this crate are sound");
    for mishap in MISHAPS {
        if more.random_ratio(1, BEFALLS_IN) {
            mishap(&mut profile.up, more);
            mishap(&mut profile.down, more);
        }
    }
    if more.random_ratio(1, BEFALLS_IN) {
        let forgets_s = *NAT_FORGETS_S.choose(more).expect("there are times");
        profile.nat.get_or_insert(Mapping::forgetting_after(Duration::from_secs(forgets_s)));
    }
    profile
}
