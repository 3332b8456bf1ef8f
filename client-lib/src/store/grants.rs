//! What gives others access to this home's mailbox, and this home to others'.

use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use thinpost_wire::ids::{AccountKey, StoreId};
use thinpost_wire::token::TokenId;

use super::records::{ACCESS, AccessRow, GRANTS, HomeRecord, META, META_HOME};
use super::{Store, decode, encode};
use crate::error::StoreError;
use crate::grants::Grant;

impl Store {
    pub(crate) fn put_grant(&self, id: TokenId, grant: &Grant) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        write.open_table(GRANTS)?.insert(id.0, encode(grant).as_slice())?;
        Ok(write.commit()?)
    }

    /// Writes a home with another secret. No token of the one before holds.
    pub(crate) fn put_secret(&self, home: &HomeRecord) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        write.open_table(GRANTS)?.retain(|_, _| false)?;
        write.open_table(META)?.insert(META_HOME, encode(home).as_slice())?;
        Ok(write.commit()?)
    }

    pub(crate) fn put_access(&self, account: &AccountKey, access: &AccessRow) -> Result<(), StoreError> {
        let write = self.begin_write()?;
        put_access(&write, account, access)?;
        Ok(write.commit()?)
    }
}

/// An account without a row is reached as its ticket says.
pub(super) fn put_access(
    write: &WriteTransaction,
    account: &AccountKey,
    access: &AccessRow,
) -> Result<(), StoreError> {
    let mut table = write.open_table(ACCESS)?;
    if *access == AccessRow::default() {
        table.remove(&account.0)?;
    } else {
        table.insert(&account.0, encode(access).as_slice())?;
    }
    Ok(())
}

/// Notes what the relay has been told of, unless it is of interest no more.
pub(super) fn put_told(write: &WriteTransaction, told: &[(TokenId, StoreId)]) -> Result<(), StoreError> {
    let mut table = write.open_table(GRANTS)?;
    for (id, store) in told {
        let known = table.get(id.0)?.map(|row| decode::<Grant>(row.value())).transpose()?;
        if let Some(Grant::Revoked { .. }) = known {
            table.insert(id.0, encode(&Grant::Revoked { told: Some(*store) }).as_slice())?;
        }
    }
    Ok(())
}

pub(super) fn load_grants(read: &ReadTransaction) -> Result<Vec<(TokenId, Grant)>, StoreError> {
    let table = read.open_table(GRANTS)?;
    let rows = table.iter()?.map(|row| {
        let (id, grant) = row?;
        Ok((TokenId(id.value()), decode(grant.value())?))
    });
    rows.collect()
}

pub(super) fn load_access(read: &ReadTransaction) -> Result<Vec<(AccountKey, AccessRow)>, StoreError> {
    let table = read.open_table(ACCESS)?;
    let rows = table.iter()?.map(|row| {
        let (account, access) = row?;
        Ok((AccountKey(*account.value()), decode(access.value())?))
    });
    rows.collect()
}
