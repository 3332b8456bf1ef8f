//! Crash points: the moments around every change of the disk at which a test may end everything.
//!
//! Without the feature `crash-points` there are none. With it, a simulation hands in what is to happen at each
//! ([`Builder::crash_points`](crate::Builder::crash_points)), and a process whose environment holds
//! `THINPOST_CRASH_AT=n` kills itself with SIGKILL at the n-th that it passes.

#[cfg(feature = "crash-points")]
pub(crate) use armed::Points;

/// What there is to be killed at: changes of the disk, each before and after its commit, and the moments at which what
/// the disk holds is said on the link, or settled there. A client that passes another one panics, so that none is forgotten here.
#[cfg(feature = "crash-points")]
pub const CRASH_POINTS: [&str; 20] = [
    "acknowledge",
    "apply",
    "change_access",
    "enqueue",
    "enqueue_notes",
    "fetch_object",
    "forget_object",
    "hand_over",
    "put_contact",
    "put_grant",
    "put_home",
    "put_object",
    "put_secret",
    "readdress",
    "release_inbox",
    "remove_contact",
    "remove_request",
    "revoke",
    "say",
    "settle",
];

/// No crash points.
#[cfg(not(feature = "crash-points"))]
#[derive(Clone, Debug, Default)]
pub(crate) struct Points {}

#[cfg(not(feature = "crash-points"))]
impl Points {
    pub(crate) fn pass(&self, _: &'static str) {}
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::fmt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::CRASH_POINTS;

    /// What happens at crash points.
    #[derive(Clone)]
    pub(crate) struct Points(Arc<dyn Fn(&'static str) + Send + Sync>);

    impl Points {
        pub(crate) fn new(at_each: Arc<dyn Fn(&'static str) + Send + Sync>) -> Self {
            Self(at_each)
        }

        pub(crate) fn pass(&self, name: &'static str) {
            assert!(CRASH_POINTS.contains(&name), "{name:?} is missing in CRASH_POINTS");
            (self.0)(name);
        }
    }

    impl Default for Points {
        fn default() -> Self {
            let armed = std::env::var("THINPOST_CRASH_AT").ok().and_then(|at| at.parse::<u64>().ok());
            let Some(at) = armed else { return Self(Arc::new(|_| ())) };
            let passed = AtomicU64::new(0);
            Self(Arc::new(move |_| {
                if passed.fetch_add(1, Ordering::Relaxed) + 1 == at {
                    die();
                }
            }))
        }
    }

    impl fmt::Debug for Points {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Points")
        }
    }

    /// As by `kill -9`: nothing is flushed, no handler runs.
    fn die() -> ! {
        #[cfg(unix)]
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort()
    }
}
