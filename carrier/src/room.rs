//! What the links of a relay may hold in memory, all together.
//!
//! What counts is frames and objects on their way, and what QUIC remembers of packets that nobody has acknowledged. Most links hold
//! next to nothing, and each may hold [`FLOOR_BYTES`] whatever the others do. What it holds beyond that is lent
//! by a [`Pool`], which all share: so the whole is bounded, and a few may hold much. When the pool has nothing left, a link takes
//! in nothing that needs it, and who has the largest loan is called in: its channel ends. What it held is in nobody's custody, so
//! nothing is lost, and the device comes back later.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// What each link may hold without a loan, bytes: a dozen short messages on their way to the disk, and the contacts of most
/// people.
pub const FLOOR_BYTES: usize = 12 * 1024;

/// Loans are multiples of this, bytes, so that they seldom change.
const STEP_BYTES: usize = 16 * 1024;

/// What is lent to links. A handle: clones share one pool.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    loans: Mutex<Loans>,
}

#[derive(Debug, Default)]
struct Loans {
    by_id: BTreeMap<u64, Borrower>,
    last_id: u64,
    lent_bytes: usize,
    /// What those have who were called in and have not left.
    leaving_bytes: usize,
    called_in: u64,
}

#[derive(Debug)]
struct Borrower {
    bytes: usize,
    /// None if it was called in.
    call_in: Option<oneshot::Sender<()>>,
}

impl Pool {
    /// A pool of so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Shared { bytes_max, loans: Mutex::default() }))
    }

    /// What is lent now, bytes.
    pub fn lent_bytes(&self) -> usize {
        self.loans().lent_bytes
    }

    /// How many channels were ended so far for want of room.
    pub fn called_in(&self) -> u64 {
        self.loans().called_in
    }

    fn loans(&self) -> MutexGuard<'_, Loans> {
        self.0.loans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lend(&self) -> Loan {
        let (call_in, called_in) = oneshot::channel();
        let mut loans = self.loans();
        loans.last_id += 1;
        let id = loans.last_id;
        loans.by_id.insert(id, Borrower { bytes: 0, call_in: Some(call_in) });
        Loan { pool: self.clone(), id, bytes: 0, called_in }
    }
}

/// One link's share of a pool, given back when dropped.
#[derive(Debug)]
struct Loan {
    pool: Pool,
    id: u64,
    bytes: usize,
    called_in: oneshot::Receiver<()>,
}

impl Loan {
    /// Makes it so large, if the pool has as much; always if that is smaller. Who insists has the largest loan called in if not.
    fn resize(&mut self, bytes: usize, insists: bool) {
        let mut guard = self.pool.loans();
        let loans = &mut *guard;
        let Some(borrower) = loans.by_id.get_mut(&self.id) else { return };
        let others_bytes = loans.lent_bytes - borrower.bytes;
        if bytes > borrower.bytes && others_bytes + bytes > self.pool.0.bytes_max {
            if insists && others_bytes + bytes > self.pool.0.bytes_max + loans.leaving_bytes {
                loans.call_in_largest();
            }
            return;
        }
        if borrower.call_in.is_none() {
            loans.leaving_bytes -= borrower.bytes;
            loans.leaving_bytes += bytes;
        }
        borrower.bytes = bytes;
        loans.lent_bytes = others_bytes + bytes;
        self.bytes = bytes;
    }
}

impl Loans {
    fn call_in_largest(&mut self) {
        let staying = self.by_id.values_mut().filter(|borrower| borrower.call_in.is_some());
        let Some(largest) = staying.max_by_key(|borrower| borrower.bytes) else { return };
        if let Some(call_in) = largest.call_in.take() {
            self.leaving_bytes += largest.bytes;
            self.called_in += 1;
            // It may be about to leave anyway.
            let _ = call_in.send(());
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut loans = self.pool.loans();
        if let Some(borrower) = loans.by_id.remove(&self.id) {
            loans.lent_bytes -= borrower.bytes;
            if borrower.call_in.is_none() {
                loans.leaving_bytes -= borrower.bytes;
            }
        }
    }
}

/// What one link may hold: without a pool, whatever its own bounds allow.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pool: Option<Pool>,
    loan: Option<Loan>,
}

impl Room {
    pub(crate) fn from(pool: Pool) -> Self {
        Self { pool: Some(pool), loan: None }
    }

    fn bytes(&self) -> usize {
        match (&self.pool, &self.loan) {
            (None, _) => usize::MAX,
            (Some(_), None) => FLOOR_BYTES,
            (Some(_), Some(loan)) => FLOOR_BYTES + loan.bytes,
        }
    }

    /// Borrows or gives back, so that so much may be held, if the pool has as much; whoever has the largest loan is called in if
    /// not. Returns what may be held.
    pub(crate) fn fit(&mut self, holds_bytes: usize) -> usize {
        self.borrow(holds_bytes, true)
    }

    /// The same, but nobody is called in.
    pub(crate) fn fit_into_what_is_left(&mut self, holds_bytes: usize) -> usize {
        self.borrow(holds_bytes, false)
    }

    fn borrow(&mut self, holds_bytes: usize, insists: bool) -> usize {
        let Some(pool) = &self.pool else { return usize::MAX };
        let wanted = holds_bytes.saturating_sub(FLOOR_BYTES).next_multiple_of(STEP_BYTES);
        let has = self.loan.as_ref().map_or(0, |loan| loan.bytes);
        // What is given back in one moment may be wanted in the next.
        let is_much_less = wanted == 0 || wanted + 2 * STEP_BYTES <= has;
        if wanted == 0 {
            self.loan = None;
        } else if wanted > has || is_much_less {
            self.loan.get_or_insert_with(|| pool.lend()).resize(wanted, insists);
        }
        self.bytes()
    }

    /// Ready when the loan is called in.
    pub(crate) fn poll_called_in(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.loan {
            Some(loan) => Pin::new(&mut loan.called_in).poll(cx).map(|_| ()),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn is_called_in(room: &mut Room) -> bool {
        room.poll_called_in(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn what_is_held_beyond_the_floor_is_lent_and_given_back() {
        let pool = Pool::new(10 * STEP_BYTES);
        let mut room = Room::from(pool.clone());
        room.fit(FLOOR_BYTES);
        assert_eq!((room.bytes(), pool.lent_bytes()), (FLOOR_BYTES, 0));
        room.fit(FLOOR_BYTES + 1);
        assert_eq!((room.bytes(), pool.lent_bytes()), (FLOOR_BYTES + STEP_BYTES, STEP_BYTES));
        room.fit(FLOOR_BYTES + 4 * STEP_BYTES);
        room.fit(FLOOR_BYTES + 3 * STEP_BYTES);
        assert_eq!(pool.lent_bytes(), 4 * STEP_BYTES, "a little less changes nothing");
        room.fit(FLOOR_BYTES + 2 * STEP_BYTES);
        assert_eq!(pool.lent_bytes(), 2 * STEP_BYTES);
        room.fit(0);
        assert_eq!((room.bytes(), pool.lent_bytes()), (FLOOR_BYTES, 0));
    }

    #[test]
    fn who_borrows_most_is_called_in_when_nothing_is_left_and_no_second_one_while_it_leaves() {
        let pool = Pool::new(10 * STEP_BYTES);
        let [mut small, mut large, mut late] = [(); 3].map(|()| Room::from(pool.clone()));
        small.fit(FLOOR_BYTES + 4 * STEP_BYTES);
        large.fit(FLOOR_BYTES + 6 * STEP_BYTES);
        for _ in 0..3 {
            late.fit(FLOOR_BYTES + STEP_BYTES);
            assert_eq!(late.bytes(), FLOOR_BYTES, "its floor it has in any case");
        }
        assert!(is_called_in(&mut large) && !is_called_in(&mut small) && !is_called_in(&mut late));
        assert_eq!((pool.lent_bytes(), pool.called_in()), (10 * STEP_BYTES, 1));
        drop(large);
        late.fit(FLOOR_BYTES + STEP_BYTES);
        assert_eq!(pool.lent_bytes(), 5 * STEP_BYTES);
        drop((small, late));
        assert_eq!((pool.lent_bytes(), pool.loans().leaving_bytes), (0, 0));
    }

    #[test]
    fn who_can_do_without_has_nobody_called_in() {
        let pool = Pool::new(10 * STEP_BYTES);
        let [mut large, mut late] = [(); 2].map(|()| Room::from(pool.clone()));
        large.fit(FLOOR_BYTES + 8 * STEP_BYTES);
        assert_eq!(late.fit_into_what_is_left(FLOOR_BYTES + 3 * STEP_BYTES), FLOOR_BYTES);
        assert!(!is_called_in(&mut large));
        let what_is_left = FLOOR_BYTES + 2 * STEP_BYTES;
        assert_eq!(late.fit_into_what_is_left(what_is_left), what_is_left);
        late.fit(what_is_left + 1);
        assert!(is_called_in(&mut large));
    }

    #[test]
    fn who_asks_for_more_than_there_ever_is_ends() {
        let pool = Pool::new(STEP_BYTES);
        let mut room = Room::from(pool.clone());
        room.fit(FLOOR_BYTES + STEP_BYTES);
        room.fit(FLOOR_BYTES + 2 * STEP_BYTES);
        assert!(is_called_in(&mut room));
        room.fit(0);
        assert_eq!((pool.lent_bytes(), pool.loans().leaving_bytes), (0, 0));
    }

    #[test]
    fn without_a_pool_nothing_is_counted() {
        let mut room = Room::default();
        room.fit(usize::MAX / 2);
        assert_eq!(room.bytes(), usize::MAX);
    }
}
