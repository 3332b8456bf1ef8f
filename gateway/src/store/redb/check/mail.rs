//! What waits in mailboxes, and what is counted of it.

use std::collections::HashMap;

use redb::TableHandle;

use super::Check;
use crate::store::redb::apply::usage_of;
use crate::store::redb::records::{
    COLLAPSE, DEADLINES, ENTRIES, EntryHeader, MAILBOXES, QUEUES, collapse_scope, read_entry,
};
use crate::store::{MailboxUsage, StoreError};

/// Splits an entry's value, if it can be.
fn header(position: u64, value: &[u8]) -> Option<EntryHeader> {
    read_entry(position, value).ok().map(|(header, _)| header)
}

impl Check<'_> {
    pub(super) fn mail(&mut self) -> Result<(), StoreError> {
        let usages = self.entries()?;
        self.orders()?;
        self.mailboxes(&usages)
    }

    /// Each entry as it was written, in the queue of its mailbox, and with its deadline. What that makes of each mailbox.
    fn entries(&mut self) -> Result<HashMap<u32, MailboxUsage>, StoreError> {
        let (mailboxes, queues) = (self.open(MAILBOXES)?, self.open(QUEUES)?);
        let (deadlines, collapse) = (self.open(DEADLINES)?, self.open(COLLAPSE)?);
        let state = self.state.clone();
        let mut usages: HashMap<u32, MailboxUsage> = HashMap::new();
        self.each(ENTRIES, |report, position, value| {
            let mut fault = |what: &str| report.fault(ENTRIES.name(), position, what);
            let (header, body) = match read_entry(position, value) {
                Ok(entry) => entry,
                Err(_) => {
                    fault("it fails its check");
                    return Ok(());
                }
            };
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
            if header.stored_at > state.clock_s {
                fault("it was stored later than now");
            }
            if mailboxes.get(header.mailbox)?.is_none() {
                fault("its mailbox is missing");
            }
            if queues.get((header.mailbox, position))?.is_none() {
                fault("it is in no queue");
            }
            if deadlines.get((header.deadline, position))?.is_none() {
                fault("it has no deadline");
            }
            if let Some(key) = header.collapse {
                let scope = collapse_scope(header.sender, header.submitter);
                let queued = collapse.get((header.mailbox, scope.as_slice(), key))?;
                if queued.is_none_or(|queued| queued.value() != position) {
                    fault("its collapse key leads elsewhere");
                }
            }
            report.counts.entries += 1;
            report.counts.bytes += added;
            Ok(())
        })?;
        if self.report.counts.bytes != self.state.bytes {
            let what = format!(
                "{} bytes of bodies are counted, and {} are there",
                self.state.bytes, self.report.counts.bytes
            );
            self.report.fault("meta", "state", what);
        }
        Ok(usages)
    }

    /// Whatever names an entry names one that says the same.
    fn orders(&mut self) -> Result<(), StoreError> {
        let entries = self.open(ENTRIES)?;
        let header = |position: u64| -> Result<Option<Option<EntryHeader>>, StoreError> {
            Ok(entries.get(position)?.map(|value| header(position, value.value())))
        };
        self.each(QUEUES, |report, (mailbox, position), ()| {
            let key = format_args!("{mailbox}/{position}").to_string();
            match header(position)? {
                None => report.fault(QUEUES.name(), key, "its entry is missing"),
                Some(Some(header)) if header.mailbox != mailbox => {
                    report.fault(QUEUES.name(), key, "its entry is another mailbox's");
                }
                Some(_) => {}
            }
            Ok(())
        })?;
        self.each(DEADLINES, |report, (deadline, position), ()| {
            let key = format_args!("{deadline}/{position}").to_string();
            match header(position)? {
                None => report.fault(DEADLINES.name(), key, "its entry is missing"),
                Some(Some(header)) if header.deadline != deadline => {
                    report.fault(DEADLINES.name(), key, "its entry has another");
                }
                Some(_) => {}
            }
            Ok(())
        })?;
        self.each(COLLAPSE, |report, (mailbox, scope, collapse), position| {
            let key = format_args!("{mailbox}/{collapse}").to_string();
            let Some(header) = header(position)? else {
                report.fault(COLLAPSE.name(), key, "its entry is missing");
                return Ok(());
            };
            let is_its = |header: &EntryHeader| {
                header.mailbox == mailbox
                    && header.collapse == Some(collapse)
                    && collapse_scope(header.sender, header.submitter).as_slice() == scope
            };
            if header.is_some_and(|header| !is_its(&header)) {
                report.fault(COLLAPSE.name(), key, "its entry has another");
            }
            Ok(())
        })
    }

    fn mailboxes(&mut self, usages: &HashMap<u32, MailboxUsage>) -> Result<(), StoreError> {
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
            Ok(())
        })
    }
}
