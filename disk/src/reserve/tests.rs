#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

const RESERVE: u64 = 1_000;

/// A disk of whose room others take what they like.
#[derive(Debug, Default)]
struct Disk {
    size: AtomicU64,
    taken: AtomicU64,
    ballast: AtomicU64,
    /// What may be used of it, if not all.
    quota: AtomicU64,
    cannot_hold: AtomicBool,
    is_silent: AtomicBool,
}

impl Disk {
    fn with(size: u64, taken: u64) -> Arc<Self> {
        Arc::new(Self { size: size.into(), taken: taken.into(), ..Self::default() })
    }

    fn take(&self, taken: u64) {
        self.taken.store(taken, Ordering::Relaxed);
    }

    fn allow(&self, quota: u64) {
        self.quota.store(quota, Ordering::Relaxed);
    }

    fn ballast(&self) -> u64 {
        self.ballast.load(Ordering::Relaxed)
    }
}

impl Room for Arc<Disk> {
    fn free(&self) -> io::Result<u64> {
        if self.is_silent.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Other.into());
        }
        let used = self.taken.load(Ordering::Relaxed) + self.ballast();
        Ok(self.size.load(Ordering::Relaxed).saturating_sub(used))
    }

    fn held(&self) -> io::Result<u64> {
        Ok(self.ballast())
    }

    fn hold(&self, bytes: u64, beside: u64) -> io::Result<()> {
        assert_eq!(self.ballast(), 0);
        if self.cannot_hold.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (used, quota) =
            (self.taken.load(Ordering::Relaxed) + bytes + beside, self.quota.load(Ordering::Relaxed));
        if quota > 0 && used > quota {
            // As a disk does that runs out in the middle of it.
            self.ballast.store(1, Ordering::Relaxed);
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        if used > self.size.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.ballast.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self) -> io::Result<()> {
        self.ballast.store(0, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_disk_with_room_has_a_ballast() {
    let disk = Disk::with(10_000, 0);
    let reserve = Reserve::new(disk.clone(), RESERVE);
    assert_eq!((reserve.left(), disk.ballast()), (Left::Plenty, RESERVE));
}

#[test]
fn the_ballast_goes_before_the_last_of_the_room_and_comes_back_with_enough_of_it() {
    let disk = Disk::with(10_000, 0);
    let reserve = Reserve::new(disk.clone(), RESERVE);
    // Taken by others; what is left, and what is held.
    let steps = [
        (8_000, Left::Plenty, RESERVE),
        (8_001, Left::Little, 0),
        (7_501, Left::Little, 0),
        (9_499, Left::Little, 0),
        (9_500, Left::Dregs, 0),
        (10_000, Left::Dregs, 0),
        (7_500, Left::Plenty, RESERVE),
        (8_000, Left::Plenty, RESERVE),
    ];
    for (taken, left, held) in steps {
        disk.take(taken);
        assert_eq!((reserve.left(), disk.ballast()), (left, held), "{taken}");
    }
}

#[test]
fn a_disk_that_is_full_when_it_is_opened_is_given_the_ballast_of_the_run_before() {
    let disk = Disk::with(10_000, 0);
    drop(Reserve::new(disk.clone(), RESERVE));
    disk.take(9_000);
    assert_eq!(disk.free().unwrap(), 0);
    let reserve = Reserve::new(disk.clone(), RESERVE);
    assert_eq!((reserve.left(), disk.free().unwrap()), (Left::Little, RESERVE));
}

#[test]
fn a_ballast_of_another_length_is_made_anew_in_its_own_room_too() {
    let disk = Disk::with(10_000, 0);
    drop(Reserve::new(disk.clone(), 1_500));
    // Without it there is room for the other, and as much beside.
    disk.take(8_000);
    let reserve = Reserve::new(disk.clone(), RESERVE);
    assert_eq!((reserve.left(), disk.ballast()), (Left::Plenty, RESERVE));
}

#[test]
fn without_a_ballast_of_before_there_must_be_room_for_one_and_as_much_beside() {
    for (taken, left, held) in
        [(8_000, Left::Plenty, RESERVE), (8_001, Left::Little, 0), (9_600, Left::Dregs, 0)]
    {
        let disk = Disk::with(10_000, taken);
        let reserve = Reserve::new(disk.clone(), RESERVE);
        assert_eq!((reserve.left(), disk.ballast()), (left, held), "{taken}");
    }
}

#[test]
fn a_disk_that_takes_no_ballast_is_watched_all_the_same() {
    let disk = Disk::with(10_000, 0);
    disk.cannot_hold.store(true, Ordering::Relaxed);
    let reserve = Reserve::new(disk.clone(), RESERVE);
    assert_eq!(reserve.left(), Left::Plenty);
    disk.take(9_000);
    assert_eq!(reserve.left(), Left::Plenty);
    assert_eq!(Reserve::new(disk.clone(), RESERVE).left(), Left::Plenty, "and so it is after a restart");
    disk.take(9_001);
    assert_eq!(reserve.left(), Left::Little);
}

/// So long after a disk was asked in vain it is asked again.
fn later() -> Instant {
    Instant::now() + ASK_AGAIN
}

#[test]
fn a_disk_that_was_full_though_it_says_otherwise_is_low_until_it_gives_what_it_says() {
    let disk = Disk::with(100_000, 5_000);
    disk.allow(6_000);
    // A whole ballast of the run before, and nothing more to be had.
    disk.ballast.store(RESERVE, Ordering::Relaxed);
    let reserve = Reserve::new(disk.clone(), RESERVE);
    assert_eq!((reserve.left(), disk.ballast()), (Left::Plenty, RESERVE), "nothing has shown it yet");
    reserve.was_full();
    assert_eq!((reserve.left(), disk.ballast()), (Left::Little, 0));

    let again = Reserve::new(disk.clone(), RESERVE);
    assert_eq!((again.left(), disk.ballast()), (Left::Little, 0), "and so it is after a restart");
    assert_eq!((again.left_at(later()), disk.ballast()), (Left::Little, 0));
    disk.allow(5_000 + 2_499);
    assert_eq!((again.left_at(later() + ASK_AGAIN), disk.ballast()), (Left::Little, 0));
    disk.allow(5_000 + 2_500);
    assert_eq!((again.left(), disk.ballast()), (Left::Little, 0), "it is not asked all the time");
    assert_eq!((again.left_at(later() + 2 * ASK_AGAIN), disk.ballast()), (Left::Plenty, RESERVE));
}

#[test]
fn a_quota_that_leaves_less_than_half_a_ballast_leaves_dregs() {
    let disk = Disk::with(100_000, 5_000);
    for (quota, left) in [(5_499, Left::Dregs), (5_500, Left::Little), (6_999, Left::Little)] {
        disk.allow(quota);
        let reserve = Reserve::new(disk.clone(), RESERVE);
        assert_eq!((reserve.left(), disk.ballast()), (left, 0), "{quota}");
        disk.is_silent.store(true, Ordering::Relaxed);
        assert_eq!(reserve.left(), left, "{quota}");
        disk.is_silent.store(false, Ordering::Relaxed);
        reserve.was_full();
        assert_eq!((reserve.left(), disk.ballast()), (left, 0), "{quota}");
    }
    disk.allow(7_000);
    assert_eq!(Reserve::new(disk.clone(), RESERVE).left(), Left::Plenty);
}

#[test]
fn a_quota_that_is_met_while_the_disk_is_low_keeps_it_so() {
    let disk = Disk::with(10_000, 5_000);
    let reserve = Reserve::new(disk.clone(), RESERVE);
    disk.take(8_500);
    assert_eq!(reserve.left(), Left::Little);
    disk.take(5_000);
    disk.allow(7_000);
    assert_eq!((reserve.left(), disk.ballast()), (Left::Little, 0));
    disk.allow(0);
    assert_eq!((reserve.left_at(later()), disk.ballast()), (Left::Plenty, RESERVE));
}

#[test]
fn a_disk_that_says_nothing_stays_what_it_was() {
    let disk = Disk::with(10_000, 0);
    let reserve = Reserve::new(disk.clone(), RESERVE);
    disk.is_silent.store(true, Ordering::Relaxed);
    disk.take(10_000);
    assert_eq!(reserve.left(), Left::Plenty);
    disk.is_silent.store(false, Ordering::Relaxed);
    assert_eq!(reserve.left(), Left::Dregs);
}

#[test]
fn a_ballast_takes_room_from_a_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ballast");
    let ballast = Ballast::new(&path);
    assert_eq!(ballast.held().unwrap(), 0);
    ballast.release().unwrap();
    ballast.hold(1 << 20, 1 << 20).unwrap();
    assert_eq!(ballast.held().unwrap(), 1 << 20);
    #[cfg(unix)]
    assert!(std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512 >= 1 << 20);
    assert_eq!(path.metadata().unwrap().len(), 1 << 20);
    assert!(ballast.free().unwrap() > 0);
    ballast.release().unwrap();
    assert!(!path.exists());
    // As after a copy that leaves out what is empty.
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    assert!(ballast.held().unwrap() < 1 << 20);
}
