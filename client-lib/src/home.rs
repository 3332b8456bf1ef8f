//! A home: the keys of an account and a device, and the relay they belong to.

#[cfg(feature = "crash-points")]
use std::sync::Arc;

use thinpost_carrier::Identity;
use thinpost_wire::ids::AccountKey;
use thinpost_wire::text::{ModelSet, Models};
use thinpost_wire::ticket::{ContactTicket, InviteToken, RelayTicket, SealKeys, Ticket};
use thinpost_wire::token::{MailboxSecret, Token};

use crate::error::{CreateError, OpenError, RenewError, SetKeyError, StoreError, WipeError};
use crate::grants::Grants;
use crate::points::Points;
use crate::random::Random;
use crate::seal::Keyring;
use crate::store::Store;
use crate::store::key::HomeKey;
use crate::store::records::HomeRecord;
use crate::store::storage::Storage;

/// The relay of a home, and what admits the home there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayAccess {
    /// How to reach it.
    pub relay: RelayTicket,
    /// What a relay that admits by invite asks for.
    pub invite: Option<InviteToken>,
}

/// What a ticket says of a relay, if it is one's.
fn access(ticket: &Ticket) -> Option<RelayAccess> {
    match ticket {
        Ticket::Relay(relay) => Some(RelayAccess { relay: relay.clone(), invite: None }),
        Ticket::Invite(invite) => {
            Some(RelayAccess { relay: invite.relay.clone(), invite: Some(invite.token) })
        }
        Ticket::Guest(guest) => access(&Ticket::Invite(guest.invite.clone())),
        Ticket::Contact(_) => None,
    }
}

/// Who a person is on this device. What it holds never changes.
#[derive(Debug)]
pub struct Home {
    pub(crate) account: Identity,
    pub(crate) device: Identity,
    pub(crate) access: RelayAccess,
    /// What others seal for.
    seal: SealKeys,
}

impl Home {
    /// Makes a home: keys for an account and its first device, and the relay that the ticket leads to.
    /// Nothing is sent; the client registers when it first connects. Returns how anybody reaches it.
    ///
    /// Whoever can read its files can read everything in it: see [`Home::create_with_key`].
    ///
    /// # Errors
    /// See [`CreateError`]; a home that exists is never touched.
    pub fn create(storage: impl Into<Storage>, ticket: &Ticket) -> Result<ContactTicket, CreateError> {
        let random = Random::from_system().map_err(|_| CreateError::NoRandomness)?;
        Self::make(storage.into(), ticket, None, random)
    }

    /// The same, encrypted under a key, without which the home cannot be opened by anybody.
    ///
    /// # Errors
    /// As [`Home::create`].
    pub fn create_with_key(
        storage: impl Into<Storage>,
        ticket: &Ticket,
        key: &HomeKey,
    ) -> Result<ContactTicket, CreateError> {
        let random = Random::from_system().map_err(|_| CreateError::NoRandomness)?;
        Self::make(storage.into(), ticket, Some(key), random)
    }

    /// The same with keys drawn from a seed: for simulations, where everything must follow from one.
    ///
    /// # Errors
    /// As [`Home::create`].
    pub fn create_seeded(
        storage: impl Into<Storage>,
        ticket: &Ticket,
        seed: u64,
    ) -> Result<ContactTicket, CreateError> {
        Self::make(storage.into(), ticket, None, Random::from_seed(seed, "keys", 0))
    }

    fn make(
        storage: Storage,
        ticket: &Ticket,
        key: Option<&HomeKey>,
        mut random: Random,
    ) -> Result<ContactTicket, CreateError> {
        let access = access(ticket).ok_or(CreateError::NotARelay)?;
        let account = Identity::from_seed(random.bytes());
        let device = Identity::from_seed(random.bytes());
        let keyring = Keyring::new(random.bytes());
        let home = Self { account, device, access, seal: keyring.public() };
        let secret = MailboxSecret(random.bytes());
        Store::create(&storage, key, &home.to_record(secret), &keyring.to_record(), random)?;
        Ok(home.ticket(Grants::first_token(&secret), Models::compiled_in().set()))
    }

    /// Puts a home under another key, or none: it opens with the new one from here on. Its messages are not
    /// written anew: it takes as long for a full home as for an empty one.
    ///
    /// What is encrypted stays under the same inner key, which the key of the application opens. A copy of
    /// the home from before the change still opens with the old key, and whoever has opened it can read later
    /// ones as well: after a theft make a new home.
    ///
    /// # Errors
    /// See [`SetKeyError`].
    pub fn set_key(
        storage: impl Into<Storage>,
        old: Option<&HomeKey>,
        new: Option<&HomeKey>,
    ) -> Result<(), SetKeyError> {
        let random = Random::from_system().map_err(|_| OpenError::NoRandomness)?;
        Store::set_key(&storage.into(), old, new, random)
    }

    /// Destroys a home for good, whatever its key: first the key that everything in it is encrypted under,
    /// then everything. Interrupted after the first, it leaves what nobody can read; wipe it again.
    ///
    /// Flash memory may keep the blocks that were overwritten for a while. Of a home that was made with a key,
    /// they open nothing without that.
    ///
    /// # Errors
    /// See [`WipeError`].
    pub fn wipe(storage: impl Into<Storage>) -> Result<(), WipeError> {
        Store::wipe(&storage.into())
    }

    /// Gives a home another way in: the newer addresses, or the invite, of a ticket of the same relay. Its keys and
    /// messages stay. An invite is of use where no relay has confirmed the home yet, or the relay has lost its store and
    /// the invite that the home was made with has expired since.
    ///
    /// # Errors
    /// See [`RenewError`]; nothing is changed.
    pub fn renew(
        storage: impl Into<Storage>,
        ticket: &Ticket,
        key: Option<&HomeKey>,
    ) -> Result<(), RenewError> {
        Self::renew_passing(&storage.into(), ticket, key, Points::default())
    }

    /// The same, with what is to happen at crash points: see [`Builder::crash_points`](crate::Builder::crash_points).
    ///
    /// # Errors
    /// As [`Home::renew`].
    #[cfg(feature = "crash-points")]
    pub fn renew_with_crash_points(
        storage: impl Into<Storage>,
        ticket: &Ticket,
        key: Option<&HomeKey>,
        at_each: Arc<dyn Fn(&'static str) + Send + Sync>,
    ) -> Result<(), RenewError> {
        Self::renew_passing(&storage.into(), ticket, key, Points::new(at_each))
    }

    fn renew_passing(
        storage: &Storage,
        ticket: &Ticket,
        key: Option<&HomeKey>,
        points: Points,
    ) -> Result<(), RenewError> {
        let random = Random::from_system().map_err(|_| OpenError::NoRandomness)?;
        let (mut store, loaded) = Store::open(storage, key, random)?;
        store.points = points;
        let home = Self::from_record(&loaded.home, Keyring::from_record(&loaded.keyring)?.public())?;
        let access = access(ticket).ok_or(RenewError::NotARelay)?;
        if access.relay.key != home.access.relay.key {
            return Err(RenewError::OtherRelay);
        }
        let access = RelayAccess { invite: access.invite.or(home.access.invite), ..access };
        if access == home.access {
            return Err(RenewError::Unchanged);
        }
        Ok(store.put_home(&Self { access, ..home }.to_record(loaded.home.secret))?)
    }

    pub(crate) fn account_key(&self) -> AccountKey {
        AccountKey(self.account.public())
    }

    pub(crate) fn seal(&self) -> &SealKeys {
        &self.seal
    }

    pub(crate) fn ticket(&self, token: Token, models: ModelSet) -> ContactTicket {
        ContactTicket {
            account: self.account_key(),
            seal: self.seal,
            signature: self.account.sign(&self.seal.signed_bytes()),
            token,
            relays: vec![self.access.relay.clone()],
            models,
        }
    }

    pub(crate) fn to_record(&self, secret: MailboxSecret) -> HomeRecord {
        HomeRecord {
            account_seed: *self.account.seed(),
            device_seed: *self.device.seed(),
            relay: self.access.relay.to_string(),
            invite: self.access.invite,
            secret,
        }
    }

    pub(crate) fn from_record(record: &HomeRecord, seal: SealKeys) -> Result<Self, StoreError> {
        let relay = record
            .relay
            .parse()
            .map_err(|error| StoreError::Damaged(format!("the relay's ticket: {error}")))?;
        Ok(Self {
            account: Identity::from_seed(record.account_seed),
            device: Identity::from_seed(record.device_seed),
            access: RelayAccess { relay, invite: record.invite },
            seal,
        })
    }
}
