//! Who may register.

use std::collections::BTreeSet;

use carrier::verify;
use thinpost_carrier as carrier;
use thinpost_wire::frame::{Denial, Signature};
use thinpost_wire::ids::{AccountKey, DeviceKey, device_certificate_message};
use thinpost_wire::ticket::InviteToken;

use crate::config::{Config, Registration};
use crate::invite::Invites;
use crate::relay::WallClock;
use crate::store::Invite;

/// The relay's rule for new accounts.
pub struct Admission {
    registration: Registration,
    allow_list: BTreeSet<AccountKey>,
    invites: Invites,
    unix_time_s: WallClock,
}

impl Admission {
    /// The rule that the configuration asks for. Invites carry their end as wall-clock time, the one
    /// thing here that is told by it.
    pub fn new(config: &Config, invites: Invites, unix_time_s: WallClock) -> Self {
        Self {
            registration: config.registration,
            allow_list: config.allow_list.clone(),
            invites,
            unix_time_s,
        }
    }

    /// The invite to charge, if any, unless the device is turned away. `is_known` says whether the account
    /// has registered before: its further devices need no invite.
    ///
    /// # Errors
    /// Why it is turned away. Nothing changed.
    pub fn check(
        &self,
        device: DeviceKey,
        account: AccountKey,
        certificate: &Signature,
        token: Option<&InviteToken>,
        is_known: bool,
    ) -> Result<Option<Invite>, Denial> {
        if !verify(&account.0, &device_certificate_message(&device), certificate) {
            return Err(Denial::BadCertificate);
        }
        match self.registration {
            Registration::Open => Ok(None),
            Registration::AllowList if self.allow_list.contains(&account) => Ok(None),
            Registration::AllowList => Err(Denial::NotListed),
            Registration::Invite if is_known => Ok(None),
            Registration::Invite => {
                let token = token.ok_or(Denial::InviteNeeded)?;
                self.invites.verify(token, (self.unix_time_s)())?;
                Ok(Some(Invite { id: token.id, uses_max: token.uses }))
            }
        }
    }
}
