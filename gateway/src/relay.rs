//! A running relay: accepts connections, keeps one session a device, and stops in good order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quinn::{AsyncUdpSocket, Runtime};
use thinpost_carrier::{Accepting, Endpoint, Identity, Incoming, Pool, quic};
use thinpost_wire::frame::Close;
use thinpost_wire::ids::ObjectId;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};
use tracing::{debug, info};

use crate::admission::Admission;
use crate::config::Config;
use crate::invite::Invites;
use crate::limits::Limits;
use crate::session;
use crate::sessions::Sessions;
use crate::standing::{Observer, Standing};
use crate::store::{
    CommitMode, Committer, GroupCommit, ObjectNo, Op, RelayClock, RelayTime, Store, StoreError, Wakes,
};
use crate::strangers::{Stranger, Strangers};
use crate::tls_sessions::TlsSessions;

/// How often what has expired is looked for, and how many rows go in one transaction.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_ROWS: u32 = 1_000;

/// A stopping relay waits so long for sessions to acknowledge what is on disk, and for its farewells.
const DRAIN: Duration = Duration::from_secs(2);
const FAREWELL: Duration = Duration::from_secs(1);

/// Objects that are read whole at a time, to see whether they are what their names say: each takes a processor for as long as 16 MiB
/// take to hash.
const DIGESTS_MAX: usize = 2;

/// Seconds since 1970, as far as the machine knows.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Everything that a relay is made of. Sockets, time and disk come in here, so that a simulation can
/// give its own.
pub struct RelayParts {
    /// Who the relay is.
    pub identity: Identity,
    /// From which it makes stateless resets; the same after a restart.
    pub reset_key: [u8; 32],
    /// Checks invites.
    pub invites: Invites,
    /// How it is to behave.
    pub config: Config,
    /// Where custody is kept.
    pub store: Arc<dyn Store>,
    /// The socket it listens on.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Timers and tasks for QUIC.
    pub runtime: Arc<dyn Runtime>,
    /// Where the store's blocking work runs.
    pub commit_mode: CommitMode,
    /// Makes QUIC's own choices repeatable, in simulations only.
    pub rng_seed: Option<[u8; 32]>,
    /// Wall-clock time, seconds; only invites look at it, and the store when the relay starts.
    pub unix_time_s: WallClock,
}

/// Why a relay does not start. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The socket cannot be used.
    #[error("the socket cannot be used: {0}")]
    Socket(#[from] io::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a relay has stopped by itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Stopped {
    /// The store failed: nothing more can be promised until it is opened again.
    Store(Arc<StoreError>),
    /// The socket failed: nobody can reach it any more. What it has custody of is on the disk.
    Socket,
    /// A fault of this program, which has said more on the standard error. What it has custody of is on the disk.
    Panicked,
    /// It was shut down.
    ShutDown,
}

/// Where those who wait for a relay are told why it has stopped; the first reason counts. Dropped in a panic, it tells that.
#[derive(Clone)]
struct Notice(watch::Sender<Option<Stopped>>);

impl Notice {
    fn give(&self, stopped: Stopped) {
        self.0.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(stopped);
            is_first
        });
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.give(Stopped::Panicked);
        }
    }
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) commit_mode: CommitMode,
    pub(crate) committer: Committer,
    pub(crate) wakes: Wakes,
    pub(crate) clock: RelayClock,
    pub(crate) admission: Admission,
    pub(crate) limits: Limits,
    pub(crate) config: Config,
    /// What links may hold beyond what each may.
    pub(crate) pool: Pool,
    strangers: Strangers,
    digests: Semaphore,
    /// See [`Relay::repeated_chunk_bytes`].
    pub(crate) repeated_chunk_bytes: AtomicU64,
    pub(crate) sessions: Sessions,
    /// Whether it was said that a device is ahead of the store.
    pub(crate) is_said_to_be_behind: AtomicBool,
}

impl Shared {
    /// Reads from the store without holding up other tasks.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.commit_mode {
            CommitMode::Inline => read(&*self.store),
            CommitMode::Blocking => {
                let store = self.store.clone();
                tokio::task::spawn_blocking(move || read(&*store)).await.unwrap_or(Err(StoreError::Failed))
            }
        }
    }

    /// What the name of an object that is all here should be.
    pub(crate) async fn object_digest(&self, object: ObjectNo) -> Result<Option<ObjectId>, StoreError> {
        // It is never closed.
        let _turn = self.digests.acquire().await;
        self.read(move |store| store.object_digest(object)).await
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing {
            connected: self.sessions.connected(),
            strangers: self.strangers.count(),
            lent_bytes: self.pool.lent_bytes(),
            called_in: self.pool.called_in(),
        }
    }
}

/// A running relay. Dropping it ends it as a crash would; [`Relay::shutdown`] is the good way.
pub struct Relay {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    committing: JoinHandle<()>,
    stopped: watch::Receiver<Option<Stopped>>,
    stop_accepting: Option<oneshot::Sender<()>>,
}

impl Relay {
    /// Starts a relay on the current tokio runtime.
    ///
    /// # Errors
    /// When the socket or the store cannot be used.
    pub fn start(parts: RelayParts) -> Result<Self, StartError> {
        let RelayParts { identity, config, store, .. } = parts;
        store.begin_run((parts.unix_time_s)())?;
        let clock = RelayClock::resume(store.relay_clock()?);
        let wakes = Wakes::default();
        let (committer, group_commit) = GroupCommit::new(
            store.clone(),
            move || clock.now(),
            parts.commit_mode,
            config.group_limits(),
            wakes.clone(),
        );
        let limits = config.server_limits();
        let server = quic::server(&identity, Arc::new(TlsSessions(Arc::downgrade(&store))), limits);
        let (endpoint, incoming) = Endpoint::listen(
            quic::relay_endpoint(parts.reset_key, parts.rng_seed),
            server,
            parts.socket,
            &parts.runtime,
        )?;
        let shared = Arc::new(Shared {
            store,
            commit_mode: parts.commit_mode,
            committer,
            wakes,
            clock,
            admission: Admission::new(&config, parts.invites, parts.unix_time_s),
            limits: Limits::new(&config.limits),
            pool: Pool::new(config.limits.links_bytes_max),
            strangers: Strangers::new(config.limits.strangers_max),
            digests: Semaphore::new(DIGESTS_MAX),
            config,
            repeated_chunk_bytes: AtomicU64::new(0),
            sessions: Sessions::default(),
            is_said_to_be_behind: AtomicBool::new(false),
        });
        let (notice, stopped) = watch::channel(None);
        let notice = Notice(notice);
        let committing = tokio::spawn(commit(group_commit, notice.clone()));
        let sweeping = tokio::spawn(sweep(shared.clone(), notice.clone()));
        let (stop_accepting, stop) = oneshot::channel();
        let accepting = tokio::spawn(accept(endpoint.clone(), incoming, shared.clone(), stop, notice));
        Ok(Self {
            endpoint,
            shared,
            accepting,
            sweeping,
            committing,
            stopped,
            stop_accepting: Some(stop_accepting),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket does not know.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Sees it from any thread for as long as it runs.
    pub fn observer(&self) -> Observer {
        Observer(Arc::downgrade(&self.shared))
    }

    /// Devices connected now.
    pub fn connected(&self) -> usize {
        self.shared.sessions.connected()
    }

    /// Connections of devices that are not known, or not yet.
    pub fn strangers(&self) -> usize {
        self.shared.strangers.count()
    }

    /// Connections that take room: of whomever, and those that are ending.
    pub fn connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// What links hold now beyond what each may, bytes.
    pub fn lent_bytes(&self) -> usize {
        self.shared.pool.lent_bytes()
    }

    /// Connections that were ended so far for want of memory for what they held.
    pub fn called_in(&self) -> u64 {
        self.shared.pool.called_in()
    }

    /// Bytes of objects that devices have sent in vain on links that have ended, because the relay had them already.
    pub fn repeated_chunk_bytes(&self) -> u64 {
        self.shared.repeated_chunk_bytes.load(Ordering::Relaxed)
    }

    /// Waits until the relay has stopped, by [`Relay::shutdown`] or because something failed without which it is none.
    pub async fn stopped(&self) -> Stopped {
        let mut stopped = self.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Stopped::ShutDown),
            Err(_) => Stopped::ShutDown,
        }
    }

    /// Stops in good order: takes no new connections, finishes and acknowledges what was submitted,
    /// says that it restarts, and makes everything durable. Takes at most three seconds beside the disk.
    /// The store is then held by nobody but the caller.
    pub async fn shutdown(mut self) {
        info!(connected = self.connected(), "stopping");
        // Before nobody comes any more: otherwise that is for want of a socket.
        self.stop_accepting.take();
        self.endpoint.refuse_new();
        self.sweeping.abort();
        self.shared.sessions.end_all(Close::Restarting);
        let _ = (&mut self.accepting).await;
        let _ = (&mut self.sweeping).await;
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
        self.shared.committer.close();
        let _ = (&mut self.committing).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.sweeping.abort();
        self.committing.abort();
    }
}

/// Commits until told to stop.
async fn commit(group_commit: GroupCommit<impl Fn() -> RelayTime>, notice: Notice) {
    notice.give(match group_commit.run().await {
        Ok(()) => Stopped::ShutDown,
        Err(error) => Stopped::Store(error),
    });
}

/// Accepts until told to stop, then waits for the sessions to end.
async fn accept(
    endpoint: Endpoint,
    mut accepting: Accepting,
    shared: Arc<Shared>,
    mut stop: oneshot::Receiver<()>,
    notice: Notice,
) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => break,
            incoming = accepting.next() => match incoming {
                Some(incoming) => {
                    if let Some((incoming, stranger)) = admit(incoming, &endpoint, &shared) {
                        sessions.spawn(session::run(incoming, stranger, shared.clone()));
                    }
                }
                None => {
                    if stop.try_recv() == Err(TryRecvError::Empty) {
                        notice.give(Stopped::Socket);
                    }
                    break;
                }
            },
            Some(_) = sessions.join_next() => {}
        }
    }
    drop(accepting);
    let all_gone = async { while sessions.join_next().await.is_some() {} };
    if timeout(DRAIN, all_gone).await.is_err() {
        sessions.shutdown().await;
    }
}

/// Turns away what is too much, before anything is spent on it.
fn admit(incoming: Incoming, endpoint: &Endpoint, shared: &Shared) -> Option<(Incoming, Stranger)> {
    let open = endpoint.open_connections() + shared.strangers.waiting();
    if open >= shared.config.limits.connections_max {
        debug!(open, "refusing a connection: as many as may be are open");
        incoming.refuse();
        return None;
    }
    let (strangers, is_proven) = (shared.strangers.count(), incoming.remote_address_validated());
    if strangers >= shared.config.limits.retry_from && !is_proven {
        incoming.retry();
        return None;
    }
    let from = incoming.remote_address().ip();
    let Some(stranger) = shared.strangers.admit(from) else {
        // It asks again by itself, and places come back soon.
        debug!(strangers, "no place for one more who is not known");
        incoming.ignore();
        return None;
    };
    // Nothing is held against an address before it is proven: anybody could have written it.
    if is_proven && shared.limits.check_connection(from).is_err() {
        incoming.ignore();
        return None;
    }
    if !is_proven && shared.limits.check_unproven().is_err() {
        incoming.retry();
        return None;
    }
    Some((incoming, stranger))
}

async fn sweep(shared: Arc<Shared>, _notice: Notice) {
    let mut every = interval(SWEEP_EVERY);
    loop {
        every.tick().await;
        shared.limits.sweep();
        loop {
            let verdicts = shared.committer.commit(vec![Op::Sweep { rows_max: SWEEP_ROWS }]).await;
            match verdicts.as_deref() {
                Ok([Ok(crate::store::Done::Swept { removed, more })]) => {
                    if *removed > 0 {
                        info!(removed, "expired");
                    }
                    if !more {
                        break;
                    }
                }
                Ok(_) => break,
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What those who wait are told when a task with a notice ends so.
    async fn told(task: impl FnOnce(&Notice) + Send + 'static) -> Option<Stopped> {
        let (notice, told) = watch::channel(None);
        let (notice, other) = (Notice(notice.clone()), Notice(notice));
        let ended = tokio::spawn(async move {
            let notice = notice;
            tokio::task::yield_now().await;
            task(&notice);
        });
        let _ = ended.await;
        drop(other);
        told.borrow().clone()
    }

    #[tokio::test]
    async fn a_task_that_panics_stops_the_relay_and_says_so() {
        assert!(matches!(told(|_| panic!("a fault")).await, Some(Stopped::Panicked)));
        assert!(told(|_| ()).await.is_none());
    }

    #[tokio::test]
    async fn the_first_reason_counts() {
        let told = told(|notice| {
            notice.give(Stopped::Store(Arc::new(StoreError::Failed)));
            notice.give(Stopped::Socket);
            panic!("beside itself");
        });
        assert!(matches!(told.await, Some(Stopped::Store(_))));
    }
}
