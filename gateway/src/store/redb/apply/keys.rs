//! One-time keys: kept until somebody claims them.

use redb::ReadableTable;
use thinpost_wire::ids::OneTimeKey;
use thinpost_wire::token::MailboxAddress;

use super::{Result, Transaction, missing};
use crate::store::{DeviceNo, Done, Refusal, Verdict};

impl Transaction<'_> {
    pub(super) fn put_keys(
        &mut self,
        number: DeviceNo,
        replaces: bool,
        keys: &[OneTimeKey],
    ) -> Result<Verdict> {
        if self.devices.get(number.0)?.is_none() {
            return Ok(Err(Refusal::UnknownDevice));
        }
        let of_device = (number.0, &[0; 32])..=(number.0, &[0xff; 32]);
        if replaces {
            self.changed = true;
            self.one_time_keys.retain_in(of_device.clone(), |_, ()| false)?;
        }
        let mut kept = self.one_time_keys.range(of_device)?.count();
        for key in keys {
            if kept >= self.config.keys_max {
                break;
            }
            if self.one_time_keys.insert((number.0, &key.0), ())?.is_none() {
                self.changed = true;
                kept += 1;
            }
        }
        Ok(Ok(Done::KeysPut))
    }

    pub(super) fn claim(&mut self, number: DeviceNo, address: &MailboxAddress) -> Result<Verdict> {
        if self.devices.get(number.0)?.is_none() {
            return Ok(Err(Refusal::UnknownDevice));
        }
        let Some(mailbox) = self.open_mailbox(&address.mailbox)? else {
            return Ok(Err(Refusal::NoSuchMailbox));
        };
        if !self.is_wanted(mailbox, address.token)? {
            return Ok(Err(Refusal::NotWanted));
        }
        for reader in self.readers(mailbox)? {
            let device = self.device(reader)?.ok_or_else(|| missing("device", reader))?;
            if self.is_live(&device)
                && let Some(key) = self.take_key(reader)?
            {
                return Ok(Ok(Done::Claimed { key: Some(key) }));
            }
        }
        Ok(Ok(Done::Claimed { key: None }))
    }

    fn take_key(&mut self, device: u32) -> Result<Option<OneTimeKey>> {
        let of_device = (device, &[0; 32])..=(device, &[0xff; 32]);
        let first = self.one_time_keys.range(of_device)?.next().transpose()?;
        let Some(key) = first.map(|(row, _)| *row.value().1) else { return Ok(None) };
        self.changed = true;
        self.one_time_keys.remove((device, &key))?;
        Ok(Some(OneTimeKey(key)))
    }
}
