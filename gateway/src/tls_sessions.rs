//! TLS sessions in the relay's store, so that 0-RTT works across a restart.

use std::fmt;
use std::sync::Weak;

use rustls::server::StoresServerSessions;

use crate::store::Store;

/// Each session can be taken once: a first flight that is replayed finds it gone.
///
/// Connections hold this until they have drained, longer than the relay runs; so it must not hold the store.
pub(crate) struct TlsSessions(pub(crate) Weak<dyn Store>);

impl fmt::Debug for TlsSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSessions")
    }
}

impl StoresServerSessions for TlsSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0.upgrade().is_some_and(|store| store.put_session(&key, value.into()))
    }

    /// Only TLS 1.2 reads a session without taking it.
    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// A store that cannot answer costs a full handshake, no more.
    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.upgrade()?.take_session(key).ok().flatten().map(|value| value.to_vec())
    }

    fn can_cache(&self) -> bool {
        true
    }
}
