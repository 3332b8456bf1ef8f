//! Group commit: the store's async face.
//!
//! Sessions hand in ops and await their verdicts. One task, [`GroupCommit::run`], takes everything that
//! waits into one [`Store::apply`], so that all of it shares one sync: while the disk works, the next
//! group gathers. The busier the relay, the larger the groups.
//!
//! A storage error stops the whole: it reaches all who wait, and everything later is refused with it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{Done, Op, RelayTime, Store, StoreError, TableTail, Vacancies, Verdict, Watches};

/// Where [`Store::apply`] runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// On the committer's own task: for simulations on virtual time, where the medium is memory and the
    /// order of events must follow from the seed.
    Inline,
    /// On tokio's threads for blocking work: for real disks.
    Blocking,
}

/// How much one group may hold, and how much may wait for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// A group is closed once it has this many ops. 1,024: beyond it the sync is a small part already.
    pub ops_max: usize,
    /// A group is closed once its bodies have this many bytes. 4 MiB: bounds how long a commit takes.
    pub bytes_max: usize,
    /// Most requests that wait; who comes then waits to be let in, which slows sessions to the disk's pace.
    pub waiting_max: usize,
    /// Most bytes of bodies that wait. 8 MiB: a group on the disk and one to follow.
    pub waiting_bytes_max: u32,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self { ops_max: 1_024, bytes_max: 4 << 20, waiting_max: 1_024, waiting_bytes_max: 8 << 20 }
    }
}

/// Why ops came to nothing, or may have.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The committer has stopped. Ops it would not take were not carried out; of others, claim nothing.
    #[error("the relay is stopping")]
    Closed,
    /// The store failed. Whether the ops were carried out shows when it is reopened; claim nothing.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

struct Request {
    ops: Vec<Op>,
    bytes: usize,
    /// The request's share of [`GroupLimits::waiting_bytes_max`], given back once it was answered.
    room: OwnedSemaphorePermit,
    reply: oneshot::Sender<Result<Vec<Verdict>, CommitError>>,
}

#[derive(Debug, Default)]
struct Shared {
    close: Notify,
    failure: OnceLock<Arc<StoreError>>,
}

impl Shared {
    fn reason(&self) -> CommitError {
        self.failure.get().map_or(CommitError::Closed, |error| CommitError::Store(error.clone()))
    }
}

/// Hands ops to a [`GroupCommit`]. Clone it freely.
#[derive(Clone, Debug)]
pub struct Committer {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    room_bytes: u32,
    shared: Arc<Shared>,
}

impl Committer {
    /// Hands in ops, waiting while too many wait already; their verdicts come with the [`Pending`].
    ///
    /// Ops of one call are carried out in order and in one transaction, and calls made one after another
    /// in the order of the calls. Dropping the returned value does not take the ops back.
    ///
    /// # Errors
    ///
    /// As [`Committer::commit`].
    pub async fn submit(&self, ops: Vec<Op>) -> Result<Pending, CommitError> {
        let bytes = ops.iter().map(op_bytes).sum::<usize>();
        // One request larger than the whole room may pass alone.
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.room_bytes);
        let Ok(room) = self.room.clone().acquire_many_owned(share).await else {
            return Err(self.shared.reason());
        };
        let (reply, verdicts) = oneshot::channel();
        match self.requests.send(Request { ops, bytes, room, reply }).await {
            Ok(()) => Ok(Pending { verdicts, shared: self.shared.clone() }),
            Err(_) => Err(self.shared.reason()),
        }
    }

    /// Hands in ops and awaits their verdicts; when they come, what they claim is on disk.
    ///
    /// # Errors
    ///
    /// [`CommitError::Closed`] once [`Committer::close`] was called; [`CommitError::Store`] from the
    /// first failure of the store on.
    pub async fn commit(&self, ops: Vec<Op>) -> Result<Vec<Verdict>, CommitError> {
        self.submit(ops).await?.await
    }

    /// Stops the committer once what was handed in before is on disk.
    pub fn close(&self) {
        self.shared.close.notify_one();
    }
}

/// Verdicts on their way; a future.
#[derive(Debug)]
pub struct Pending {
    verdicts: oneshot::Receiver<Result<Vec<Verdict>, CommitError>>,
    shared: Arc<Shared>,
}

impl Future for Pending {
    type Output = Result<Vec<Verdict>, CommitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.verdicts).poll(cx).map(|reply| reply.unwrap_or_else(|_| Err(self.shared.reason())))
    }
}

/// Who is told what a commit has changed. Clones share their registries.
#[derive(Clone, Debug, Default)]
pub struct Wakes {
    /// Those who wait for mail in a mailbox.
    pub mail: Watches,
    /// Those who wait for a mailbox to take some.
    pub room: Vacancies,
}

impl Wakes {
    /// Tells of one op, which is on disk.
    fn tell(&self, op: &Op, done: &Done) {
        match (op, done) {
            (Op::Append(append), Done::Accepted { position }) => self.mail.wake(&append.mailbox, *position),
            (Op::Register(register), Done::Registered { new: true, .. }) => {
                self.room.announce(&register.account);
            }
            (_, Done::Settled { account, released: 1.., .. }) => self.room.announce(account),
            _ => {}
        }
    }
}

/// The task that commits; see [`GroupCommit::run`].
pub struct GroupCommit<C> {
    store: Arc<dyn Store>,
    now: C,
    mode: CommitMode,
    limits: GroupLimits,
    wakes: Wakes,
    requests: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
}

impl<C: Fn() -> RelayTime> GroupCommit<C> {
    /// A committer over `store`, which tells `wakes` what it has done and whose present is `now`.
    pub fn new(
        store: Arc<dyn Store>,
        now: C,
        mode: CommitMode,
        limits: GroupLimits,
        wakes: Wakes,
    ) -> (Committer, Self) {
        let (sender, requests) = mpsc::channel(limits.waiting_max.max(1));
        let shared = Arc::new(Shared::default());
        let room_bytes = limits.waiting_bytes_max;
        let room = Arc::new(Semaphore::new(room_bytes as usize));
        let committer = Committer { requests: sender, room, room_bytes, shared: shared.clone() };
        (committer, Self { store, now, mode, limits, wakes, requests, shared })
    }

    /// Commits until [`Committer::close`] is called or every [`Committer`] is gone, then drains what
    /// waits and makes clock and TLS sessions durable.
    ///
    /// # Errors
    ///
    /// The store's first failure, which everyone who waits is told too. There is no second try: see
    /// [`Store::apply`].
    pub async fn run(mut self) -> Result<(), Arc<StoreError>> {
        let shared = self.shared.clone();
        let mut closing = std::pin::pin!(shared.close.notified());
        let mut closed = false;
        loop {
            let first = tokio::select! {
                biased;
                () = &mut closing, if !closed => {
                    closed = true;
                    // What is queued can still be received; what comes later is refused.
                    self.requests.close();
                    continue;
                }
                first = self.requests.recv() => first,
            };
            let Some(first) = first else { break };
            let group = self.gather(first);
            if let Err(error) = self.commit(group).await {
                return Err(self.fail(error).await);
            }
        }
        match self.apply(Vec::new()).await {
            (_, Ok(_)) => Ok(()),
            (_, Err(error)) => Err(self.fail(error).await),
        }
    }

    /// Everything that waits, up to the limits.
    fn gather(&mut self, first: Request) -> Vec<Request> {
        let (mut ops, mut bytes) = (first.ops.len(), first.bytes);
        let mut group = vec![first];
        while ops < self.limits.ops_max && bytes < self.limits.bytes_max {
            let Ok(next) = self.requests.try_recv() else { break };
            ops += next.ops.len();
            bytes += next.bytes;
            group.push(next);
        }
        group
    }

    async fn commit(&self, group: Vec<Request>) -> Result<(), StoreError> {
        let mut ops = Vec::with_capacity(group.iter().map(|request| request.ops.len()).sum());
        let mut replies = Vec::with_capacity(group.len());
        for request in group {
            replies.push((request.ops.len(), request.room, request.reply));
            ops.extend(request.ops);
        }
        let (ops, result) = self.apply(ops).await;
        match result {
            Ok(verdicts) => {
                let mut rest = verdicts.iter();
                for (len, _room, reply) in replies {
                    // Whoever stopped waiting does not want to know.
                    let _ = reply.send(Ok(rest.by_ref().take(len).copied().collect()));
                }
                for (op, verdict) in ops.iter().zip(&verdicts) {
                    if let Ok(done) = verdict {
                        self.wakes.tell(op, done);
                    }
                }
                Ok(())
            }
            Err(error) => {
                let error = Arc::new(error);
                // Before the replies, so that nobody is told "closed" after a failure.
                let error = self.shared.failure.get_or_init(|| error);
                for (_, _room, reply) in replies {
                    let _ = reply.send(Err(CommitError::Store(error.clone())));
                }
                Err(StoreError::Failed)
            }
        }
    }

    async fn apply(&self, ops: Vec<Op>) -> (Vec<Op>, Result<Vec<Verdict>, StoreError>) {
        let now = (self.now)();
        match self.mode {
            CommitMode::Inline => {
                let result = self.store.apply(&ops, now);
                (ops, result)
            }
            CommitMode::Blocking => {
                let store = self.store.clone();
                let apply = tokio::task::spawn_blocking(move || {
                    let result = store.apply(&ops, now);
                    (ops, result)
                });
                match apply.await {
                    Ok(done) => done,
                    Err(stopped) => match stopped.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // The runtime is shutting down and never ran it.
                        Err(_) => (Vec::new(), Err(StoreError::Failed)),
                    },
                }
            }
        }
    }

    /// Refuses everything that waits, with the store's first failure.
    async fn fail(&mut self, error: StoreError) -> Arc<StoreError> {
        let error = self.shared.failure.get_or_init(|| Arc::new(error)).clone();
        self.requests.close();
        while let Some(request) = self.requests.recv().await {
            let _ = request.reply.send(Err(CommitError::Store(error.clone())));
        }
        error
    }
}

/// What an op holds in memory beyond itself, bytes.
fn op_bytes(op: &Op) -> usize {
    match op {
        Op::Append(append) => append.body.len(),
        Op::PutTable { tail: TableTail::ToRelay(addresses), .. } => size_of_val(addresses.as_slice()),
        Op::PutTable { tail: TableTail::FromRelay(accounts), .. } => size_of_val(accounts.as_slice()),
        Op::PutKeys { keys, .. } => size_of_val(keys.as_slice()),
        Op::PutChunk { bytes, .. } => bytes.len(),
        Op::Claim { .. } | Op::Revoke { .. } => 0,
        Op::Register(_) | Op::Settle { .. } | Op::Seen { .. } | Op::Sweep { .. } => 0,
        Op::OpenObject { .. } | Op::CompleteObject { .. } | Op::DropObject { .. } => 0,
    }
}

#[cfg(test)]
mod tests;
