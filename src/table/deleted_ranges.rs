//! How a replay writes deleted ranges.
//!
//! Each tombstone in a table makes reads slower until it is compacted, and writing a million of
//! them takes several times as long as a million puts. While a replay runs, nothing else reads or
//! writes the table, so it can check each range first: most ranges that programs delete hold little
//! by then, or nothing.

use rocksdb::{WriteBatch, properties};

use super::options;
use super::rocks::Table;
use super::snapshot::Cursor;
use crate::delta::Direction;
use crate::error::Result;

/// Keys in a range that are deleted one by one.
const DELETED_ONE_BY_ONE: usize = 32;

/// Bytes of a table for each range that it is worth looking for: about a block, so that to look
/// costs at most a read of the whole table in order, or some microseconds for each range.
const BYTES_PER_RANGE: u64 = 8 << 10;

/// Bytes of a table in which to look costs next to nothing.
const SMALL_TABLE: u64 = 1 << 20;

impl Table {
    /// Adds the deletion of ranges, in ascending order, to a batch. Deletes keys one by one if
    /// there are few, and nothing if there are none. Only while nothing else writes.
    pub(super) fn delete_ranges(&self, batch: &mut WriteBatch, ranges: &[(&[u8], &[u8])]) -> Result<()> {
        let (Some((first, _)), Some((_, last))) = (ranges.first(), ranges.last()) else { return Ok(()) };
        let worth = SMALL_TABLE.saturating_add(BYTES_PER_RANGE.saturating_mul(ranges.len() as u64));
        if self.data_bytes() > worth {
            ranges.iter().for_each(|(start, end)| batch.delete_range(start, end));
            return Ok(());
        }
        let mut cursor = Cursor::unplaced(self, options::read_options(), first, last);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for (start, end) in ranges {
            keys.clear();
            cursor.seek(Direction::Forward, start)?;
            while let Some((key, _)) = cursor.entry()
                && key < *end
                && keys.len() <= DELETED_ONE_BY_ONE
            {
                keys.push(key.to_vec());
                cursor.advance()?;
            }
            if keys.len() > DELETED_ONE_BY_ONE {
                batch.delete_range(start, end);
            } else {
                keys.iter().for_each(|key| batch.delete(key));
            }
        }
        Ok(())
    }

    /// About what the table holds. Unknown counts as much.
    fn data_bytes(&self) -> u64 {
        [properties::ESTIMATE_LIVE_DATA_SIZE, properties::CUR_SIZE_ALL_MEM_TABLES]
            .map(|name| self.db.property_int_value(name).ok().flatten().unwrap_or(u64::MAX))
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}
