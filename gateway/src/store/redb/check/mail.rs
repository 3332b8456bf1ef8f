//! What waits in mailboxes, and what is counted of it.

use std::collections::HashMap;

use redb::{Key, ReadableTableMetadata, TableDefinition, TableHandle, Value};
use thinpost_wire::limits::BODY_BYTES_MAX;

use super::people::Devices;
use super::{Check, Report};
use crate::store::bounds::LIFETIME_S_MAX;
use crate::store::redb::apply::usage_of;
use crate::store::redb::records::{
    COLLAPSE, DEADLINES, ENTRIES, EntryHeader, MAILBOXES, QUEUES, State, collapse_scope, read_entry,
};
use crate::store::{MailboxUsage, StoreError};

/// How many rows there are that an entry has, and that name it.
#[derive(Clone, Copy, Default)]
pub(super) struct Rows {
    queues: u64,
    deadlines: u64,
    collapse: u64,
}

/// Splits an entry's value, if it can be.
fn header(position: u64, value: &[u8]) -> Option<EntryHeader> {
    read_entry(position, value).ok().map(|(header, _)| header)
}

/// Remarks on what no relay makes of an entry.
fn remark(report: &mut Report, state: &State, position: u64, header: &EntryHeader, body: &[u8]) {
    let mut remark = |what: &str| report.remark(ENTRIES.name(), position, what);
    if header.stored_at > state.clock_s {
        remark("it was stored later than now");
    }
    if header.deadline < header.stored_at {
        remark("it expired before it was stored");
    } else if header.deadline - header.stored_at > LIFETIME_S_MAX {
        remark("it is kept longer than anything is");
    }
    if header.submitter.is_some() != (header.sender.is_none() && header.collapse.is_some()) {
        remark("it names its submitter where none is wanted, or none where one is");
    }
    if header.submitter.is_some_and(|device| device == 0 || device > state.device) {
        remark("its submitter's number was never given out");
    }
    if body.len() > BODY_BYTES_MAX {
        remark("its body is longer than any is");
    }
}

impl Check<'_> {
    /// Each entry as it was written, in the queue of its mailbox, and with its deadline.
    pub(super) fn entries(&mut self) -> Result<(), StoreError> {
        let (mailboxes, queues) = (self.open(MAILBOXES)?, self.open(QUEUES)?);
        let (deadlines, collapse) = (self.open(DEADLINES)?, self.open(COLLAPSE)?);
        let state = self.known.state.clone();
        let mut usages: HashMap<u32, MailboxUsage> = HashMap::new();
        let mut rows = Rows::default();
        self.each(ENTRIES, |report, position, value| {
            let Ok((header, body)) = read_entry(position, value) else {
                report.fault(ENTRIES.name(), position, "it fails its check");
                return Ok(());
            };
            remark(report, &state, position, &header, body);
            let mut fault = |what: &str| report.fault(ENTRIES.name(), position, what);
            let usage = usages.entry(header.mailbox).or_default();
            let added = body.len() as u64;
            usage.all.entries += 1;
            usage.all.bytes += added;
            if header.is_request {
                usage.requests.entries += 1;
                usage.requests.bytes += added;
            }
            if position == 0 || position > state.position {
                fault("its position was never given out");
            }
            if mailboxes.get(header.mailbox)?.is_none() {
                fault("its mailbox is missing");
            }
            match queues.get((header.mailbox, position))? {
                Some(_) => rows.queues += 1,
                None => fault("it is in no queue"),
            }
            match deadlines.get((header.deadline, position))? {
                Some(_) => rows.deadlines += 1,
                None => fault("it has no deadline"),
            }
            if let Some(key) = header.collapse {
                let scope = collapse_scope(header.sender, header.submitter);
                match collapse.get((header.mailbox, scope.as_slice(), key))? {
                    Some(queued) if queued.value() == position => rows.collapse += 1,
                    _ => fault("its collapse key leads elsewhere"),
                }
            }
            report.counts.entries += 1;
            report.counts.bytes += added;
            Ok(())
        })?;
        if self.report.counts.bytes != state.bytes {
            let found = self.report.counts.bytes;
            let what = format!("{} bytes of bodies are counted, and {found} are there", state.bytes);
            self.report.fault("meta", "state", what);
        }
        self.known.entries = Some((usages, rows));
        Ok(())
    }

    /// Whether a table has more rows than its entries know of. To look for them, what each row names has to be read once more, in
    /// an order that no disk likes: where they are as many, each is the one of its entry.
    fn has_strays<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
        known: impl Fn(&Rows) -> u64,
    ) -> Result<bool, StoreError> {
        let rows = self.open(table)?.len()?;
        Ok(self.known.entries.as_ref().is_none_or(|(_, found)| known(found) != rows))
    }

    pub(super) fn queues(&mut self) -> Result<(), StoreError> {
        if !self.has_strays(QUEUES, |rows| rows.queues)? {
            return Ok(());
        }
        let entries = self.open(ENTRIES)?;
        self.each(QUEUES, |report, (mailbox, position), ()| {
            let mut fault =
                |what: &str| report.fault(QUEUES.name(), format_args!("{mailbox}/{position}"), what);
            match entries.get(position)?.map(|value| header(position, value.value())) {
                None => fault("its entry is missing"),
                Some(Some(header)) if header.mailbox != mailbox => fault("its entry is another mailbox's"),
                Some(_) => {}
            }
            Ok(())
        })
    }

    pub(super) fn deadlines(&mut self) -> Result<(), StoreError> {
        if !self.has_strays(DEADLINES, |rows| rows.deadlines)? {
            return Ok(());
        }
        let entries = self.open(ENTRIES)?;
        self.each(DEADLINES, |report, (deadline, position), ()| {
            let mut fault =
                |what: &str| report.fault(DEADLINES.name(), format_args!("{deadline}/{position}"), what);
            match entries.get(position)?.map(|value| header(position, value.value())) {
                None => fault("its entry is missing"),
                Some(Some(header)) if header.deadline != deadline => fault("its entry has another"),
                Some(_) => {}
            }
            Ok(())
        })
    }

    pub(super) fn collapse(&mut self) -> Result<(), StoreError> {
        if !self.has_strays(COLLAPSE, |rows| rows.collapse)? {
            return Ok(());
        }
        let entries = self.open(ENTRIES)?;
        self.each(COLLAPSE, |report, (mailbox, scope, collapse), position| {
            let mut fault =
                |what: &str| report.fault(COLLAPSE.name(), format_args!("{mailbox}/{collapse}"), what);
            let is_its = |header: &EntryHeader| {
                header.mailbox == mailbox
                    && header.collapse == Some(collapse)
                    && collapse_scope(header.sender, header.submitter).as_slice() == scope
            };
            match entries.get(position)?.map(|value| header(position, value.value())) {
                None => fault("its entry is missing"),
                Some(Some(header)) if !is_its(&header) => fault("its entry has another"),
                Some(_) => {}
            }
            Ok(())
        })
    }

    /// What is counted of each mailbox is there, and nothing that all its devices have settled.
    pub(super) fn mailboxes(&mut self) -> Result<(), StoreError> {
        let queues = self.open(QUEUES)?;
        let Some((usages, _)) = self.known.entries.take() else { return Ok(()) };
        let settled = self.known.devices.as_ref().map(Devices::settled).unwrap_or_default();
        self.each(MAILBOXES, |report, mailbox, row| {
            let found = usages.get(&mailbox).copied().unwrap_or_default();
            let counted = usage_of(row);
            for (what, counted, found) in
                [("", counted.all, found.all), (" of strangers", counted.requests, found.requests)]
            {
                if counted != found {
                    let what = format!(
                        "{} entries{what} of {} bytes are counted, and {} of {} are there",
                        counted.entries, counted.bytes, found.entries, found.bytes
                    );
                    report.fault(MAILBOXES.name(), mailbox, what);
                }
            }
            if let Some(settled) = settled.get(&mailbox) {
                let oldest = queues.range((mailbox, 0)..=(mailbox, *settled))?.next().transpose()?;
                if let Some(position) = oldest.map(|(key, _)| key.value().1) {
                    report.remark(QUEUES.name(), format_args!("{mailbox}/{position}"), "all have settled it");
                }
            }
            Ok(())
        })
    }
}
