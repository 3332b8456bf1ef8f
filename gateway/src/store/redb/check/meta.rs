//! What the file says of itself.

use redb::{ReadableTableMetadata, TableHandle};
use thinpost_wire::ids::Position;

use super::Check;
use crate::store::StoreError;
use crate::store::redb::apply::weight_of;
use crate::store::redb::copy::unknown_name;
use crate::store::redb::read_lineage;
use crate::store::redb::records::{ENTRIES, META, META_LINEAGE, META_PEAK, META_SINCE, META_STATE};

impl Check<'_> {
    /// A relay reads all of it when it starts, or with its first commit.
    pub(super) fn meta(&mut self) -> Result<(), StoreError> {
        let meta = self.open(META)?;
        if let Some(name) = unknown_name(self.read)? {
            self.report.remark(
                "file",
                "",
                format_args!("this program does not know {name}, and makes no copy without it"),
            );
        }
        let mut fault = |key: &str, what: String| self.report.fault(META.name(), key, what);
        if meta.get(META_SINCE)?.is_some_and(|row| row.value().len() != 8) {
            fault(META_SINCE, "it cannot be read".to_owned());
        }
        let lineage = read_lineage(self.read)?;
        if meta.get(META_LINEAGE)?.is_some() && lineage.earlier().is_empty() {
            fault(META_LINEAGE, "it names no store".to_owned());
        }
        if let Some(what) = lineage.contradiction(Position(self.known.state.position)) {
            fault(META_LINEAGE, what);
        }
        let Some(row) = meta.get(META_PEAK)? else { return Ok(()) };
        let weight = weight_of(self.known.state.bytes, self.read.open_table(ENTRIES)?.len()?);
        match <[u8; 8]>::try_from(row.value()).map(u64::from_le_bytes) {
            Err(_) => fault(META_PEAK, "it cannot be read".to_owned()),
            Ok(peak) if peak < weight => {
                fault(META_PEAK, format!("envelopes took {peak} bytes at most, and take {weight}"));
            }
            Ok(_) => {}
        }
        Ok(())
    }

    /// Accounts and devices stay once they are there.
    pub(super) fn given_out(&mut self, what: &str, given_out: u32, found: u64) {
        if found < u64::from(given_out) {
            let what = format!("{given_out} {what} were given out, and {found} are there");
            self.report.fault(META.name(), META_STATE, what);
        }
    }
}
