//! The session of each connected device, and how to end it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use thinpost_wire::frame::Close;
use thinpost_wire::ids::DeviceKey;
use tokio::sync::oneshot;
use tracing::debug;

/// One for each device: that which began last of those whose handshake is complete. Of two that a device has begun, on one network and then on
/// another, the first may be complete last.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<State>);

#[derive(Default)]
struct State {
    by_device: BTreeMap<DeviceKey, (u64, oneshot::Sender<Close>)>,
    last: u64,
    is_closed: bool,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come. Returns the number of its session: later ones have larger numbers.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.state();
        state.last += 1;
        state.last
    }

    /// Makes this the device's only session, and ends the one before. Returns what tells it to end.
    ///
    /// # Errors
    /// Why it is to end at once.
    pub(crate) fn enter(&self, device: DeviceKey, id: u64) -> Result<oneshot::Receiver<Close>, Close> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Close::Restarting);
        }
        if state.is_superseded(device, id) {
            return Err(Close::Superseded);
        }
        let (end, ended) = oneshot::channel();
        if let Some((_, before)) = state.by_device.insert(device, (id, end)) {
            debug!("a session takes the place of another one of its device");
            let _ = before.send(Close::Superseded);
        }
        Ok(ended)
    }

    /// Whether the device has another session that began later than this one.
    pub(crate) fn is_superseded(&self, device: DeviceKey, id: u64) -> bool {
        self.state().is_superseded(device, id)
    }

    pub(crate) fn leave(&self, device: DeviceKey, id: u64) {
        let mut state = self.state();
        if state.by_device.get(&device).is_some_and(|(current, _)| *current == id) {
            state.by_device.remove(&device);
        }
    }

    /// Ends all, and whoever enters later.
    pub(crate) fn end_all(&self, close: Close) {
        let mut state = self.state();
        state.is_closed = true;
        for (_, end) in std::mem::take(&mut state.by_device).into_values() {
            let _ = end.send(close);
        }
    }

    /// How many devices there are.
    pub(crate) fn connected(&self) -> usize {
        self.state().by_device.len()
    }
}

impl State {
    fn is_superseded(&self, device: DeviceKey, id: u64) -> bool {
        self.by_device.get(&device).is_some_and(|(current, _)| *current > id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceKey = DeviceKey([7; 32]);

    #[test]
    fn whichever_began_last_stays_however_late_the_other_is_complete() {
        let sessions = Sessions::default();
        let [first, second, third] = [(); 3].map(|()| sessions.begin());
        let mut second_ends = sessions.enter(DEVICE, second).unwrap();
        assert!(sessions.is_superseded(DEVICE, first) && !sessions.is_superseded(DEVICE, third));
        assert_eq!(sessions.enter(DEVICE, first).unwrap_err(), Close::Superseded);
        assert!(second_ends.try_recv().is_err(), "nobody ends it");
        let mut third_ends = sessions.enter(DEVICE, third).unwrap();
        assert_eq!(second_ends.try_recv(), Ok(Close::Superseded));
        sessions.leave(DEVICE, second);
        assert_eq!(sessions.connected(), 1);
        sessions.end_all(Close::Restarting);
        assert_eq!(third_ends.try_recv(), Ok(Close::Restarting));
        assert_eq!(sessions.enter(DEVICE, sessions.begin()).unwrap_err(), Close::Restarting);
    }
}
