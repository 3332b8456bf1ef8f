//! All that a store's file holds, row by row: simulations compare it before and after a fault.

use redb::{Key, ReadTransaction, TableDefinition, TableHandle, Value};

use super::objects::{OBJECT_BLOCKS, OBJECT_DEADLINES, OBJECT_IDS, OBJECT_RANGES, OBJECT_USAGE, OBJECTS};
use super::records::{
    ACCEPTED, ACCOUNTS, ADDRESSES, CLOSED, COLLAPSE, DEADLINES, DEVICE_KEYS, DEVICE_TIMERS, DEVICES, ENTRIES,
    INCARNATION_TIMERS, INCARNATIONS, INVITES, MAILBOXES, META, ONE_TIME_KEYS, QUEUES, READERS, RETURNING,
    REVOKED, SECRETS, SENDERS, SESSION_ORDER, SESSIONS,
};
use super::{RedbStore, StoreError};

/// The rows of all tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Rows(Vec<(String, Vec<Row>)>);

/// Key and value, as they lie in the file.
type Row = (Vec<u8>, Vec<u8>);

impl RedbStore {
    /// Every row there is.
    pub(in crate::store) fn rows(&self) -> Result<Rows, StoreError> {
        self.look(|read| {
            let mut rows = Rows::default();
            macro_rules! of {
                ($($table:ident)*) => { $(rows.add(read, $table)?;)* };
            }
            of!(META ACCOUNTS MAILBOXES SECRETS REVOKED DEVICES DEVICE_KEYS RETURNING CLOSED READERS INVITES);
            of!(ENTRIES QUEUES DEADLINES COLLAPSE ACCEPTED INCARNATIONS DEVICE_TIMERS INCARNATION_TIMERS);
            of!(ONE_TIME_KEYS ADDRESSES SENDERS SESSIONS SESSION_ORDER);
            of!(OBJECTS OBJECT_IDS OBJECT_DEADLINES OBJECT_USAGE OBJECT_RANGES OBJECT_BLOCKS);
            let is_listed = |name: &str| rows.0.iter().any(|(listed, _)| listed == name);
            match read.list_tables()?.find(|table| !is_listed(table.name())) {
                Some(table) => Err(StoreError::Corrupt(format!("nobody looks at {}", table.name()))),
                None => Ok(rows),
            }
        })
    }
}

impl Rows {
    fn add<K: Key + 'static, V: Value + 'static>(
        &mut self,
        read: &ReadTransaction,
        table: TableDefinition<'_, K, V>,
    ) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for row in read.open_table(table)?.range::<K::SelfType<'_>>(..)? {
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            rows.push((K::as_bytes(&key).as_ref().to_vec(), V::as_bytes(&value).as_ref().to_vec()));
        }
        self.0.push((table.name().to_owned(), rows));
        Ok(())
    }

    /// The tables that have rows.
    #[cfg(test)]
    pub(in crate::store) fn filled(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, rows)| !rows.is_empty()).map(|(table, _)| table.as_str())
    }

    /// The tables in which they differ from others.
    pub(in crate::store) fn differ<'r>(&'r self, others: &'r Self) -> impl Iterator<Item = &'r str> {
        let pairs = self.0.iter().zip(&others.0);
        pairs.filter(|(ours, theirs)| ours != theirs).map(|((table, _), _)| table.as_str())
    }
}
