//! Collects garbage: finds out the facts, has a [plan](super::plan) made of them, and deletes.

mod deletion;
mod look;
mod memo;
mod planning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::open_records::OpenRecords;
use super::plan::{GcPlan, unsettled};
use crate::error::Result;
use crate::ids::{Epoch, Version};
use crate::manifest::{Manifest, RecordKind, Retained, Roots};
use crate::remote::{ObjectName, Remote};
use deletion::settle;
use planning::{Planned, read_all};

/// A collector remembers this many names of objects that are still to be deleted, and in addition four times as many as
/// a checkpoint refers to. Without a bound, a store that refuses deletions for weeks would fill the memory (I6).
const MOST_DEAD: usize = 65_536;

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct GcReport {
    /// Manifests deleted.
    pub manifests: usize,
    /// Data objects deleted.
    pub data: usize,
    /// Unreferenced objects left alone because a running attempt may be about to commit them.
    pub in_flight: usize,
    /// Objects kept by savepoints and pins alone.
    pub pinned: usize,
    /// What the store refused to delete, for good.
    pub refused: usize,
    /// Names that are not of this job, and were not touched.
    pub foreign: Vec<String>,
    /// Everything deleted, in that order.
    pub deleted: Vec<String>,
}

/// How a collection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Collection {
    Done(GcReport),
    /// Another attempt has opened. Nothing was deleted, because that attempt decides what is garbage.
    Overtaken(Epoch),
}

/// Collects what an attempt's own commits have made unreachable, and remembers what it had to keep.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    /// Committed by this attempt, dropped again, and not deleted yet: pinned, or the deletion failed.
    dead: BTreeSet<ObjectName>,
    kinds: BTreeMap<Version, RecordKind>,
    opened: OpenRecords,
    /// Versions that cannot be read, as of the last sweep.
    damaged: BTreeSet<Version>,
    /// Whether a sweep has held things back for one of them.
    held_back: bool,
    /// What savepoints and pins kept when it was last looked, and still exists.
    pinned: BTreeMap<Version, Arc<Manifest>>,
    /// Whether everything that earlier attempts have left is known to be gone, or needed.
    swept: bool,
    /// How many objects the store had refused to delete when it was last said.
    refused: usize,
    /// The most objects that a dropped manifest has referred to.
    largest: usize,
}

impl Collector {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// How many names of objects that are still to be deleted it keeps.
    #[cfg(test)]
    pub(super) fn dead(&self) -> usize {
        self.dead.len()
    }

    /// Notes objects that this attempt wrote and no longer refers to. Objects that are still reachable are kept when
    /// it comes to deleting. Objects that a commit under way may name must not be passed in.
    pub(crate) fn retire(&mut self, objects: Vec<ObjectName>) {
        self.dead.extend(objects);
    }

    /// Deletes what nothing needs any more: what `dropped` manifests alone referred to, and where that is due what
    /// earlier attempts have left behind. `roots` must be as of after the commit that dropped them.
    ///
    /// # Errors
    /// `Corrupt` or `MissingObject` if a retained checkpoint, a savepoint or a pin cannot be read, because what it needs is then not
    /// known; nothing is deleted. What the store answers otherwise; the rest is deleted next time.
    pub(crate) async fn run(
        &mut self,
        remote: &Remote,
        roots: &Roots,
        dropped: Vec<Retained>,
    ) -> Result<Collection> {
        // The first collection is a sweep, because only a sweep finds damaged versions and the objects that must be
        // held back for them.
        if self.sweep_is_due(roots) {
            if let Some(by) = self.note(remote, roots, dropped).await? {
                return Ok(Collection::Overtaken(by));
            }
            return self.sweep(remote, roots, false).await;
        }
        let collected = self.collect(remote, roots, dropped).await?;
        if matches!(collected, Collection::Done(_)) && self.sweep_is_due(roots) {
            return self.sweep(remote, roots, false).await;
        }
        Ok(collected)
    }

    /// As [`run`](Self::run), at the end of an attempt: one that has committed nothing leaves everything as it is.
    pub(crate) async fn finish(
        &mut self,
        remote: &Remote,
        roots: &Roots,
        dropped: Vec<Retained>,
    ) -> Result<Collection> {
        if !self.swept && dropped.is_empty() && self.dead.is_empty() {
            return Ok(Collection::Done(GcReport::default()));
        }
        self.run(remote, roots, dropped).await
    }

    /// Whether a [`sweep`](Self::sweep) may find more than a [`collect`](Self::collect): before the
    /// first one, when a savepoint or a pin is gone that may have kept objects of earlier attempts, and when a damaged
    /// version holds nothing back any more.
    pub(super) fn sweep_is_due(&self, roots: &Roots) -> bool {
        let oldest = roots.live().oldest();
        !self.swept || (self.held_back && unsettled(&self.damaged, oldest).is_none())
    }

    /// Takes in what commits have dropped. If a later attempt has taken over, returns that attempt.
    async fn note(
        &mut self,
        remote: &Remote,
        roots: &Roots,
        dropped: Vec<Retained>,
    ) -> Result<Option<Epoch>> {
        self.kinds.extend(dropped.iter().map(|one| (one.version, RecordKind::Checkpoint)));
        // Before anything is taken for garbage: checkpoints of earlier attempts may need it too.
        if let Some(by) = read_all(remote, roots).await? {
            return Ok(Some(by));
        }
        let (garbage, referred) = {
            let mut live = roots.live();
            (live.take_garbage(), live.objects())
        };
        // Dropped checkpoints, and manifests that carried parts of them. Neither can be an open record.
        self.kinds.extend(garbage.iter().filter_map(|name| match name {
            ObjectName::Manifest(version) => Some((*version, RecordKind::Checkpoint)),
            _ => None,
        }));
        self.dead.extend(garbage);
        self.largest = self.largest.max(referred);
        // The list grows while a needed manifest cannot be read, or while the store refuses deletions.
        let most = MOST_DEAD.saturating_add(self.largest.saturating_mul(4));
        if self.dead.len() > most {
            let objects = self.dead.len();
            tracing::warn!(objects, "too much cannot be collected; it is left for the next attempt to find");
            self.dead.clear();
        }
        Ok(None)
    }

    /// Deletes what `dropped` manifests referred to and no live one does. Needs no listing but those
    /// of savepoints, pins and the chain.
    pub(super) async fn collect(
        &mut self,
        remote: &Remote,
        roots: &Roots,
        dropped: Vec<Retained>,
    ) -> Result<Collection> {
        if let Some(by) = self.note(remote, roots, dropped).await? {
            return Ok(Collection::Overtaken(by));
        }
        if self.dead.is_empty() && self.pinned.is_empty() {
            return Ok(Collection::Done(GcReport::default()));
        }
        let listing: Vec<_> = self.dead.iter().map(ToString::to_string).collect();
        let (confirmed, plan) = match self.plan(remote, roots, &listing).await? {
            Planned::Delete(planned) => *planned,
            Planned::Overtaken(by) => return Ok(Collection::Overtaken(by)),
        };
        // Objects that live manifests still need are noted again when those are dropped.
        self.dead = plan.manifests.iter().chain(&plan.data).chain(&plan.pinned).cloned().collect();
        self.execute(remote, confirmed, plan).await.map(Collection::Done)
    }

    /// Lists all objects, and deletes what earlier attempts have left behind as well. A dry run only reports what it
    /// would delete.
    pub(super) async fn sweep(
        &mut self,
        remote: &Remote,
        roots: &Roots,
        dry_run: bool,
    ) -> Result<Collection> {
        // Listed before pins and savepoints are. An object that is created meanwhile is not in the
        // listing, and so cannot be deleted.
        let mut listing = Vec::new();
        for folder in ObjectName::FOLDERS {
            listing.extend(remote.list(folder).await?.into_iter().map(|listed| listed.name));
        }
        self.recall(remote, roots.epoch, &listing).await?;
        let (confirmed, plan) = match self.plan(remote, roots, &listing).await? {
            Planned::Delete(planned) => *planned,
            Planned::Overtaken(by) => return Ok(Collection::Overtaken(by)),
        };
        self.held_back = plan.held_back > 0;
        if self.held_back {
            let (objects, damaged) = (plan.held_back, &self.damaged);
            tracing::warn!(objects, ?damaged, "kept because damaged manifests may refer to them");
        }
        if dry_run {
            return Ok(Collection::Done(report(&plan)));
        }
        let unfinished = confirmed.protected().unfinished.clone();
        let report = self.execute(remote, confirmed, plan).await?;
        // The deletions did not wait for these two. What fails here is left to the next sweep.
        settle(remote, unfinished).await;
        self.remember(remote, roots.epoch).await;
        // Not before: a sweep that failed half-way starts over.
        self.swept = true;
        Ok(Collection::Done(report))
    }
}

fn report(plan: &GcPlan) -> GcReport {
    let names = plan.manifests.iter().chain(&plan.data);
    GcReport {
        manifests: plan.manifests.len(),
        data: plan.data.len(),
        in_flight: plan.in_flight,
        pinned: plan.pinned.len(),
        refused: 0,
        deleted: names.map(ToString::to_string).collect(),
        foreign: plan.foreign.clone(),
    }
}
