//! Who is let in: new devices, and those that come back after the store was restored.

use std::cmp::{max, min};

use redb::ReadableTable;
use thinpost_disk::Left;

use super::{Result, Transaction, missing};
use crate::store::redb::records::Device;
use crate::store::{DeviceNo, Done, MailboxUsage, Refusal, Register, Verdict};

impl Transaction<'_> {
    pub(super) fn register(&mut self, register: &Register) -> Result<Verdict> {
        let known = self.device_keys.get(&register.device.0)?.map(|row| row.value());
        if let Some(number) = known {
            let device = self.device(number)?.ok_or_else(|| missing("device", number))?;
            if device.account != register.account.0 {
                return Ok(Err(Refusal::DeviceOfAnother));
            }
            let (device, mailbox) = (DeviceNo(number), device.mailbox);
            self.put_secret(mailbox, &register.secret)?;
            return Ok(Ok(Done::Registered { device, mailbox, new: false }));
        }
        let returning = self.returning.get(&register.device.0)?.map(|row| row.value());
        if let Some(number) = returning {
            return self.come_back(number, register);
        }
        if self.left < Left::Plenty {
            return Ok(Err(Refusal::StoreFull));
        }
        let mailbox = match self.mailbox_number(&register.account)? {
            Some(mailbox) => {
                if self.readers(mailbox)?.len() >= self.config.devices_max as usize {
                    return Ok(Err(Refusal::TooManyDevices));
                }
                mailbox
            }
            None => {
                if let Some(invite) = register.invite {
                    let id = u64::from_be_bytes(invite.id);
                    let used = self.invites.get(id)?.map_or(0, |row| row.value());
                    if used >= invite.uses_max {
                        return Ok(Err(Refusal::InviteSpent));
                    }
                    self.invites.insert(id, used + 1)?;
                }
                self.state.mailbox += 1;
                self.accounts.insert(&register.account.0, self.state.mailbox)?;
                self.put_usage(self.state.mailbox, MailboxUsage::default())?;
                self.state.mailbox
            }
        };
        self.put_secret(mailbox, &register.secret)?;
        self.state.device += 1;
        let number = self.state.device;
        self.device_keys.insert(&register.device.0, number)?;
        self.readers.insert((mailbox, number), ())?;
        self.device_timers.insert((self.now.after_s(self.lifetime_s()).0, number), ())?;
        let device = Device {
            account: register.account.0,
            mailbox,
            cursor: 0,
            last_seen: self.now.0,
            silent: false,
            last: None,
        };
        self.put_device(number, &device)?;
        Ok(Ok(Done::Registered { device: DeviceNo(number), mailbox, new: true }))
    }

    /// A device of the backup registers for the first time since, with all that is known of it.
    fn come_back(&mut self, number: u32, register: &Register) -> Result<Verdict> {
        let mut device = self.device(number)?.ok_or_else(|| missing("device", number))?;
        if device.account != register.account.0 {
            return Ok(Err(Refusal::DeviceOfAnother));
        }
        let mailbox = device.mailbox;
        self.returning.remove(&register.device.0)?;
        self.device_keys.insert(&register.device.0, number)?;
        self.put_secret(mailbox, &register.secret)?;
        device.cursor = max(device.cursor, min(register.read.0, self.state.position));
        self.touch(number, &mut device)?;
        self.trim(mailbox)?;
        Ok(Ok(Done::Registered { device: DeviceNo(number), mailbox, new: true }))
    }
}
