//! Objects: their bytes, what is said to be held of them, and what is counted.

use std::collections::{BTreeSet, HashMap};

use redb::TableHandle;
use thinpost_wire::limits::OBJECT_BYTES_MAX;

use super::Check;
use crate::store::StoreError;
use crate::store::redb::objects::{
    BLOCK_BYTES, OBJECT_BLOCKS, OBJECT_DEADLINES, OBJECT_IDS, OBJECT_RANGES, OBJECT_USAGE, OBJECTS, Object,
    digest, held, read_block,
};
use crate::store::redb::records::{MAILBOXES, decode};

impl Check<'_> {
    pub(super) fn objects(&mut self) -> Result<(), StoreError> {
        let usage = self.records()?;
        self.names()?;
        self.usage(&usage)
    }

    /// Each object with its name, deadline, ranges and blocks. What that makes of each mailbox: objects, and their bytes.
    fn records(&mut self) -> Result<HashMap<u32, (u32, u64)>, StoreError> {
        let (mailboxes, ids, deadlines) =
            (self.open(MAILBOXES)?, self.open(OBJECT_IDS)?, self.open(OBJECT_DEADLINES)?);
        let (ranges, blocks) = (self.open(OBJECT_RANGES)?, self.open(OBJECT_BLOCKS)?);
        let (read, newest) = (self.read, self.objects.object);
        let mut usage: HashMap<u32, (u32, u64)> = HashMap::new();
        self.each(OBJECTS, |report, number, row| {
            let Ok(object) = decode::<Object>("object", row) else {
                report.fault(OBJECTS.name(), number, "it cannot be read");
                return Ok(());
            };
            report.counts.objects += 1;
            report.counts.object_bytes = report.counts.object_bytes.saturating_add(object.size);
            let mut fault = |what: String| report.fault(OBJECTS.name(), number, what);
            let (objects, bytes) = usage.entry(object.mailbox).or_default();
            *objects += 1;
            *bytes = bytes.saturating_add(object.size);
            if number == 0 || number > newest {
                fault("its number was never given out".to_owned());
            }
            if object.size == 0 || object.size > OBJECT_BYTES_MAX {
                fault(format!("no object has {} bytes", object.size));
                return Ok(());
            }
            if mailboxes.get(object.mailbox)?.is_none() {
                fault("its mailbox is missing".to_owned());
            }
            if ids.get((&object.id, object.mailbox))?.is_none_or(|named| named.value() != number) {
                fault("its name leads elsewhere".to_owned());
            }
            if deadlines.get((object.deadline, number))?.is_none() {
                fault("it has no deadline".to_owned());
            }
            let rows = ranges.range((number, 0)..=(number, u64::MAX))?.count() as u32;
            let held = match held(&ranges, number) {
                Ok(held) => held,
                Err(StoreError::Corrupt(what)) => {
                    fault(what);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            // Ranges that touch, or overlap, are one here.
            if rows != object.ranges || held.len() as u32 != rows {
                fault(format!("it is held in {} ranges, not in {} as is counted", held.len(), object.ranges));
            }
            if held.last().is_some_and(|last| last.end > object.size) {
                fault("more is held of it than it has".to_owned());
            }
            let mut expected = 0;
            for row in blocks.range((number, 0)..=(number, u32::MAX))? {
                let (key, value) = row?;
                let index = key.value().1;
                let start = u64::from(index) * BLOCK_BYTES;
                let end = object.size.min(start + BLOCK_BYTES);
                if start >= end || !held.overlaps(&(start..end)) {
                    fault(format!("nothing is held of its block {index}, which is there"));
                } else if read_block(number, index, end - start, value.value()).is_err() {
                    fault(format!("its block {index} fails its check"));
                }
                expected += 1;
            }
            let touched: BTreeSet<u64> = held
                .iter()
                .flat_map(|range| range.start / BLOCK_BYTES..range.end.min(object.size).div_ceil(BLOCK_BYTES))
                .collect();
            if touched.len() != expected {
                fault(format!("it has {expected} blocks, and {} are held", touched.len()));
            }
            if object.is_complete && !matches!(digest(read, number), Ok(Some(id)) if id.0 == object.id) {
                fault("it is not what its name says".to_owned());
            }
            Ok(())
        })?;
        if self.report.counts.object_bytes != self.objects.bytes {
            let (counted, found) = (self.objects.bytes, self.report.counts.object_bytes);
            let what = format!("{counted} bytes of objects are counted, and {found} are there");
            self.report.fault("meta", "objects", what);
        }
        Ok(usage)
    }

    /// Whatever belongs to an object has one.
    fn names(&mut self) -> Result<(), StoreError> {
        let objects = self.open(OBJECTS)?;
        let object = |number: u64| -> Result<Option<Object>, StoreError> {
            Ok(objects.get(number)?.and_then(|row| decode::<Object>("object", row.value()).ok()))
        };
        self.each(OBJECT_IDS, |report, (id, mailbox), number| {
            if object(number)?.is_none_or(|object| object.id != *id || object.mailbox != mailbox) {
                let what = "its object has another name, or is missing";
                report.fault(OBJECT_IDS.name(), format_args!("{mailbox}/{number}"), what);
            }
            Ok(())
        })?;
        self.each(OBJECT_DEADLINES, |report, (deadline, number), ()| {
            if object(number)?.is_none_or(|object| object.deadline != deadline) {
                let what = "its object has another, or is missing";
                report.fault(OBJECT_DEADLINES.name(), format_args!("{deadline}/{number}"), what);
            }
            Ok(())
        })?;
        let mut known = None;
        let mut is_known = |number: u64| -> Result<bool, StoreError> {
            if known != Some(number) {
                known = objects.get(number)?.map(|_| number);
            }
            Ok(known.is_some())
        };
        self.each(OBJECT_RANGES, |report, (number, start), _| {
            if !is_known(number)? {
                report.fault(OBJECT_RANGES.name(), format_args!("{number}/{start}"), "its object is missing");
            }
            Ok(())
        })?;
        self.each(OBJECT_BLOCKS, |report, (number, index), _| {
            if !is_known(number)? {
                report.fault(OBJECT_BLOCKS.name(), format_args!("{number}/{index}"), "its object is missing");
            }
            Ok(())
        })
    }

    fn usage(&mut self, usage: &HashMap<u32, (u32, u64)>) -> Result<(), StoreError> {
        let mut counted = HashMap::new();
        self.each(OBJECT_USAGE, |_, mailbox, row| {
            counted.insert(mailbox, row);
            Ok(())
        })?;
        let mut mailboxes: Vec<_> = usage.keys().chain(counted.keys()).copied().collect();
        mailboxes.sort_unstable();
        mailboxes.dedup();
        for mailbox in mailboxes {
            let of = |all: &HashMap<u32, (u32, u64)>| all.get(&mailbox).copied().unwrap_or_default();
            let ((objects, bytes), (found, found_bytes)) = (of(&counted), of(usage));
            if (objects, bytes) != (found, found_bytes) {
                let what = format!(
                    "{objects} objects of {bytes} bytes are counted, and {found} of {found_bytes} are there"
                );
                self.report.fault(OBJECT_USAGE.name(), mailbox, what);
            }
        }
        Ok(())
    }
}
