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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use carrier::Identity;
    use thinpost_wire::ids::RelayKey;
    use thinpost_wire::ticket::RelayTicket;

    use super::*;
    use crate::invite::InviteParams;

    const NOW: u64 = 1_800_000_000;

    const DEVICE: DeviceKey = DeviceKey([1; 32]);

    fn account(seed: u8) -> Identity {
        Identity::from_seed([seed; 32])
    }

    fn key(account: &Identity) -> AccountKey {
        AccountKey(account.public())
    }

    fn certificate(account: &Identity, device: DeviceKey) -> Signature {
        account.sign(&device_certificate_message(&device))
    }

    fn admission(registration: Registration, now_unix_s: u64) -> Admission {
        let config = Config { registration, allow_list: [key(&account(2))].into(), ..Config::default() };
        Admission::new(&config, Invites::new([9; 32]), Arc::new(move || now_unix_s))
    }

    fn invite() -> InviteToken {
        let relay =
            RelayTicket { key: RelayKey([7; 32]), addresses: vec!["192.0.2.1:4433".parse().unwrap()] };
        let params = InviteParams { uses: 3, valid: Some(Duration::from_secs(60)) };
        Invites::new([9; 32]).mint(relay, params, NOW).unwrap().token
    }

    #[test]
    fn a_device_needs_its_accounts_own_word_for_itself_under_every_rule() {
        let (ann, eve, token) = (account(2), account(3), invite());
        for registration in [Registration::Open, Registration::AllowList, Registration::Invite] {
            let admission = admission(registration, NOW);
            for is_known in [false, true] {
                let check =
                    |word: &Signature| admission.check(DEVICE, key(&ann), word, Some(&token), is_known);
                assert!(check(&certificate(&ann, DEVICE)).is_ok(), "{registration:?}");
                for forged in [
                    certificate(&eve, DEVICE),
                    certificate(&ann, DeviceKey([8; 32])),
                    ann.sign(&DEVICE.0),
                    Signature([[0; 32]; 2]),
                ] {
                    assert_eq!(check(&forged), Err(Denial::BadCertificate), "{registration:?}");
                }
            }
        }
    }

    #[test]
    fn only_who_is_listed_comes_in_by_a_list_known_or_not() {
        let admission = admission(Registration::AllowList, NOW);
        let eve = account(3);
        for is_known in [false, true] {
            let check =
                admission.check(DEVICE, key(&eve), &certificate(&eve, DEVICE), Some(&invite()), is_known);
            assert_eq!(check, Err(Denial::NotListed));
        }
    }

    #[test]
    fn who_is_new_shows_an_invite_that_is_true_and_in_time() {
        let ann = account(2);
        let word = certificate(&ann, DEVICE);
        let check = |token: Option<&InviteToken>, now, is_known| {
            admission(Registration::Invite, now).check(DEVICE, key(&ann), &word, token, is_known)
        };
        let token = invite();
        assert_eq!(check(Some(&token), NOW + 60, false), Ok(Some(Invite { id: token.id, uses_max: 3 })));
        assert_eq!(check(None, NOW, false), Err(Denial::InviteNeeded));
        assert_eq!(check(Some(&token), NOW + 61, false), Err(Denial::InviteExpired));
        let more_uses = InviteToken { uses: 4, ..token };
        assert_eq!(check(Some(&more_uses), NOW, false), Err(Denial::InviteForged));
        assert_eq!(check(None, NOW, true), Ok(None), "a further device of an account that is in");
    }
}
