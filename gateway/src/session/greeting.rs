//! How a link begins: handshake, hello, registration and welcome.

use std::sync::atomic::Ordering;

use thinpost_carrier::{Connecting, Incoming};
use thinpost_wire::codec::DictionarySet;
use thinpost_wire::frame::{Denial, Hello, Signature, ToDevice, Welcome};
use thinpost_wire::ids::{AccountKey, DeviceKey, Position};
use thinpost_wire::table::HandleTable;
use thinpost_wire::ticket::InviteToken;
use thinpost_wire::token::MailboxSecret;
use tokio::time::timeout;
use tracing::{debug, error};

use super::end::{End, Misbehaviour};
use super::{GREETING_MAX, Session};
use crate::store::{DeviceRecord, HandleTables, Leap, Op, Register, Store, TableTail};
use crate::strangers::Stranger;

/// Resumed devices are known, and heard, at once (0-RTT); others when the handshake is complete.
pub(super) async fn handshake(
    incoming: Incoming,
    stranger: &mut Stranger,
) -> Option<(Connecting, DeviceKey)> {
    let connecting = incoming.accept().await;
    stranger.begins();
    let mut connecting = connecting.inspect_err(|error| debug!(%error, "no connection")).ok()?;
    if let Some(device) = connecting.peer_device() {
        return Some((connecting, device));
    }
    tokio::select! {
        done = timeout(GREETING_MAX, connecting.connected()) => done.ok()?.ok()?,
        () = stranger.ousted() => {
            debug!("a handshake is ended: others want its place");
            return None;
        }
    }
    let device = connecting.peer_device()?;
    Some((connecting, device))
}

/// Completes when a stranger has to leave.
pub(super) async fn ousted(stranger: &mut Option<Stranger>) {
    match stranger {
        Some(stranger) => stranger.ousted().await,
        None => std::future::pending().await,
    }
}

/// What a store knows of a device.
struct Known {
    record: DeviceRecord,
    tables: HandleTables,
    keys_left: usize,
    newest: Position,
    /// What the run has passed over.
    leap: Option<Leap>,
}

impl Session {
    /// Reads what the store knows of the device; returns what must change there.
    pub(super) async fn greet(&mut self, hello: Hello) -> Result<Option<Op>, End> {
        if self.hello.replace(hello).is_some() {
            return Err(Misbehaviour::Hello.into());
        }
        self.channel.link().set_peer_dictionaries(DictionarySet::from_bits(hello.dictionaries));
        let Some(known) = self.known().await? else {
            return if hello.registers { Ok(None) } else { Err(Denial::NotRegistered.into()) };
        };
        let device = known.record.number;
        Ok(Some(match self.welcome(known, hello) {
            Some(cut) => cut,
            None => Op::Seen { device },
        }))
    }

    /// What the store knows of the device, if it does.
    async fn known(&self) -> Result<Option<Known>, End> {
        let device = self.device;
        let read = move |store: &dyn Store| {
            let Some(record) = store.device(&device)? else { return Ok(None) };
            Ok(Some(Known {
                record,
                tables: store.tables(record.number)?,
                keys_left: store.keys_left(record.number)?,
                newest: store.newest()?,
                leap: store.leap(),
            }))
        };
        Ok(self.shared.read(read).await?)
    }

    /// Says what is known of the device. What the store must forget of its handles.
    fn welcome(&mut self, known: Known, hello: Hello) -> Option<Op> {
        let Known { record, tables, keys_left, newest, leap } = known;
        self.mailboxes = HandleTable::new(tables.to_relay);
        let had = self.mailboxes.len();
        let shared = self.mailboxes.reconcile(hello.mailboxes);
        self.delivery.know_senders(HandleTable::new(tables.from_relay), hello.senders);
        let lineage = self.shared.store.lineage();
        let is_beyond = |read| read > newest || leap.is_some_and(|leap| leap.passes(read));
        if hello.have.is_some_and(|(store, read)| store == lineage.id() && is_beyond(read))
            && !self.shared.is_said_to_be_behind.swap(true, Ordering::Relaxed)
        {
            error!(
                "a device says that it has read what this store has never given out: if the data folder was put back by a copy, \
                 senders do not know yet what it has lost, and revoked tickets may hold; stop, and put it back by gateway restore"
            );
        }
        let cursor = lineage.resume(record.cursor, hello.have, newest);
        if cursor > record.cursor {
            self.cursor = Some(cursor);
        }
        let (store, stated) = (lineage.id(), lineage.stated(cursor));
        let welcome = Welcome {
            dictionaries: DictionarySet::compiled_in().bits(),
            store,
            mailboxes_known: self.mailboxes.len(),
            senders_known: self.delivery.senders_known(),
            cursor: stated,
            keys_left: u8::try_from(keys_left).unwrap_or(u8::MAX),
            last: record.last,
        };
        self.channel.link().push(ToDevice::Welcome(welcome).encode());
        self.record = Some(record);
        if hello.deliver {
            self.delivery.start(record.account, cursor, stated, &self.shared.wakes.mail);
        }
        let tail = TableTail::ToRelay(Vec::new());
        (shared < had).then_some(Op::PutTable { device: record.number, from: shared, tail })
    }

    pub(super) async fn register(
        &mut self,
        account: AccountKey,
        certificate: Signature,
        invite: Option<&InviteToken>,
        secret: MailboxSecret,
    ) -> Result<Op, End> {
        let is_known = self.shared.read(move |store| store.mailbox_usage(&account)).await?.is_some();
        let invite = self.shared.admission.check(self.device, account, &certificate, invite, is_known)?;
        let read = self.hello.as_ref().and_then(|hello| hello.have);
        let read = read.map_or(Position(0), |(store, read)| self.shared.store.lineage().here(store, read));
        Ok(Op::Register(Register { account, device: self.device, invite, secret, read }))
    }

    /// The device is registered, and the store says more of it if it came back from a backup.
    pub(super) async fn registered(&mut self) -> Result<(), End> {
        let hello = self.hello.ok_or(Misbehaviour::Hello)?;
        if self.record.is_some() {
            // It was known, and has been welcomed.
            return Ok(());
        }
        let known = self.known().await?.ok_or(Denial::NotRegistered)?;
        // What the store must forget is forgotten with the device's next Bind, or on its next link.
        self.welcome(known, hello);
        Ok(())
    }
}
