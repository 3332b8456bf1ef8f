//! TLS sessions in the relay's store, so that 0-RTT works across a restart.
//!
//! Who has a session can resume it, as the device that it was made for. So the store holds nothing that anybody could resume by: a
//! session lies under what its ticket is hashed to, sealed under what its ticket is hashed to otherwise, and the ticket only its
//! device has, and the network until it is used.

use std::fmt;
use std::sync::Weak;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::server::StoresServerSessions;
use zeroize::Zeroizing;

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

/// What the session of a ticket is filed under.
fn place(ticket: &[u8]) -> [u8; 32] {
    blake3::derive_key("thinpost/1 relay 2026 TLS session's place", ticket)
}

/// What the session of a ticket is sealed under.
fn key(ticket: &[u8]) -> Option<LessSafeKey> {
    let key = Zeroizing::new(blake3::derive_key("thinpost/1 relay 2026 TLS session's key", ticket));
    UnboundKey::new(&CHACHA20_POLY1305, &*key).map(LessSafeKey::new).ok()
}

/// A ticket is drawn at random for one session, so that its key seals nothing else.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

impl StoresServerSessions for TlsSessions {
    fn put(&self, ticket: Vec<u8>, mut session: Vec<u8>) -> bool {
        let Some(key) = key(&ticket) else { return false };
        key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut session).is_ok()
            && self.0.upgrade().is_some_and(|store| store.put_session(&place(&ticket), session.into()))
    }

    /// Only TLS 1.2 reads a session without taking it.
    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// A store that cannot answer, or has what was not sealed here, costs a full handshake, no more.
    fn take(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = self.0.upgrade()?.take_session(&place(ticket)).ok().flatten()?.to_vec();
        let session = key(ticket)?.open_in_place(nonce(), Aad::empty(), &mut sealed).ok()?;
        Some(session.to_vec())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::store::{RedbStore, RelayTime, StoreConfig};

    const TICKET: &[u8] = b"thirty-two bytes drawn at random";
    const SESSION: &[u8] = b"what a device resumes by, its key among it";

    fn open(path: &Path) -> Arc<dyn Store> {
        Arc::new(RedbStore::open(path, StoreConfig::default()).unwrap())
    }

    #[test]
    fn a_session_is_found_once_and_in_the_store_there_is_nothing_to_resume_by() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let store = open(&path);
        let sessions = TlsSessions(Arc::downgrade(&store));
        assert!(sessions.put(TICKET.to_vec(), SESSION.to_vec()));
        store.apply(&[], RelayTime(1)).unwrap();
        drop(store);
        let file = std::fs::read(&path).unwrap();
        let holds = |part: &[u8]| file.windows(part.len()).any(|window| window == part);
        assert!(holds(&place(TICKET)) && !holds(TICKET) && !holds(SESSION));

        let store = open(&path);
        let sessions = TlsSessions(Arc::downgrade(&store));
        assert_eq!(sessions.take(b"another").as_deref(), None);
        assert_eq!(sessions.take(TICKET).as_deref(), Some(SESSION));
        assert_eq!(sessions.take(TICKET).as_deref(), None);
    }

    #[test]
    fn what_was_not_sealed_under_its_ticket_is_no_session() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("store.redb"));
        let sessions = TlsSessions(Arc::downgrade(&store));
        assert!(store.put_session(&place(TICKET), SESSION.to_vec().into()));
        assert_eq!(sessions.take(TICKET).as_deref(), None);
        assert!(sessions.put(TICKET.to_vec(), SESSION.to_vec()));
        let moved = store.take_session(&place(TICKET)).unwrap().unwrap();
        assert!(store.put_session(&place(b"another"), moved));
        assert_eq!(sessions.take(b"another").as_deref(), None);
    }
}
