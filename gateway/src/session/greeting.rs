//! How a link begins: hello, registration and welcome.

use thinpost_wire::codec::DictionarySet;
use thinpost_wire::frame::{Denial, Hello, Signature, ToDevice, Welcome};
use thinpost_wire::ids::{AccountKey, Position};
use thinpost_wire::table::HandleTable;
use thinpost_wire::ticket::InviteToken;
use thinpost_wire::token::MailboxSecret;

use super::Session;
use super::end::{End, Misbehaviour};
use crate::store::{DeviceNo, DeviceRecord, Op, Register, TableTail};

impl Session {
    /// Reads what the store knows of the device; returns what must change there.
    pub(super) async fn greet(&mut self, hello: Hello) -> Result<Option<Op>, End> {
        if self.hello.replace(hello).is_some() {
            return Err(Misbehaviour::Hello.into());
        }
        self.channel.link().set_peer_dictionaries(DictionarySet::from_bits(hello.dictionaries));
        let device = self.device;
        let known = self
            .shared
            .read(move |store| {
                let Some(record) = store.device(&device)? else { return Ok(None) };
                Ok(Some((record, store.tables(record.number)?, store.keys_left(record.number)?)))
            })
            .await?;
        let Some((record, tables, keys_left)) = known else {
            return if hello.registers { Ok(None) } else { Err(Denial::NotRegistered.into()) };
        };
        self.mailboxes = HandleTable::new(tables.to_relay);
        let had = self.mailboxes.len();
        let shared = self.mailboxes.reconcile(hello.mailboxes);
        self.delivery.know_senders(HandleTable::new(tables.from_relay), hello.senders);
        self.welcome(record, hello, keys_left);
        Ok(Some(if shared < had {
            Op::PutTable { device: record.number, from: shared, tail: TableTail::ToRelay(Vec::new()) }
        } else {
            Op::Seen { device: record.number }
        }))
    }

    fn welcome(&mut self, record: DeviceRecord, hello: Hello, keys_left: usize) {
        let store = self.shared.store.store_id();
        let have = hello.have.filter(|(theirs, _)| *theirs == store).map_or(Position(0), |(_, have)| have);
        let cursor = have.max(record.cursor);
        if cursor > record.cursor {
            self.cursor = Some(cursor);
        }
        let welcome = Welcome {
            dictionaries: DictionarySet::compiled_in().bits(),
            store,
            mailboxes_known: self.mailboxes.len(),
            senders_known: self.delivery.senders_known(),
            cursor,
            keys_left: u8::try_from(keys_left).unwrap_or(u8::MAX),
            last: record.last,
        };
        self.channel.link().push(ToDevice::Welcome(welcome).encode());
        self.record = Some(record);
        self.stranger = None;
        if hello.deliver {
            self.delivery.start(record.account, cursor, &self.shared.wakes.mail);
        }
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
        self.registering = Some(account);
        Ok(Op::Register(Register { account, device: self.device, invite, secret }))
    }

    pub(super) fn registered(&mut self, device: DeviceNo, mailbox: u32) -> Result<(), End> {
        let hello = self.hello.ok_or(Misbehaviour::Hello)?;
        let account = self.registering.take().ok_or(Misbehaviour::Hello)?;
        if self.record.is_some() {
            // It was known, and has been welcomed.
            return Ok(());
        }
        let record = DeviceRecord {
            number: device,
            account,
            mailbox,
            cursor: Position(0),
            last_seen: self.shared.clock.now(),
            last: None,
        };
        self.delivery.know_senders(HandleTable::default(), hello.senders);
        self.welcome(record, hello, 0);
        Ok(())
    }
}
