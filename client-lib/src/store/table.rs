//! Tables whose rows are sealed: whoever uses them sees records only.
//!
//! A new table is a line in `records`, and one in [`Tables::make_all`].

use std::marker::PhantomData;
use std::ops::RangeBounds;

use redb::{Key, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thinpost_disk::Database;

use super::records;
use super::vault::{Hidden, Vault};
use crate::error::StoreError;

/// Numbers, and what stands for secrets.
pub(super) trait RowKey: Copy + for<'a> Key<SelfType<'a> = Self> + 'static {}

impl<K: Copy + for<'a> Key<SelfType<'a> = K> + 'static> RowKey for K {}

/// A table of records `R` under keys `K`. A key is readable by anyone: what is secret is [hidden](Rows::hide).
pub(super) struct Rows<K, R> {
    name: &'static str,
    keys_and_records: PhantomData<fn() -> (K, R)>,
}

impl<K: RowKey, R> Rows<K, R> {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, keys_and_records: PhantomData }
    }

    pub(super) fn definition(&self) -> TableDefinition<'static, K, &'static [u8]> {
        TableDefinition::new(self.name)
    }
}

impl<R> Rows<Hidden, R> {
    /// The key of what is known by a name that is a secret.
    fn hide(&self, vault: &Vault, name: &[u8]) -> Hidden {
        vault.hide(self.name, name)
    }
}

/// The one record under a key of the table [`META`].
pub(super) struct Single<R> {
    key: &'static str,
    record: PhantomData<fn() -> R>,
}

impl<R> Single<R> {
    pub(super) const fn new(key: &'static str) -> Self {
        Self { key, record: PhantomData }
    }
}

/// The record that these bytes are read as in a row of this place, written again; none if they are no record.
#[cfg(feature = "fuzzing")]
fn rewrite<R: Serialize + DeserializeOwned>(
    vault: &Vault,
    table: &'static str,
    key: &[u8],
    record: &[u8],
) -> Option<Vec<u8>> {
    let row = vault.seal(table, key, &super::fuzzing::AsItIs(record));
    let record: R = vault.open(table, key, &row).ok()?;
    Some(postcard::to_stdvec(&record).expect("it was read"))
}

#[cfg(feature = "fuzzing")]
impl<K, R: Serialize + DeserializeOwned> Rows<K, R> {
    /// As [`rewrite`].
    pub(super) fn rewrite(&self, vault: &Vault, record: &[u8]) -> Option<Vec<u8>> {
        rewrite::<R>(vault, self.name, b"a key", record)
    }
}

#[cfg(feature = "fuzzing")]
impl<R: Serialize + DeserializeOwned> Single<R> {
    /// As [`rewrite`].
    pub(super) fn rewrite(&self, vault: &Vault, record: &[u8]) -> Option<Vec<u8>> {
        rewrite::<R>(vault, META_NAME, self.key.as_bytes(), record)
    }
}

/// What there is one of.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new(META_NAME);
const META_NAME: &str = "meta";

type ReadOnly<K> = redb::ReadOnlyTable<K, &'static [u8]>;
type Writable<'t, K> = redb::Table<'t, K, &'static [u8]>;

/// A transaction, and what opens its rows.
pub(super) struct Tables<'s, T> {
    transaction: T,
    vault: &'s Vault,
}

impl<'s> Tables<'s, ReadTransaction> {
    pub(super) fn read(db: &Database, vault: &'s Vault) -> Result<Self, StoreError> {
        Ok(Self { transaction: db.begin_read()?, vault })
    }

    pub(super) fn table<K: RowKey, R>(
        &self,
        rows: Rows<K, R>,
    ) -> Result<Table<'s, ReadOnly<K>, K, R>, StoreError> {
        Ok(Table { table: self.transaction.open_table(rows.definition())?, rows, vault: self.vault })
    }

    pub(super) fn meta(&self) -> Result<Meta<'s, ReadOnly<&'static str>>, StoreError> {
        Ok(Meta { table: self.transaction.open_table(META)?, vault: self.vault })
    }
}

impl<'s> Tables<'s, WriteTransaction> {
    pub(super) fn write(db: &Database, vault: &'s Vault) -> Result<Self, StoreError> {
        Ok(Self { transaction: db.begin_write()?, vault })
    }

    /// Every table exists from the first commit on, so that reads need not ask.
    pub(super) fn make_all(&self) -> Result<(), StoreError> {
        self.table(records::CONTACTS)?;
        self.table(records::OUTBOX)?;
        self.table(records::KEPT)?;
        self.table(records::DONE)?;
        self.table(records::SEALED)?;
        self.table(records::PAIRS)?;
        self.table(records::INBOX)?;
        self.table(records::MAILBOXES)?;
        self.table(records::SENDERS)?;
        self.table(records::GRANTS)?;
        self.table(records::ACCESS)?;
        self.table(records::REQUESTS)?;
        self.table(records::NOTICES)?;
        self.table(records::OBJECTS)?;
        self.table(records::OBJECT_BYTES)?;
        Ok(())
    }

    pub(super) fn table<K: RowKey, R>(
        &self,
        rows: Rows<K, R>,
    ) -> Result<Table<'s, Writable<'_, K>, K, R>, StoreError> {
        Ok(Table { table: self.transaction.open_table(rows.definition())?, rows, vault: self.vault })
    }

    pub(super) fn meta(&self) -> Result<Meta<'s, Writable<'_, &'static str>>, StoreError> {
        Ok(Meta { table: self.transaction.open_table(META)?, vault: self.vault })
    }

    pub(super) fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit()?)
    }
}

/// An open table.
pub(super) struct Table<'s, T, K, R> {
    table: T,
    rows: Rows<K, R>,
    vault: &'s Vault,
}

impl<T: ReadableTable<K, &'static [u8]>, K: RowKey, R: DeserializeOwned> Table<'_, T, K, R> {
    pub(super) fn get(&self, key: K) -> Result<Option<R>, StoreError> {
        self.table.get(key)?.map(|row| self.record(key, row.value())).transpose()
    }

    /// In the order of keys.
    pub(super) fn range(
        &self,
        keys: impl RangeBounds<K> + 'static,
    ) -> Result<impl DoubleEndedIterator<Item = Result<(K, R), StoreError>>, StoreError> {
        let open = |row: Result<_, redb::StorageError>| {
            let (key, row): (redb::AccessGuard<'_, K>, redb::AccessGuard<'_, &'static [u8]>) = row?;
            Ok((key.value(), self.record(key.value(), row.value())?))
        };
        Ok(self.table.range(keys)?.map(open))
    }

    pub(super) fn records(&self) -> Result<impl Iterator<Item = Result<R, StoreError>>, StoreError> {
        Ok(self.range(..)?.map(|row| row.map(|(_, record)| record)))
    }

    pub(super) fn contains(&self, key: K) -> Result<bool, StoreError> {
        Ok(self.table.get(key)?.is_some())
    }

    pub(super) fn len(&self) -> Result<u64, StoreError> {
        Ok(self.table.len()?)
    }

    fn record(&self, key: K, row: &[u8]) -> Result<R, StoreError> {
        self.vault.open(self.rows.name, K::as_bytes(&key).as_ref(), row)
    }
}

impl<K: RowKey, R: Serialize + DeserializeOwned> Table<'_, Writable<'_, K>, K, R> {
    pub(super) fn insert(&mut self, key: K, record: &R) -> Result<(), StoreError> {
        let row = self.vault.seal(self.rows.name, K::as_bytes(&key).as_ref(), record);
        self.table.insert(key, row.as_slice())?;
        Ok(())
    }

    pub(super) fn remove(&mut self, key: K) -> Result<Option<R>, StoreError> {
        let row = self.table.remove(key)?;
        row.map(|row| self.vault.open(self.rows.name, K::as_bytes(&key).as_ref(), row.value())).transpose()
    }

    /// Forgets what has the smallest key.
    pub(super) fn drop_first(&mut self) -> Result<(), StoreError> {
        self.table.pop_first()?;
        Ok(())
    }

    pub(super) fn drop_range(&mut self, keys: impl RangeBounds<K> + 'static) -> Result<(), StoreError> {
        Ok(self.table.retain_in(keys, |_, _| false)?)
    }
}

impl<R: Serialize + DeserializeOwned> Table<'_, Writable<'_, Hidden>, Hidden, R> {
    /// The record says what it is known by, too: from the key nobody can tell.
    pub(super) fn insert_hidden(&mut self, name: &[u8], record: &R) -> Result<(), StoreError> {
        self.insert(self.rows.hide(self.vault, name), record)
    }

    pub(super) fn get_hidden(&self, name: &[u8]) -> Result<Option<R>, StoreError> {
        self.get(self.rows.hide(self.vault, name))
    }

    pub(super) fn remove_hidden(&mut self, name: &[u8]) -> Result<(), StoreError> {
        self.table.remove(self.rows.hide(self.vault, name))?;
        Ok(())
    }
}

/// The open table of what there is one of.
pub(super) struct Meta<'s, T> {
    table: T,
    vault: &'s Vault,
}

impl<T: ReadableTable<&'static str, &'static [u8]>> Meta<'_, T> {
    pub(super) fn get<R: DeserializeOwned>(&self, single: Single<R>) -> Result<R, StoreError> {
        let key = single.key;
        self.find(single)?.ok_or_else(|| StoreError::Damaged(format!("{key:?} is missing")))
    }

    pub(super) fn find<R: DeserializeOwned>(&self, single: Single<R>) -> Result<Option<R>, StoreError> {
        let row = self.table.get(single.key)?;
        row.map(|row| self.vault.open(META_NAME, single.key.as_bytes(), row.value())).transpose()
    }
}

impl Meta<'_, Writable<'_, &'static str>> {
    pub(super) fn put<R: Serialize>(&mut self, single: Single<R>, record: &R) -> Result<(), StoreError> {
        let row = self.vault.seal(META_NAME, single.key.as_bytes(), record);
        self.table.insert(single.key, row.as_slice())?;
        Ok(())
    }

    /// As it is: what every version must be able to read.
    pub(super) fn put_clear(&mut self, key: &'static str, bytes: &[u8]) -> Result<(), StoreError> {
        self.table.insert(key, bytes)?;
        Ok(())
    }
}
