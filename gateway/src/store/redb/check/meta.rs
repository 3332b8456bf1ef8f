//! What the file says of itself.

use redb::{ReadableTableMetadata, TableHandle};
use thinpost_wire::ids::Position;

use super::Check;
use crate::store::StoreError;
use crate::store::redb::apply::weight_of;
use crate::store::redb::records::{ENTRIES, META, META_LINEAGE, META_PEAK, META_SINCE};
use crate::store::redb::{read_lineage, read_since};

impl Check<'_> {
    /// A relay reads all of it when it starts, or with its first commit.
    pub(super) fn meta(&mut self) -> Result<(), StoreError> {
        let meta = self.open(META)?;
        let mut fault = |key: &str, what: String| self.report.fault(META.name(), key, what);
        match read_since(self.read) {
            Err(StoreError::Corrupt(_)) => fault(META_SINCE, "it cannot be read".to_owned()),
            read => drop(read?),
        }
        let lineage = read_lineage(self.read)?;
        if meta.get(META_LINEAGE)?.is_some() && lineage.earlier().is_empty() {
            fault(META_LINEAGE, "it names no store".to_owned());
        }
        if let Some(what) = lineage.contradiction(Position(self.state.position)) {
            fault(META_LINEAGE, what);
        }
        let Some(row) = meta.get(META_PEAK)? else { return Ok(()) };
        let weight = weight_of(self.state.bytes, self.read.open_table(ENTRIES)?.len()?);
        match <[u8; 8]>::try_from(row.value()).map(u64::from_le_bytes) {
            Err(_) => fault(META_PEAK, "it cannot be read".to_owned()),
            Ok(peak) if peak < weight => {
                fault(META_PEAK, format!("envelopes took {peak} bytes at most, and take {weight}"));
            }
            Ok(_) => {}
        }
        Ok(())
    }
}
