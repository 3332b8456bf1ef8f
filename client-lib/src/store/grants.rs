//! What gives others access to this home's mailbox, and this home to others'.

use redb::{ReadTransaction, WriteTransaction};
use thinpost_wire::ids::{AccountKey, StoreId};
use thinpost_wire::ticket::ContactTicket;
use thinpost_wire::token::TokenId;

use super::Store;
use super::records::{ACCESS, AccessRow, GRANTS, HOME, HomeRecord, REQUESTS};
use super::table::Tables;
use crate::error::StoreError;
use crate::grants::Grant;

impl Store {
    pub(crate) fn put_grant(&self, id: TokenId, grant: &Grant) -> Result<(), StoreError> {
        self.change("put_grant", |write| write.table(GRANTS)?.insert(id.0, grant))
    }

    /// Revokes tokens, and shuts out accounts.
    pub(crate) fn revoke(&self, ids: &[TokenId], accounts: &[AccountKey]) -> Result<(), StoreError> {
        self.change("revoke", |write| {
            for id in ids {
                write.table(GRANTS)?.insert(id.0, &Grant::Revoked { told: None })?;
            }
            for account in accounts {
                change_access(write, account, |access| access.shut_out = true)?;
            }
            Ok(())
        })
    }

    /// Writes a home with another secret. No token of the one before holds.
    pub(crate) fn put_secret(&self, home: &HomeRecord) -> Result<(), StoreError> {
        self.change("put_secret", |write| {
            write.table(GRANTS)?.drop_range(..)?;
            write.meta()?.put(HOME, home)?;
            Ok(())
        })
    }

    pub(crate) fn remove_request(&self, account: &AccountKey) -> Result<(), StoreError> {
        self.change("remove_request", |write| write.table(REQUESTS)?.remove_hidden(&account.0))
    }

    pub(crate) fn change_access(
        &self,
        account: &AccountKey,
        change: impl FnOnce(&mut AccessRow),
    ) -> Result<(), StoreError> {
        self.change("change_access", |write| change_access(write, account, change))
    }
}

pub(super) fn change_access(
    write: &Tables<'_, WriteTransaction>,
    account: &AccountKey,
    change: impl FnOnce(&mut AccessRow),
) -> Result<(), StoreError> {
    let known = write.table(ACCESS)?.get_hidden(&account.0)?;
    let mut access = known.map(|(_, access)| access).unwrap_or_default();
    change(&mut access);
    put_access(write, account, &access)
}

/// An account without a row is reached as its ticket says.
pub(super) fn put_access(
    write: &Tables<'_, WriteTransaction>,
    account: &AccountKey,
    access: &AccessRow,
) -> Result<(), StoreError> {
    let mut table = write.table(ACCESS)?;
    if *access == AccessRow::default() {
        table.remove_hidden(&account.0)
    } else {
        table.insert_hidden(&account.0, &(*account, access.clone()))
    }
}

/// Notes what the relay has been told of, unless it is of interest no more.
pub(super) fn put_told(
    write: &Tables<'_, WriteTransaction>,
    told: &[(TokenId, StoreId)],
) -> Result<(), StoreError> {
    let mut table = write.table(GRANTS)?;
    for (id, store) in told {
        if let Some(Grant::Revoked { .. }) = table.get(id.0)? {
            table.insert(id.0, &Grant::Revoked { told: Some(*store) })?;
        }
    }
    Ok(())
}

/// Notes who has made themselves known under which token, unless it was revoked meanwhile.
pub(super) fn put_claims(
    write: &Tables<'_, WriteTransaction>,
    claims: &[(TokenId, AccountKey)],
) -> Result<(), StoreError> {
    let mut table = write.table(GRANTS)?;
    for (id, account) in claims {
        let Some(mut grant) = table.get(id.0)? else { continue };
        grant.claim(*account);
        table.insert(id.0, &grant)?;
    }
    Ok(())
}

pub(super) fn put_requests(
    write: &Tables<'_, WriteTransaction>,
    requests: &[ContactTicket],
) -> Result<(), StoreError> {
    let mut table = write.table(REQUESTS)?;
    for ticket in requests {
        table.insert_hidden(&ticket.account.0, &ticket.to_string())?;
    }
    Ok(())
}

pub(super) fn load_requests(read: &Tables<'_, ReadTransaction>) -> Result<Vec<ContactTicket>, StoreError> {
    let parse = |ticket: Result<String, StoreError>| {
        ticket?.parse().map_err(|error| StoreError::Damaged(format!("a request: {error}")))
    };
    read.table(REQUESTS)?.records()?.map(parse).collect()
}

pub(super) fn load_grants(read: &Tables<'_, ReadTransaction>) -> Result<Vec<(TokenId, Grant)>, StoreError> {
    read.table(GRANTS)?.range(..)?.map(|row| row.map(|(id, grant)| (TokenId(id), grant))).collect()
}

pub(super) fn load_access(
    read: &Tables<'_, ReadTransaction>,
) -> Result<Vec<(AccountKey, AccessRow)>, StoreError> {
    read.table(ACCESS)?.records()?.collect()
}
