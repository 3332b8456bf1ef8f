//! What a person should know of, on disk.

use redb::WriteTransaction;
use thinpost_wire::ids::AccountKey;

use super::Store;
use super::records::{Counters, NOTICES};
use super::table::Tables;
use crate::error::StoreError;
use crate::notices::{Matter, NoticeRow};

impl Store {
    /// All notices, in order.
    pub(crate) fn notices(&self) -> Result<Vec<(u64, NoticeRow)>, StoreError> {
        self.read(|read| read.table(NOTICES)?.range(..)?.collect())
    }

    /// Forgets notices up to this number.
    pub(crate) fn acknowledge(&self, upto: u64) -> Result<(), StoreError> {
        self.change("acknowledge", |write| write.table(NOTICES)?.drop_range(..=upto))
    }
}

/// Notes that something has happened. What has before counts on, under another number: whoever acknowledges what they
/// have seen does not acknowledge this.
pub(super) fn notice(
    write: &Tables<'_, WriteTransaction>,
    matter: Matter,
    unix_ms: u64,
    counters: &mut Counters,
) -> Result<(), StoreError> {
    let mut table = write.table(NOTICES)?;
    let before = table.range(..)?.find(|row| row.as_ref().is_ok_and(|(_, row)| row.matter == matter));
    let count = match before.transpose()? {
        Some((number, row)) => {
            table.remove(number)?;
            row.count + 1
        }
        None => 1,
    };
    counters.notices += 1;
    table.insert(counters.notices, &NoticeRow { matter, count, last_unix_ms: unix_ms })
}

/// Forgets what was to be known of an account.
pub(super) fn forget(write: &Tables<'_, WriteTransaction>, account: &AccountKey) -> Result<(), StoreError> {
    let mut table = write.table(NOTICES)?;
    let rows: Vec<_> = table.range(..)?.collect::<Result<_, _>>()?;
    for (number, _) in rows.into_iter().filter(|(_, row)| row.matter.account() == Some(*account)) {
        table.remove(number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use thinpost_wire::frame::Refusal;
    use thinpost_wire::ticket::SealKeys;

    use super::super::records::OutboxRow;
    use super::super::tests::{BOB, NOW, created, numbers, open, row};
    use super::*;
    use crate::message::{Abandonment, Failure, MessageState};
    use crate::store::Changes;

    const KEYS: SealKeys = SealKeys { identity: [1; 32], pre_key: [2; 32], envelope: [3; 32] };

    #[test]
    fn what_was_in_custody_and_cannot_be_sent_again_is_given_up_and_does_not_count_as_failed() {
        let (store, _) = open(&created());
        let sealed = OutboxRow { seal: Some(KEYS), again: 1, ..row(b"a") };
        let id = store.enqueue(&mut [sealed], &numbers(NOW)).unwrap();
        let reason = Failure::Refused(Refusal::NotWanted);
        store.apply(&Changes { failed: vec![(id, reason)], ..Changes::default() }).unwrap();
        let state = store.message_state(id).unwrap();
        assert_eq!(state, Some(MessageState::Abandoned(Abandonment::Failed(reason))));
        let Counters { custody, failed, abandoned, .. } = store.counts().unwrap().counters;
        assert_eq!((custody, failed, abandoned), (0, 0, 1));
        assert_eq!(store.notices().unwrap().len(), 1);
    }

    #[test]
    fn a_notice_is_kept_until_it_is_acknowledged_and_counts_what_happens_again() {
        let memory = created();
        let (store, _) = open(&memory);
        let happens = |store: &Store, notices: &[Matter], now_unix_ms| {
            store.apply(&Changes { notices: notices.to_vec(), now_unix_ms, ..Changes::default() }).unwrap();
        };
        happens(&store, &[Matter::Restored, Matter::AskedAgain(BOB)], 1);
        happens(&store, &[Matter::Restored], 2);
        drop(store);
        let (store, _) = open(&memory);
        let known = |store: &Store| -> Vec<_> {
            let notices = store.notices().unwrap().into_iter();
            notices
                .map(|(n, NoticeRow { matter, count, last_unix_ms })| (n, matter, count, last_unix_ms))
                .collect()
        };
        assert_eq!(known(&store), [(2, Matter::AskedAgain(BOB), 1, 1), (3, Matter::Restored, 2, 2)]);
        // It happens again while a person reads of it: they do not know that.
        happens(&store, &[Matter::AskedAgain(BOB)], 3);
        store.acknowledge(3).unwrap();
        assert_eq!(known(&store), [(4, Matter::AskedAgain(BOB), 2, 3)]);
        store.acknowledge(4).unwrap();
        happens(&store, &[Matter::AskedAgain(BOB)], 5);
        assert_eq!(known(&store), [(5, Matter::AskedAgain(BOB), 1, 5)], "it begins anew");
    }
}
