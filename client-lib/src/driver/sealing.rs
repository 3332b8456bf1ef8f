//! Seals what is about to leave for the first time: what waits for one contact together, a packet's worth.

use std::collections::BTreeMap;

use thinpost_wire::ids::AccountKey;
use thinpost_wire::notes::Notes;
use thinpost_wire::parcel::{Item, MODELLED_BYTES_MAX, Parcel, ShortIncarnation};
use thinpost_wire::text::{ModelSet, RUN_SYMBOLS_MAX};
use thinpost_wire::ticket::SealKeys;

use super::Driver;
use crate::client::Shared;
use crate::error::StoreError;
use crate::message::Failure;
use crate::seal::{BadKeys, Packed};
use crate::store::Departure;
use crate::store::records::{OutboxRow, SealedRow};

/// Most letters' bytes that are tried together, before they are coded: with usual notes, and marks for capitals and ends,
/// still a parcel that a text model may code.
const LETTERS_BYTES_MAX: usize = RUN_SYMBOLS_MAX - 1_024;
const _: () = assert!(LETTERS_BYTES_MAX < MODELLED_BYTES_MAX);

/// What stands before a letter in a parcel, bytes.
const LETTER_HEAD_BYTES: usize = 2;

impl Driver {
    /// What was written for keys that its contact has no more is for the present ones, unless it was sealed before: who
    /// still has those may not be the contact, and the contact could not open it.
    pub(super) async fn readdress(&mut self, mut rows: Vec<Departure>) -> Result<Vec<Departure>, StoreError> {
        let is_outdated = |shared: &Shared, Departure { row, sealed, .. }: &Departure| {
            let keys = shared.contacts().keys_of(&row.mailbox)?;
            let is_outdated = sealed.is_none() && row.seal.is_some_and(|before| before != keys);
            is_outdated.then_some(keys)
        };
        if rows.iter().all(|departure| is_outdated(&self.shared, departure).is_none()) {
            return Ok(rows);
        }
        let readdress = move |shared: &Shared| {
            let outdated = rows.iter_mut().filter_map(|departure| {
                let keys = is_outdated(shared, departure)?;
                Some((departure, keys))
            });
            shared.store.readdress(&mut outdated.collect::<Vec<_>>(), &shared.numbers)?;
            Ok(rows)
        };
        let rows = self.shared.on_disk(readdress).await?;
        for Departure { id, row, .. } in &rows {
            self.outbox.readdress(*id, row.name());
        }
        Ok(rows)
    }

    /// What leaves, sealed where it is to be secret. Messages that ride with an earlier one are among its
    /// riders, no longer among the rows; those that cannot be sealed have failed.
    pub(super) fn seal(&mut self, rows: Vec<Departure>) -> Vec<Departure> {
        let mut leaving = Vec::with_capacity(rows.len());
        for group in groups(rows) {
            match group[0].row.seal {
                Some(keys) if group[0].sealed.is_none() => self.seal_group(&keys, group, &mut leaving),
                _ => leaving.extend(group),
            }
        }
        leaving
    }

    fn seal_group(&mut self, keys: &SealKeys, mut group: Vec<Departure>, leaving: &mut Vec<Departure>) {
        let by_ticket = self.shared.contacts().models_of(&keys.identity);
        while !group.is_empty() {
            let Some(notes) = self.notes_for(keys, &group) else {
                // What they were to say has left with something else.
                return self.changes.custody.extend(group.iter().map(|departure| (departure.id, 0)));
            };
            let parcel = parcel(notes, &group);
            let packed = self.pack(keys, &by_ticket, &parcel);
            // Rows of notes come last.
            let is_all = packed.letters == parcel.items.len();
            let rest = group.split_off(if is_all { group.len() } else { packed.letters });
            let riders: Vec<_> = group[1..].iter().map(|departure| departure.id).collect();
            match self.seals.seal(keys, packed) {
                Ok(body) => {
                    for rider in &riders {
                        self.outbox.ride(*rider, group[0].id);
                    }
                    let carrier = group.swap_remove(0);
                    leaving.push(Departure { sealed: Some(SealedRow { body, riders }), ..carrier });
                }
                Err(BadKeys) => {
                    let failed = group.iter().map(|departure| (departure.id, Failure::BadKeys));
                    self.changes.failed.extend(failed);
                }
            }
            group = rest;
        }
    }
}

impl Driver {
    /// What there is to say besides these letters, if they leave room for it. None: there is neither a letter nor
    /// anything to say.
    fn notes_for(&mut self, keys: &SealKeys, group: &[Departure]) -> Option<Notes> {
        if group[0].row.letter.len() > LETTERS_BYTES_MAX {
            return Some(Notes::default());
        }
        let with = &keys.identity;
        let receipts = !self.shared.contacts().access(&group[0].row.mailbox).withholds_receipts;
        let no_letters = group.iter().all(|departure| departure.id.is_notes());
        let token = self.token_to_give(with, no_letters);
        let notes = Notes { token, ..self.seals.take_notes(with, receipts) };
        Some(notes).filter(|notes| !no_letters || !notes.is_empty())
    }

    /// Packs what fits of a parcel. If all does, it says which models this home has as well, where that is to be told and takes no further block
    /// of the cipher: it can wait for a parcel that has room, as whoever writes here has a ticket that tells, if an older one. Where there are no
    /// letters, it need not.
    fn pack(&self, keys: &SealKeys, by_ticket: &ModelSet, parcel: &Parcel<'_>) -> Packed {
        let packed = self.seals.pack(keys, by_ticket, parcel);
        let is_long = parcel.items.iter().any(|item| item.letter.len() > LETTERS_BYTES_MAX);
        if packed.letters < parcel.items.len() || is_long {
            return packed;
        }
        let Some(models) = self.seals.models_to_tell(&keys.identity) else { return packed };
        let notes = Notes { models: Some(models), ..parcel.notes.clone() };
        let telling = self.seals.pack(keys, by_ticket, &Parcel { notes, ..parcel.clone() });
        let takes_none = telling.letters == packed.letters && telling.blocks() == packed.blocks();
        if parcel.items.is_empty() || takes_none { telling } else { packed }
    }
}

/// Puts together what may share a seal: for one contact, of one incarnation, with nothing of another kind
/// in between that would be overtaken.
fn groups(rows: Vec<Departure>) -> Vec<Vec<Departure>> {
    let mut groups: Vec<Vec<Departure>> = Vec::new();
    let mut open: BTreeMap<AccountKey, (usize, usize)> = BTreeMap::new();
    for departure in rows {
        let row = &departure.row;
        let row_bytes = row.letter.len() + LETTER_HEAD_BYTES;
        if row.seal.is_none() || departure.sealed.is_some() {
            open.remove(&row.mailbox);
            groups.push(vec![departure]);
            continue;
        }
        if let Some((place, bytes)) = open.get_mut(&row.mailbox)
            && let Some(Departure { id: last_id, row: last, .. }) = groups[*place].last()
        {
            let first = &groups[*place][0].row;
            // What was written for other keys first has got its number later than what follows.
            let is_later = departure.id.is_notes() || last.written.sequence < row.written.sequence;
            let fits = *bytes + row_bytes <= LETTERS_BYTES_MAX;
            // What is sent again goes by its low number, before what was refused and waits.
            let is_again = |row: &OutboxRow| row.again > 0;
            let is_alike = first.seal == row.seal
                && first.written.incarnation == row.written.incarnation
                && is_again(first) == is_again(row);
            // Each row of notes says what one parcel holds of them.
            let is_alone = departure.id.is_notes() && last_id.is_notes();
            if fits && is_alike && is_later && !is_alone {
                *bytes += row_bytes;
                groups[*place].push(departure);
                continue;
            }
        }
        open.insert(row.mailbox, (groups.len(), row_bytes));
        groups.push(vec![departure]);
    }
    groups
}

fn parcel(notes: Notes, group: &[Departure]) -> Parcel<'_> {
    let letters = group.iter().filter(|departure| !departure.id.is_notes());
    let items =
        letters.map(|Departure { row, .. }| Item { number: row.written.sequence, letter: &row.letter });
    let incarnation = ShortIncarnation::from(group[0].row.written.incarnation);
    Parcel { incarnation, notes, items: items.collect() }
}

#[cfg(test)]
mod tests {
    use thinpost_wire::ids::{Incarnation, Origin};
    use thinpost_wire::token::Token;

    use super::*;
    use crate::message::MessageId;

    const KEYS: SealKeys = SealKeys { identity: [1; 32], pre_key: [2; 32], envelope: [3; 32] };

    fn departure(id: u64, to: u8, bytes: usize) -> Departure {
        let row = OutboxRow {
            mailbox: AccountKey([to; 32]),
            token: Token([2; 16]),
            enqueued_ms: 0,
            app_id: None,
            written: Origin { incarnation: Incarnation([7; 8]), sequence: id },
            number: None,
            seal: Some(KEYS),
            rides_with: None,
            again: 0,
            letter: vec![0; bytes],
        };
        Departure { id: MessageId(id), row, sealed: None }
    }

    fn ids(groups: &[Vec<Departure>]) -> Vec<Vec<u64>> {
        groups.iter().map(|group| group.iter().map(|departure| departure.id.0).collect()).collect()
    }

    #[test]
    fn what_waits_for_one_contact_goes_together_up_to_a_bound() {
        let rows = vec![
            departure(1, 1, 50),
            departure(2, 2, 50),
            departure(3, 1, LETTERS_BYTES_MAX - 80),
            departure(4, 1, 50),
        ];
        assert_eq!(ids(&groups(rows)), [vec![1, 3], vec![2], vec![4]]);
    }

    #[test]
    fn nothing_overtakes_what_is_sealed_already_or_not_at_all() {
        let mut rows: Vec<_> = (1..=5).map(|id| departure(id, 1, 50)).collect();
        rows[1].row.seal = None;
        rows[3].sealed = Some(SealedRow { body: vec![1], riders: vec![] });
        assert_eq!(ids(&groups(rows)), [vec![1], vec![2], vec![3], vec![4], vec![5]]);
    }

    #[test]
    fn what_is_sent_again_takes_nothing_along_that_would_overtake_what_waits() {
        let mut rows: Vec<_> = (1..=4).map(|id| departure(id, 1, 50)).collect();
        rows[0].row.again = 1;
        rows[1].row.again = 2;
        assert_eq!(ids(&groups(rows)), [vec![1, 2], vec![3, 4]]);
    }

    #[test]
    fn numbers_ascend_in_a_parcel_and_notes_have_none() {
        let mut rows: Vec<_> = (1..=4).map(|id| departure(id, 1, 50)).collect();
        rows[0].row.written.sequence = 5;
        let mut notes = departure(MessageId::FIRST_NOTES.0, 1, 0);
        notes.row.written.sequence = 0;
        rows.push(notes);
        let [first, rest] = &ids(&groups(rows))[..] else { panic!("one before the others") };
        assert_eq!((&first[..], &rest[..3]), (&[1][..], &[2, 3, 4][..]));
        assert_eq!(rest[3], MessageId::FIRST_NOTES.0);
    }

    #[test]
    fn numbers_of_two_incarnations_do_not_share_a_parcel() {
        let mut rows: Vec<_> = (1..=3).map(|id| departure(id, 1, 50)).collect();
        rows[2].row.written.incarnation = Incarnation([8; 8]);
        assert_eq!(ids(&groups(rows)), [vec![1, 2], vec![3]]);
    }
}
