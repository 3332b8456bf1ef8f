//! Accounts and devices, and who may do what.

use std::collections::{HashMap, HashSet};

use data_encoding::HEXLOWER;
use redb::{Key, ReadableTableMetadata, TableDefinition, TableHandle, Value};

use super::Check;
use crate::store::StoreError;
use crate::store::bounds::LIFETIME_S_MAX;
use crate::store::redb::records::{
    ACCOUNTS, CLOSED, DEVICE_KEYS, DEVICE_TIMERS, DEVICES, Device, INVITES, MAILBOXES, READERS, RETURNING,
    REVOKED, SECRETS, decode,
};

/// Said of a device that a home would take for one that knows it.
pub(in crate::store::redb) const OPENING_OF_NOBODY: &str =
    "it has not registered, and is known by an opening";

type Result<T> = std::result::Result<T, StoreError>;

/// The devices that there are, and what leads to them.
#[derive(Default)]
pub(super) struct Devices {
    found: HashMap<u32, Found>,
    /// Those that can log in.
    present: HashSet<u32>,
    /// Those that have not come back from a backup.
    away: HashSet<u32>,
    /// When their timers are due.
    timers: HashMap<u32, u64>,
}

struct Found {
    mailbox: u32,
    cursor: u64,
}

impl Devices {
    pub(super) fn has(&self, device: u32) -> bool {
        self.found.contains_key(&device)
    }

    pub(super) fn is_present(&self, device: u32) -> bool {
        self.present.contains(&device)
    }

    /// How far all devices of each mailbox have settled.
    pub(super) fn settled(&self) -> HashMap<u32, u64> {
        let mut settled = HashMap::new();
        for Found { mailbox, cursor } in self.found.values() {
            let least = settled.entry(*mailbox).or_insert(*cursor);
            *least = (*least).min(*cursor);
        }
        settled
    }
}

impl Check<'_> {
    /// Each account has a mailbox, and each mailbox one account.
    pub(super) fn accounts(&mut self) -> Result<()> {
        let (mailboxes, secrets) = (self.open(MAILBOXES)?, self.open(SECRETS)?);
        let newest = self.known.state.mailbox;
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
        self.given_out("accounts", newest, self.report.counts.accounts);
        self.each(MAILBOXES, |report, mailbox, _| {
            if !owned.contains(&mailbox) {
                report.fault(MAILBOXES.name(), mailbox, "it is no account's");
            }
            Ok(())
        })
    }

    pub(super) fn secrets(&mut self) -> Result<()> {
        self.of_mailboxes(SECRETS, |mailbox| mailbox)
    }

    pub(super) fn revoked(&mut self) -> Result<()> {
        self.of_mailboxes(REVOKED, |(mailbox, _)| mailbox)
    }

    pub(super) fn closed(&mut self) -> Result<()> {
        self.of_mailboxes(CLOSED, |mailbox| mailbox)
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

    /// Nobody is let in without an account.
    pub(super) fn invites(&mut self) -> Result<()> {
        let accounts = self.open(ACCOUNTS)?.len()?;
        let mut let_in = 0;
        self.each(INVITES, |report, invite, used| {
            if used == 0 {
                report.fault(INVITES.name(), format_args!("{invite:016x}"), "it has let nobody in");
            }
            let_in += u64::from(used);
            Ok(())
        })?;
        if let_in > accounts {
            let what = format!("{let_in} accounts were let in, and {accounts} are there");
            self.report.fault(INVITES.name(), "", what);
        }
        Ok(())
    }

    /// Each key leads to one device, which has no other.
    pub(super) fn device_keys(&mut self) -> Result<()> {
        let (devices, present) = (self.open(DEVICES)?, self.open(DEVICE_KEYS)?);
        let mut keyed = Devices::default();
        for table in [DEVICE_KEYS, RETURNING] {
            let is_away = table.name() == RETURNING.name();
            self.each(table, |report, key, number| {
                let mut fault = |what: String| report.fault(table.name(), HEXLOWER.encode(key), what);
                if devices.get(number)?.is_none() {
                    fault(format!("device {number} is missing"));
                } else if keyed.present.contains(&number) || keyed.away.contains(&number) {
                    fault(format!("device {number} has another key, too"));
                } else if is_away {
                    keyed.away.insert(number);
                } else {
                    keyed.present.insert(number);
                }
                if is_away && present.get(key)?.is_some() {
                    fault("a device has registered with it".to_owned());
                }
                Ok(())
            })?;
        }
        self.known.devices = Some(keyed);
        Ok(())
    }

    pub(super) fn device_timers(&mut self) -> Result<()> {
        let Some(mut known) = self.known.devices.take() else { return Ok(()) };
        let devices = self.open(DEVICES)?;
        self.each(DEVICE_TIMERS, |report, (due, number), ()| {
            let mut fault =
                |what: &str| report.fault(DEVICE_TIMERS.name(), format_args!("{due}/{number}"), what);
            if devices.get(number)?.is_none() {
                fault("its device is missing");
            } else if known.timers.insert(number, due).is_some() {
                fault("its device has another, too");
            }
            Ok(())
        })?;
        self.known.devices = Some(known);
        Ok(())
    }

    /// Each device as its account knows it, with one key and one timer.
    pub(super) fn devices(&mut self) -> Result<()> {
        let Some(mut known) = self.known.devices.take() else { return Ok(()) };
        let (accounts, readers) = (self.open(ACCOUNTS)?, self.open(READERS)?);
        let state = self.known.state.clone();
        self.each(DEVICES, |report, number, row| {
            let Ok(device) = decode::<Device>("device", row) else {
                report.fault(DEVICES.name(), number, "it cannot be read");
                return Ok(());
            };
            let timer = known.timers.get(&number);
            if device.last_seen > state.clock_s {
                report.remark(DEVICES.name(), number, "it was seen later than now");
            } else if timer.is_some_and(|due| *due > device.last_seen.saturating_add(LIFETIME_S_MAX)) {
                report.remark(DEVICES.name(), number, "it is waited for longer than anything is");
            }
            let mut fault = |what: &str| report.fault(DEVICES.name(), number, what);
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
            let is_away = known.away.contains(&number);
            if !is_away && !known.present.contains(&number) {
                fault("it has no key");
            }
            if is_away && device.last.is_some() {
                fault(OPENING_OF_NOBODY);
            }
            if device.silent == timer.is_some() {
                fault(if device.silent { "it is silent, and has a timer" } else { "it has no timer" });
            }
            known.found.insert(number, Found { mailbox: device.mailbox, cursor: device.cursor });
            report.counts.devices += 1;
            Ok(())
        })?;
        self.given_out("devices", state.device, self.open(DEVICES)?.len()?);
        self.known.devices = Some(known);
        Ok(())
    }

    /// Each reader's device reads that mailbox. Each mailbox has one, and is open if one has registered, and then only.
    pub(super) fn readers(&mut self) -> Result<()> {
        let Some(devices) = self.known.devices.take() else { return Ok(()) };
        // Of each mailbox a reader who has registered, if there is one.
        let mut readers: HashMap<u32, Option<u32>> = HashMap::new();
        self.each(READERS, |report, (mailbox, number), ()| {
            if devices.found.get(&number).is_none_or(|found| found.mailbox != mailbox) {
                let what = "its device reads another, or is missing";
                report.fault(READERS.name(), format_args!("{mailbox}/{number}"), what);
            }
            let present = readers.entry(mailbox).or_default();
            if present.is_none() && devices.is_present(number) {
                *present = Some(number);
            }
            Ok(())
        })?;
        self.known.devices = Some(devices);
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
}
