//! A slower clock for QUIC.
//!
//! QUIC acknowledges a lone packet after 25 ms, in a packet of its own: here 59 bytes, a third of a short message. A clock
//! that runs [`SLOWER`] times slower at both ends makes these 25 ms ten seconds, so that an acknowledgement leaves with
//! the next datagram that leaves anyway, and makes QUIC wait as much longer before it probes for one. What
//! QUIC counts in round trips stays as it is, since it measures them by the same clock. Links repeat what is lost by a clock of their own.
//! `docs/decisions/0012-quic-clock.md` has the figures.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime};

/// How many times slower QUIC's clock runs. Both ends of a connection must agree: the one waits by it, the other probes.
pub const SLOWER: u32 = 400;

/// How long a duration is for QUIC.
pub(crate) fn for_quic(duration: Duration) -> Duration {
    duration / SLOWER
}

/// How long a duration is that QUIC has measured.
pub(crate) fn from_quic(duration: Duration) -> Duration {
    duration * SLOWER
}

/// A runtime whose clock is slow from the moment that this was made.
#[derive(Debug)]
pub struct SlowRuntime {
    inner: Arc<dyn Runtime>,
    began: Instant,
}

impl SlowRuntime {
    /// Slows the clock of a runtime.
    pub fn new(inner: Arc<dyn Runtime>) -> Arc<Self> {
        let began = inner.now();
        Arc::new(Self { inner, began })
    }
}

/// When the inner clock shows what the slow one calls `at`. What no clock will ever show is never.
fn inner_time(began: Instant, at: Instant) -> Instant {
    let elapsed = at.saturating_duration_since(began);
    elapsed.checked_mul(SLOWER).and_then(|elapsed| began.checked_add(elapsed)).unwrap_or(began + NEVER)
}

/// A century.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Runtime for SlowRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let inner = self.inner.new_timer(inner_time(self.began, at));
        Box::pin(SlowTimer { inner, began: self.began })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.inner.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.inner.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        self.began + for_quic(self.inner.now().saturating_duration_since(self.began))
    }
}

struct SlowTimer {
    inner: Pin<Box<dyn AsyncTimer>>,
    began: Instant,
}

impl fmt::Debug for SlowTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowTimer").finish_non_exhaustive()
    }
}

impl AsyncTimer for SlowTimer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        let at = inner_time(self.began, at);
        self.inner.as_mut().reset(at);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokio's clock, paused.
    #[derive(Debug)]
    struct Paused;

    impl Runtime for Paused {
        fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
            Box::pin(tokio::time::sleep_until(at.into()))
        }

        fn spawn(&self, _: Pin<Box<dyn Future<Output = ()> + Send>>) {}

        fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn now(&self) -> Instant {
            tokio::time::Instant::now().into_std()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_rings_when_the_slow_clock_shows_its_time() {
        let slow = SlowRuntime::new(Arc::new(Paused));
        let began = tokio::time::Instant::now();
        let at = slow.now() + Duration::from_millis(25);
        let mut timer = slow.new_timer(at);
        std::future::poll_fn(|cx| timer.as_mut().poll(cx)).await;
        assert_eq!(slow.now(), at);
        assert_eq!(began.elapsed(), Duration::from_secs(10));

        let at = slow.now() + Duration::from_micros(1);
        timer.as_mut().reset(at);
        std::future::poll_fn(|cx| timer.as_mut().poll(cx)).await;
        assert_eq!(slow.now(), at);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_beyond_all_clocks_is_never() {
        let slow = SlowRuntime::new(Arc::new(Paused));
        assert!(inner_time(slow.began, slow.began + NEVER) > slow.began + NEVER / 2);
    }
}
