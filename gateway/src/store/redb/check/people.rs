//! Accounts and devices, and what is kept for each.

use std::collections::{HashMap, HashSet};

use data_encoding::HEXLOWER;
use redb::{Key, ReadableTableMetadata, TableDefinition, TableHandle, Value};

use thinpost_wire::limits::DIGESTS_KEPT;

use super::Check;
use crate::store::StoreError;
use crate::store::redb::records::{
    ACCEPTED, ACCOUNTS, ADDRESSES, CLOSED, DEVICE_KEYS, DEVICE_TIMERS, DEVICES, Device, INCARNATION_TIMERS,
    INCARNATIONS, INVITES, MAILBOXES, ONE_TIME_KEYS, READERS, RETURNING, REVOKED, SECRETS, SENDERS,
    SESSION_ORDER, SESSIONS, decode,
};

/// Said of a key that could be given out twice.
pub(in crate::store::redb) const KEY_OF_NOBODY: &str = "its device has not registered";

type Result<T> = std::result::Result<T, StoreError>;

/// What keys lead to.
#[derive(Default)]
struct Keyed {
    /// Devices that can log in.
    present: HashSet<u32>,
    /// Those that have not come back from a backup.
    away: HashSet<u32>,
}

/// The devices, and what others are compared with.
struct Devices {
    /// The mailbox of each.
    mailboxes: HashMap<u32, u32>,
    keyed: Keyed,
}

impl Check<'_> {
    pub(super) fn people(&mut self) -> Result<()> {
        self.accounts()?;
        self.rights()?;
        let devices = self.devices()?;
        self.readers(&devices)?;
        self.repeats(&devices.mailboxes)?;
        self.one_time_keys(&devices)?;
        self.handle_table(ADDRESSES, &devices.mailboxes)?;
        self.handle_table(SENDERS, &devices.mailboxes)?;
        self.sessions()
    }

    /// Each account has a mailbox, and each mailbox one account.
    fn accounts(&mut self) -> Result<()> {
        let (mailboxes, secrets) = (self.open(MAILBOXES)?, self.open(SECRETS)?);
        let newest = self.state.mailbox;
        let mut owned = HashSet::new();
        self.each(ACCOUNTS, |report, account, mailbox| {
            let mut fault = |what: String| report.fault(ACCOUNTS.name(), HEXLOWER.encode(account), what);
            if mailbox == 0 || mailbox > newest {
                fault(format!("mailbox {mailbox} was never given out"));
            }
            if mailboxes.get(mailbox)?.is_none() {
                fault(format!("its mailbox {mailbox} is missing"));
            }
            if secrets.get(mailbox)?.is_none() {
                fault("its tokens have no secret".to_owned());
            }
            if !owned.insert(mailbox) {
                fault(format!("mailbox {mailbox} is another account's, too"));
            }
            report.counts.accounts += 1;
            Ok(())
        })?;
        self.each(MAILBOXES, |report, mailbox, _| {
            if !owned.contains(&mailbox) {
                report.fault(MAILBOXES.name(), mailbox, "it is no account's");
            }
            Ok(())
        })
    }

    /// Secrets and revocations belong to mailboxes, and so does that one is closed.
    fn rights(&mut self) -> Result<()> {
        self.of_mailboxes(SECRETS, |mailbox| mailbox)?;
        self.of_mailboxes(REVOKED, |(mailbox, _)| mailbox)?;
        self.of_mailboxes(CLOSED, |mailbox| mailbox)?;
        self.each(INVITES, |report, invite, used| {
            if used == 0 {
                report.fault(INVITES.name(), format_args!("{invite:016x}"), "it has let nobody in");
            }
            Ok(())
        })
    }

    /// Each row's mailbox is there.
    fn of_mailboxes<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'_, K, V>,
        mailbox_of: impl for<'a> Fn(K::SelfType<'a>) -> u32,
    ) -> Result<()> {
        let mailboxes = self.open(MAILBOXES)?;
        let name = table.name().to_owned();
        self.each(table, |report, key, _| {
            let mailbox = mailbox_of(key);
            if mailboxes.get(mailbox)?.is_none() {
                report.fault(&name, mailbox, "its mailbox is missing");
            }
            Ok(())
        })
    }

    /// Each device as its account knows it, with one key and one timer.
    fn devices(&mut self) -> Result<Devices> {
        let keyed = self.device_keys()?;
        let timers = self.device_timers()?;
        let (accounts, readers) = (self.open(ACCOUNTS)?, self.open(READERS)?);
        let state = self.state.clone();
        let mut mailboxes = HashMap::new();
        self.each(DEVICES, |report, number, row| {
            let mut fault = |what: &str| report.fault(DEVICES.name(), number, what);
            let Ok(device) = decode::<Device>("device", row) else {
                fault("it cannot be read");
                return Ok(());
            };
            if number == 0 || number > state.device {
                fault("its number was never given out");
            }
            if accounts.get(&device.account)?.is_none_or(|mailbox| mailbox.value() != device.mailbox) {
                fault("its account has another mailbox, or is missing");
            }
            if readers.get((device.mailbox, number))?.is_none() {
                fault("it is none of its mailbox's readers");
            }
            if device.cursor > state.position {
                fault("its cursor stands behind all positions");
            }
            if device.last_seen > state.clock_s {
                fault("it was seen later than now");
            }
            if !keyed.present.contains(&number) && !keyed.away.contains(&number) {
                fault("it has no key");
            }
            if device.silent == timers.contains(&number) {
                fault(if device.silent { "it is silent, and has a timer" } else { "it has no timer" });
            }
            mailboxes.insert(number, device.mailbox);
            report.counts.devices += 1;
            Ok(())
        })?;
        Ok(Devices { mailboxes, keyed })
    }

    /// The devices that a key leads to: each key to one, which has no other.
    fn device_keys(&mut self) -> Result<Keyed> {
        let (devices, present) = (self.open(DEVICES)?, self.open(DEVICE_KEYS)?);
        let mut keyed = Keyed::default();
        for table in [DEVICE_KEYS, RETURNING] {
            let is_away = table.name() == RETURNING.name();
            self.each(table, |report, key, number| {
                let mut fault = |what: String| report.fault(table.name(), HEXLOWER.encode(key), what);
                let is_named = keyed.present.contains(&number) || keyed.away.contains(&number);
                if devices.get(number)?.is_none() {
                    fault(format!("device {number} is missing"));
                } else if is_named {
                    fault(format!("device {number} has another key, too"));
                } else {
                    let named = if is_away { &mut keyed.away } else { &mut keyed.present };
                    named.insert(number);
                }
                if is_away && present.get(key)?.is_some() {
                    fault("a device has registered with it".to_owned());
                }
                Ok(())
            })?;
        }
        Ok(keyed)
    }

    fn device_timers(&mut self) -> Result<HashSet<u32>> {
        let devices = self.open(DEVICES)?;
        let mut timed = HashSet::new();
        self.each(DEVICE_TIMERS, |report, (due, number), ()| {
            let mut fault =
                |what: &str| report.fault(DEVICE_TIMERS.name(), format_args!("{due}/{number}"), what);
            if devices.get(number)?.is_none() {
                fault("its device is missing");
            } else if !timed.insert(number) {
                fault("its device has another, too");
            }
            Ok(())
        })?;
        Ok(timed)
    }

    /// Each reader's device reads that mailbox. Each mailbox has one, and is open if one has registered, and then only.
    fn readers(&mut self, Devices { mailboxes, keyed }: &Devices) -> Result<()> {
        // Of each mailbox a reader who has registered, if there is one.
        let mut readers: HashMap<u32, Option<u32>> = HashMap::new();
        self.each(READERS, |report, (mailbox, number), ()| {
            if mailboxes.get(&number) != Some(&mailbox) {
                let what = "its device reads another, or is missing";
                report.fault(READERS.name(), format_args!("{mailbox}/{number}"), what);
            }
            let present = readers.entry(mailbox).or_default();
            if present.is_none() && keyed.present.contains(&number) {
                *present = Some(number);
            }
            Ok(())
        })?;
        let closed = self.open(CLOSED)?;
        self.each(MAILBOXES, |report, mailbox, _| {
            match (readers.get(&mailbox), closed.get(mailbox)?.is_some()) {
                (None, _) => report.fault(MAILBOXES.name(), mailbox, "nobody reads it"),
                (Some(Some(device)), true) => {
                    let what = format!("device {device} reads it, and has registered");
                    report.fault(CLOSED.name(), mailbox, what);
                }
                (Some(None), false) => {
                    report.fault(MAILBOXES.name(), mailbox, "it is open, and nobody has come back");
                }
                (Some(Some(_)), false) | (Some(None), true) => {}
            }
            Ok(())
        })
    }

    /// What repeats are known by: each incarnation has its timer, and as many digests as it says.
    fn repeats(&mut self, devices: &HashMap<u32, u32>) -> Result<()> {
        let (accepted, timers) = (self.open(ACCEPTED)?, self.open(INCARNATION_TIMERS)?);
        let now = self.state.clock_s;
        self.each(INCARNATIONS, |report, (device, incarnation), (floor, kept, last_used, timer)| {
            let mut fault = |what: String| {
                report.fault(INCARNATIONS.name(), format_args!("{device}/{incarnation:016x}"), what);
            };
            let mut rows = accepted.range((device, incarnation, 0)..=(device, incarnation, u64::MAX))?;
            let first = rows.next().transpose()?.map(|(key, _)| key.value().2);
            let found = u32::from(first.is_some()) + rows.count() as u32;
            if found != kept {
                fault(format!("{kept} digests are counted, and {found} are there"));
            }
            if kept == 0 {
                fault("it is known by nothing".to_owned());
            }
            // It is set once as many are kept as may be, and then follows the smallest; the bound may have grown since.
            let is_full = u64::from(kept) >= DIGESTS_KEPT;
            if first.is_some_and(|first| floor != first && (floor != 0 || is_full)) {
                fault(format!(
                    "its floor is {floor}, and its numbers begin at {}",
                    first.unwrap_or_default()
                ));
            }
            if last_used > now {
                fault("it was used later than now".to_owned());
            }
            if !devices.contains_key(&device) {
                fault("its device is missing".to_owned());
            }
            if timers.get((timer, device, incarnation))?.is_none() {
                fault("it has no timer".to_owned());
            }
            Ok(())
        })?;
        let incarnations = self.open(INCARNATIONS)?;
        self.each(INCARNATION_TIMERS, |report, (due, device, incarnation), ()| {
            let timer = incarnations.get((device, incarnation))?.map(|row| row.value().3);
            if timer != Some(due) {
                let key = format_args!("{due}/{device}/{incarnation:016x}").to_string();
                report.fault(INCARNATION_TIMERS.name(), key, "its incarnation has another, or is missing");
            }
            Ok(())
        })?;
        let mut known = None;
        self.each(ACCEPTED, |report, (device, incarnation, sequence), _| {
            let key = (device, incarnation);
            if known != Some(key) {
                known = incarnations.get(key)?.map(|_| key);
            }
            if known.is_none() {
                let key = format_args!("{device}/{incarnation:016x}/{sequence}").to_string();
                report.fault(ACCEPTED.name(), key, "its incarnation is missing");
            }
            Ok(())
        })
    }

    /// One-time keys are those of a device that has registered: what it left before the store was restored may be given out.
    fn one_time_keys(&mut self, Devices { mailboxes, keyed }: &Devices) -> Result<()> {
        self.each(ONE_TIME_KEYS, |report, (device, _), ()| {
            if !mailboxes.contains_key(&device) {
                report.fault(ONE_TIME_KEYS.name(), device, "its device is missing");
            } else if !keyed.present.contains(&device) {
                report.fault(ONE_TIME_KEYS.name(), device, KEY_OF_NOBODY);
            }
            Ok(())
        })
    }

    /// Handles belong to devices, and have no gaps.
    fn handle_table<V: Value + 'static>(
        &mut self,
        table: TableDefinition<'_, (u32, u16), V>,
        devices: &HashMap<u32, u32>,
    ) -> Result<()> {
        let name = table.name().to_owned();
        let mut next = (0, 0);
        self.each(table, |report, (device, index), _| {
            let mut fault = |what: &str| report.fault(&name, format_args!("{device}/{index}"), what);
            if !devices.contains_key(&device) {
                fault("its device is missing");
            }
            let expected = if next.0 == device { next.1 } else { 0 };
            if index != expected {
                fault("handles before it are missing");
            }
            next = (device, index.saturating_add(1));
            Ok(())
        })
    }

    /// Each TLS session has its place in the order, and each place its session.
    fn sessions(&mut self) -> Result<()> {
        let (sessions, order) = (self.open(SESSIONS)?, self.open(SESSION_ORDER)?);
        let newest = self.state.session;
        self.each(SESSIONS, |report, key, (place, _)| {
            let mut fault = |what: &str| report.fault(SESSIONS.name(), place, what);
            if place > newest {
                fault("its place was never given out");
            }
            if order.get(place)?.is_none_or(|ordered| ordered.value() != key) {
                fault("another has its place");
            }
            Ok(())
        })?;
        if order.len()? != sessions.len()? {
            let what = format!("{} have a place, and {} are there", order.len()?, sessions.len()?);
            self.report.fault(SESSION_ORDER.name(), "", what);
        }
        Ok(())
    }
}
