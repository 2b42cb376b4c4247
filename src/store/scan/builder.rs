//! Which layers a scan goes through, and how each is walked.

use std::sync::Arc;

use crate::delta::{ActiveDelta, Entry, RangeSet};
use crate::error::Result;
use crate::ids::DeltaSeq;
use crate::store::layer::Layer;
use crate::store::layer_cursor::LayerCursor;
use crate::table::{OwnedCursor, Table};

use super::Scan;

/// Ranges of up to this many entries are copied rather than held, so that a program that scans a
/// few entries and writes meanwhile needs no table of its own for that.
const COPIED_AT_MOST: usize = 32;

/// Gathers the layers of a scan, newest first.
#[derive(Debug)]
pub(in crate::store) struct ScanBuilder {
    start: Vec<u8>,
    end: Vec<u8>,
    /// Whether only ordered states are asked for.
    ordered: bool,
    layers: Vec<LayerCursor>,
}

impl ScanBuilder {
    /// A scan of the encoded keys `start..end`.
    pub(in crate::store) fn new(start: &[u8], end: &[u8]) -> Self {
        Self { start: start.to_vec(), end: end.to_vec(), ordered: false, layers: Vec::new() }
    }

    /// As [`ScanBuilder::new`], for a range over several states of which the caller wants only
    /// ordered ones. Keys of other states may be left out.
    pub(in crate::store) fn ordered(start: &[u8], end: &[u8]) -> Self {
        Self { ordered: true, ..Self::new(start, end) }
    }

    /// Adds a copy of a layer's part.
    pub(in crate::store) fn copied<'a>(
        &mut self,
        seq: Option<DeltaSeq>,
        entries: impl Iterator<Item = (&'a [u8], Entry<'a>)>,
        tombstones: &RangeSet,
    ) {
        let tombstones = tombstones.clipped(&self.start, &self.end);
        let copied = LayerCursor::copied(seq, entries, tombstones);
        #[cfg(test)]
        crate::store::scan_work::count(copied.as_ref().map_or(0, LayerCursor::copies));
        self.layers.extend(copied);
    }

    /// Adds the active delta.
    pub(in crate::store) fn active(&mut self, delta: &ActiveDelta) {
        for table in delta.tables() {
            let in_order = self.ordered || table.is_in_order(&self.start, &self.end);
            let many = in_order && table.has_many_in(&self.start, &self.end, COPIED_AT_MOST);
            if let Some(view) = many.then(|| delta.view(table)).flatten() {
                self.layers.push(LayerCursor::walked(None, view));
                continue;
            }
            let (start, end) = (self.start.clone(), self.end.clone());
            if in_order {
                self.copied(None, table.ordered_range(&start, &end), table.tombstones());
            } else {
                let entries = table.range(&start, &end).map(|pos| table.point(pos));
                self.copied(None, entries, table.tombstones());
            }
        }
    }

    /// Adds a frozen layer, whose keys are looked up as they lie: it does not change any more.
    pub(in crate::store) fn frozen(&mut self, layer: &Arc<Layer>) {
        if layer.delta.position(&[]).is_some() {
            self.layers.push(LayerCursor::sorted(Arc::clone(layer)));
        } else if self.ordered || layer.delta.table().is_in_order(&self.start, &self.end) {
            self.layers.push(LayerCursor::walked(Some(layer.seq), Arc::clone(layer.delta.table())));
        } else {
            let (start, end) = (self.start.clone(), self.end.clone());
            self.copied(Some(layer.seq), layer.delta.range(&start, &end), layer.delta.tombstones());
        }
    }

    /// The range that was asked for.
    pub(in crate::store) fn bounds(&self) -> (&[u8], &[u8]) {
        (&self.start, &self.end)
    }

    /// Puts the layers over a view of the table as of now.
    pub(in crate::store) fn build(mut self, table: &Arc<Table>) -> Result<Scan> {
        let (cursor, applied) = OwnedCursor::unplaced(Arc::clone(table), &self.start, &self.end)?;
        // Layers up to the delta that the view stands at are in it already, and would fold their
        // operands a second time.
        self.layers.retain(|layer| layer.seq.is_none_or(|seq| seq > applied));
        Ok(Scan::new(self.layers, cursor, self.start, self.end))
    }
}
