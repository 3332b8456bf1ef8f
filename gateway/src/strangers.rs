//! Connections of those that the relay does not know yet: until their handshake is complete and they are welcomed, whichever comes
//! last.
//!
//! Nobody has vouched for them, and each may take two minutes. So there are places for a part of all connections only, and of
//! these a part for one address: whoever wants to keep others out needs many addresses, and devices that are known stay. When few
//! places are left, who has had one for longest loses it: whoever takes places and says nothing must take a hundred of them a second
//! to keep out others, who are known after seconds.

use std::collections::{BTreeMap, HashMap};
use std::future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::limits::AddressBlock;

/// One address has so many of all places: a fourth.
pub(crate) const SHARE: usize = 4;

/// With fewer places left, a sixteenth of all, each that comes has the oldest leave.
const SCARCE: usize = 16;

/// Nobody has to leave before that: a handshake and a hello on a thin link take half of it.
const UNDISTURBED: Duration = Duration::from_secs(10);

/// The places. A handle: clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Strangers {
    places_max: usize,
    places: Arc<Mutex<Places>>,
}

#[derive(Debug, Default)]
struct Places {
    taken: usize,
    /// Those for whom QUIC has no connection yet.
    waiting: usize,
    by_block: HashMap<AddressBlock, usize>,
    /// Those who can be told to leave, oldest first, and since when they have their places.
    holders: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
    last_number: u64,
}

impl Places {
    /// Has the oldest leave. Its place is free once it has.
    fn oust(&mut self, now: Instant) {
        let Some(oldest) = self.holders.first_entry() else { return };
        if now.saturating_duration_since(oldest.get().0) >= UNDISTURBED {
            let (_, leave) = oldest.remove();
            let _ = leave.send(());
        }
    }
}

impl Strangers {
    pub(crate) fn new(places_max: usize) -> Self {
        Self { places_max, places: Arc::default() }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for somebody from there, if there is one.
    pub(crate) fn admit(&self, from: IpAddr) -> Option<Stranger> {
        let block = AddressBlock::of(from);
        let mut places = self.places();
        let now = Instant::now();
        let of_block = places.by_block.get(&block).copied().unwrap_or(0);
        // Who gets none in any case has nobody leave for it.
        if of_block >= self.places_max.div_ceil(SHARE) {
            return None;
        }
        if places.taken + self.places_max.div_ceil(SCARCE) > self.places_max {
            places.oust(now);
        }
        if places.taken >= self.places_max {
            return None;
        }
        places.taken += 1;
        places.waiting += 1;
        places.by_block.insert(block, of_block + 1);
        places.last_number += 1;
        let number = places.last_number;
        let (leave, told) = oneshot::channel();
        places.holders.insert(number, (now, leave));
        Some(Stranger { block, number, is_waiting: true, told, strangers: self.clone() })
    }

    /// How many places are taken.
    pub(crate) fn count(&self) -> usize {
        self.places().taken
    }

    /// How many of them QUIC does not count among its connections yet.
    pub(crate) fn waiting(&self) -> usize {
        self.places().waiting
    }
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Stranger {
    block: AddressBlock,
    number: u64,
    is_waiting: bool,
    told: oneshot::Receiver<()>,
    strangers: Strangers,
}

impl Stranger {
    /// QUIC counts the connection now.
    pub(crate) fn begins(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.strangers.places().waiting -= 1;
        }
    }

    /// Completes when it has to leave. Not to be asked again then.
    pub(crate) async fn ousted(&mut self) {
        if (&mut self.told).await.is_err() {
            future::pending().await
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.begins();
        let mut places = self.strangers.places();
        places.taken -= 1;
        places.holders.remove(&self.number);
        if let Some(count) = places.by_block.get_mut(&self.block) {
            *count -= 1;
            if *count == 0 {
                places.by_block.remove(&self.block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn one_address_takes_a_fourth_and_all_of_them_all() {
        let strangers = Strangers::new(8);
        let mut places = Vec::new();
        for last in 1..=4 {
            places.extend([(); 2].map(|()| strangers.admit(address(last)).unwrap()));
            assert!(strangers.admit(address(last)).is_none());
        }
        assert!(strangers.admit(address(5)).is_none());
        places.pop();
        assert!(strangers.admit(address(1)).is_none());
        places.push(strangers.admit(address(5)).unwrap());
        assert_eq!(strangers.count(), 8);
        drop(places);
        assert_eq!((strangers.count(), strangers.places().by_block.len()), (0, 0));
    }

    #[test]
    fn who_begins_or_leaves_waits_no_longer() {
        let strangers = Strangers::new(8);
        let mut first = strangers.admit(address(1)).unwrap();
        let second = strangers.admit(address(1)).unwrap();
        assert_eq!(strangers.waiting(), 2);
        first.begins();
        first.begins();
        assert_eq!(strangers.waiting(), 1);
        drop((first, second));
        assert_eq!((strangers.waiting(), strangers.count()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_leaves_when_few_places_are_left_and_it_had_its_time() {
        let strangers = Strangers::new(16);
        let mut places: Vec<_> = (0..15).map(|n| strangers.admit(address(n / 4)).unwrap()).collect();
        tokio::time::advance(UNDISTURBED - Duration::from_secs(1)).await;
        places.push(strangers.admit(address(9)).unwrap());
        assert!(strangers.admit(address(10)).is_none());
        let is_told = |place: &mut Stranger| place.told.try_recv().is_ok();
        assert!(places.iter_mut().all(|place| !is_told(place)));

        tokio::time::advance(Duration::from_secs(1)).await;
        // Its place is not free before it has left.
        assert!(strangers.admit(address(10)).is_none());
        assert_eq!(places.iter_mut().map(is_told).collect::<Vec<_>>(), [&[true][..], &[false; 15]].concat());
        // Nor has anybody leave for one whose address has its part.
        assert!(strangers.admit(address(1)).is_none());
        assert!(!is_told(&mut places[1]));
        places.remove(0);
        let _late = strangers.admit(address(10)).unwrap();
        assert!(!is_told(&mut places[0]), "nobody else came in vain");
        assert!(strangers.admit(address(11)).is_none());
        assert!(is_told(&mut places[0]));
        assert_eq!(strangers.places().holders.len(), 15);
    }
}
