//! The durable deltas of a tail, and how a receipt names them. A job that takes no bases gathers
//! many. So a call costs what it changes and the references that it returns, and none walks over
//! all deltas.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::counted::Counted;
use super::slot::Kept;
use crate::budget::{Budget, BudgetShare};
use crate::ids::DeltaSeq;
use crate::manifest::DeltaRef;
use crate::remote::ObjectName;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// By the last delta that each stands for.
    pieces: Counted<DeltaSeq, Piece>,
    /// Consecutive deltas in a pack, by the first of them. One reference stands for them all, so
    /// that what a checkpoint names does not grow with the changelog (I5). All of a run is there,
    /// and lies where it did; a run of which a part moves away is forgotten.
    runs: Counted<DeltaSeq, DeltaRef>,
    /// How many pieces lie in each object.
    objects: Counted<ObjectName, usize>,
    /// The newest base stands here.
    base: DeltaSeq,
    /// Bytes of the pieces after the newest base. What a manifest says of lengths comes from
    /// outside, so the sum may exceed 64 bits.
    bytes: u128,
}

#[derive(Debug)]
struct Piece {
    delta: DeltaRef,
    kept: Option<Spare>,
}

/// Bytes that are durable and are kept all the same, so that packing need not read them back.
#[derive(Debug)]
pub(super) struct Spare {
    bytes: Bytes,
    _share: BudgetShare,
}

impl Spare {
    /// The bytes of a delta that is durable now, if there is room to keep them for packing.
    pub(super) fn of(kept: Kept, packing: &Arc<Budget>) -> Option<Self> {
        // Without room the bytes are read back when they are packed.
        let room = !packing.is_full();
        let length = kept.bytes.len() as u64;
        room.then(|| Self { bytes: kept.bytes, _share: packing.take(length) })
    }
}

impl Durable {
    /// The deltas after `base` that a store was restored from.
    pub(super) fn new(base: DeltaSeq, deltas: Vec<DeltaRef>) -> Self {
        let mut durable = Self { base, ..Self::default() };
        for delta in deltas {
            durable.put(delta, None);
        }
        durable
    }

    /// Adds a delta that is durable now.
    pub(super) fn put(&mut self, delta: DeltaRef, kept: Option<Spare>) {
        self.weigh(&delta, u128::saturating_add);
        self.enter(&delta.object);
        if let Some(Piece { delta: old, .. }) = self.pieces.insert(delta.last, Piece { delta, kept }) {
            self.gone(&old);
        }
    }

    /// A delta lies elsewhere from now on. Its bytes are kept on if `keep` is set. Returns the
    /// object that it lay in before; gives the reference back if the delta is not here.
    pub(super) fn relocate(&mut self, delta: DeltaRef, keep: bool) -> Result<ObjectName, DeltaRef> {
        let Some(piece) = self.pieces.get_mut(&delta.last) else { return Err(delta) };
        piece.kept = piece.kept.take().filter(|_| keep);
        let old = std::mem::replace(&mut piece.delta, delta.clone());
        self.weigh(&delta, u128::saturating_add);
        self.enter(&delta.object);
        self.gone(&old);
        self.break_run(&delta);
        Ok(old.object)
    }

    /// One reference stands for these deltas, if all of them are there. Comes after the deltas.
    pub(super) fn add_run(&mut self, run: DeltaRef) {
        // A new run replaces those that it overlaps. Runs are disjoint.
        while let Some(old) = self.run_before(run.last).filter(|old| old.last >= run.first) {
            let first = old.first;
            self.runs.remove(&first);
        }
        if self.is_whole(&run) {
            self.runs.insert(run.first, run);
        }
    }

    /// The references that stand for all deltas up to `last`, oldest first.
    pub(super) fn named(&self, last: DeltaSeq) -> Vec<DeltaRef> {
        let (mut named, mut from) = (Vec::new(), Bound::Unbounded);
        while let Some((_, piece)) = self.pieces.range((from, Bound::Included(last))).next() {
            let run = self.runs.get(&piece.delta.first).filter(|run| run.last <= last);
            let delta = run.unwrap_or(&piece.delta);
            from = Bound::Excluded(delta.last);
            named.push(delta.clone());
        }
        named
    }

    /// What there still is of the `wanted` references, piece by piece, with the bytes that are in
    /// memory.
    pub(super) fn pieces_of(&self, wanted: &[DeltaRef]) -> Vec<(DeltaRef, Option<Bytes>)> {
        let mut found = Vec::new();
        for wanted in wanted.iter().filter(|wanted| wanted.first <= wanted.last) {
            let pieces = self.pieces.range(wanted.first..=wanted.last).map(|(_, piece)| piece);
            let pieces = pieces.filter(|piece| wanted.has(&piece.delta));
            found.extend(
                pieces.map(|Piece { delta, kept }| {
                    (delta.clone(), kept.as_ref().map(|kept| kept.bytes.clone()))
                }),
            );
        }
        found
    }

    /// Whether any delta lies in the object.
    pub(super) fn is_in(&self, object: &ObjectName) -> bool {
        self.objects.get(object).is_some()
    }

    /// Bytes of the deltas after the newest base.
    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(u64::MAX)
    }

    /// A base is durable that contains all up to delta `base`. Until it is
    /// [adopted](Self::drop_through), the deltas before it stay.
    pub(super) fn rebase(&mut self, base: DeltaSeq) {
        if base > self.base {
            let overtaken = self.pieces.range((Bound::Excluded(self.base), Bound::Included(base)));
            let overtaken = overtaken.map(|(_, piece)| u128::from(piece.delta.length)).sum();
            self.bytes = self.bytes.saturating_sub(overtaken);
            self.base = base;
        }
    }

    /// Drops the deltas up to `last`, and returns the objects that they lay in.
    pub(super) fn drop_through(&mut self, last: DeltaSeq) -> Vec<ObjectName> {
        // If a base contains the beginning of a run, the run's reference would bring back changes
        // that the base has.
        while self.runs.pop_through(&last).is_some() {}
        let mut left = Vec::new();
        while let Some(Piece { delta, .. }) = self.pieces.pop_through(&last) {
            self.gone(&delta);
            left.push(delta.object);
        }
        left
    }

    fn run_before(&self, last: DeltaSeq) -> Option<&DeltaRef> {
        self.runs.range(..=last).next_back().map(|(_, run)| run)
    }

    /// Forgets the run that the delta has moved out of.
    fn break_run(&mut self, delta: &DeltaRef) {
        let run = self.run_before(delta.last).filter(|run| run.last >= delta.first);
        if let Some(first) = run.filter(|run| run.object != delta.object).map(|run| run.first) {
            self.runs.remove(&first);
        }
    }

    fn is_whole(&self, run: &DeltaRef) -> bool {
        if run.first > run.last {
            return false;
        }
        let mut next = run.first;
        for (_, Piece { delta, .. }) in self.pieces.range(run.first..=run.last) {
            if delta.first != next || delta.object != run.object {
                return false;
            }
            next = delta.last.next();
        }
        next == run.last.next()
    }

    fn gone(&mut self, delta: &DeltaRef) {
        self.weigh(delta, u128::saturating_sub);
        if let Some(pieces) = self.objects.get_mut(&delta.object) {
            *pieces -= 1;
            if *pieces == 0 {
                self.objects.remove(&delta.object);
            }
        }
    }

    fn enter(&mut self, object: &ObjectName) {
        match self.objects.get_mut(object) {
            Some(pieces) => *pieces += 1,
            None => drop(self.objects.insert(object.clone(), 1)),
        }
    }

    fn weigh(&mut self, delta: &DeltaRef, change: impl FnOnce(u128, u128) -> u128) {
        if delta.last > self.base {
            self.bytes = change(self.bytes, u128::from(delta.length));
        }
    }
}

#[cfg(test)]
impl Durable {
    pub(super) fn pieces(&self) -> impl Iterator<Item = (&DeltaRef, Option<&Bytes>)> {
        self.pieces.values().map(|piece| (&piece.delta, piece.kept.as_ref().map(|kept| &kept.bytes)))
    }

    pub(super) fn looks(&self) -> u64 {
        self.pieces.looks() + self.runs.looks() + self.objects.looks()
    }
}
