//! Finding out the facts, and deleting.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::confirmed::{Confirmation, Confirmed};
use super::open_records::{self, OpenRecords};
use super::plan::{Facts, GcPlan, plan, unsettled};
use super::savepoint;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Epoch, Version};
use crate::manifest::{Manifest, RecordKind, Retained, Roots, newest_attempt, read_kind, read_manifest};
use crate::remote::{ObjectName, Refused, Remote, SavepointName};

/// Headers read at the same time.
const PARALLEL_READS: usize = 16;

/// As many names of objects that are still to be deleted are kept in mind, and four times as many as a checkpoint
/// refers to.
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
    /// Another attempt has opened, and nothing was deleted: what is garbage is for that one to say.
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

    /// Notes objects that this attempt wrote and refers to no more. Whatever is still reachable is kept
    /// when it comes to deleting; what a commit under way may yet name must not be handed in.
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
        // The first look is at everything: only then it is known which versions are damaged, and what must be
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

    /// Takes in what commits have dropped. Returns the attempt that has taken over, if it stands in the way.
    async fn note(
        &mut self,
        remote: &Remote,
        roots: &Roots,
        dropped: Vec<Retained>,
    ) -> Result<Option<Epoch>> {
        self.kinds.extend(dropped.iter().map(|one| (one.version, RecordKind::Checkpoint)));
        if let Some(by) = read_all(remote, roots).await? {
            return Ok(Some(by));
        }
        let (garbage, referred) = {
            let mut live = roots.live();
            (live.take_garbage(), live.objects())
        };
        // Dropped, and carriers of what was dropped: neither can be an open record.
        self.kinds.extend(garbage.iter().filter_map(|name| match name {
            ObjectName::Manifest(version) => Some((*version, RecordKind::Checkpoint)),
            _ => None,
        }));
        self.dead.extend(garbage);
        self.largest = self.largest.max(referred);
        // While it is not known what is needed, or while the store refuses, nothing of it goes.
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
        // What live manifests still refer to comes back when they are dropped.
        self.dead = plan.manifests.iter().chain(&plan.data).chain(&plan.pinned).cloned().collect();
        self.execute(remote, confirmed, plan).await.map(Collection::Done)
    }

    /// Looks at everything that there is, and deletes what earlier attempts have left behind as well.
    /// A dry run only says what it would delete.
    pub(super) async fn sweep(
        &mut self,
        remote: &Remote,
        roots: &Roots,
        dry_run: bool,
    ) -> Result<Collection> {
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
        let unfinished = confirmed.held().unfinished.clone();
        let report = self.execute(remote, confirmed, plan).await?;
        settle(remote, unfinished).await;
        self.remember(remote, roots.epoch).await;
        self.swept = true;
        Ok(Collection::Done(report))
    }

    /// Learns what earlier sweeps have found out, and forgets what is there no more.
    async fn recall(&mut self, remote: &Remote, epoch: Epoch, listing: &[String]) -> Result<()> {
        let names: BTreeSet<_> = listing.iter().filter_map(|name| ObjectName::parse(name)).collect();
        self.kinds.retain(|version, _| names.contains(&ObjectName::manifest(*version)));
        self.damaged.retain(|version| names.contains(&ObjectName::manifest(*version)));
        // Its own, which the listing may be too old to show.
        self.kinds.insert(Version(epoch.0), RecordKind::Open);
        let newest = names.iter().rev().find_map(|name| match name {
            ObjectName::Opened(epoch) => Some(*epoch),
            _ => None,
        });
        if let Some(newest) = newest.filter(|newest| self.opened.written.is_none_or(|known| known < *newest))
        {
            let name = ObjectName::Opened(newest);
            match remote.get_optional(&name).await?.map(|bytes| open_records::decode(&bytes)).transpose() {
                Ok(Some(versions)) => self.opened.read(newest, versions),
                // A newer one is there by now.
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, %name, "open records are looked at one by one"),
            }
        }
        let opened = self.opened.versions.iter();
        self.kinds.extend(opened.map(|version| (*version, RecordKind::Open)));
        Ok(())
    }

    /// Writes down what is worth it. Without it, the next attempt looks for itself.
    async fn remember(&mut self, remote: &Remote, epoch: Epoch) {
        let opened = self.kinds.iter().filter(|(_, kind)| **kind == RecordKind::Open);
        self.opened.versions.extend(opened.map(|(version, _)| *version));
        if !self.opened.worth_writing(epoch) {
            return;
        }
        let written = async {
            let bytes = open_records::encode(&self.opened.versions)?;
            remote.put_data(&ObjectName::Opened(epoch), bytes).await
        };
        match written.await {
            Ok(()) => self.opened.wrote(epoch),
            Err(error) => tracing::debug!(%error, "what is known of open records was not written"),
        }
    }

    async fn plan(&mut self, remote: &Remote, roots: &Roots, listing: &[String]) -> Result<Planned> {
        if let Some(by) = read_all(remote, roots).await? {
            return Ok(Planned::Overtaken(by));
        }
        // Before pins are listed: a reader may pin a checkpoint for as long as it is retained. What no checkpoint
        // refers to by now, none ever will.
        let live: HashSet<_> = {
            let live = roots.live();
            let names = listing.iter().filter_map(|name| ObjectName::parse(name));
            names.filter(|name| live.contains(name)).collect()
        };
        let confirmed = match Confirmed::take(remote, roots).await? {
            Confirmation::Confirmed(confirmed) => confirmed,
            Confirmation::Overtaken(by) => return Ok(Planned::Overtaken(by)),
        };
        debug_assert!(confirmed.is_of(roots), "a confirmation is good for one plan");
        self.look_at_pinned(remote, &confirmed).await?;
        let stale = &confirmed.held().stale;
        let Self { dead, kinds, damaged, opened, pinned, .. } = self;
        let opened = opened.written;
        let pinned: Vec<_> = pinned.values().map(|manifest| &**manifest).collect();
        let oldest = roots.live().oldest();
        let make = |kinds: &BTreeMap<_, _>, damaged: &BTreeSet<_>| {
            let (newest, epoch) = (roots.newest, roots.epoch);
            let (live, pinned) = (&live, &pinned);
            let facts = Facts { newest, epoch, live, oldest, pinned, stale, damaged, opened, kinds, dead };
            plan(&facts, listing.iter().map(String::as_str))
        };
        let first = make(kinds, damaged);
        let unknown: Vec<_> = first.unknown.iter().filter(|version| !damaged.contains(version)).collect();
        for (version, kind) in look_at(remote, unknown, Depth::Header).await? {
            note_kind(version, kind, kinds, damaged);
        }
        // A checkpoint that nothing retains, though older ones are retained: it came to nothing, or it is damaged
        // behind its header, and was passed over.
        let second = make(kinds, damaged);
        let passed_over = |name: &&ObjectName| match name {
            ObjectName::Manifest(version) => !dead.contains(name) && oldest.is_none_or(|old| old < *version),
            _ => false,
        };
        let versions = second.manifests.iter().filter(passed_over).filter_map(|name| match name {
            ObjectName::Manifest(version) => Some(version),
            _ => None,
        });
        for (version, kind) in look_at(remote, versions.collect(), Depth::All).await? {
            note_kind(version, kind, kinds, damaged);
        }
        let plan = make(kinds, damaged);
        Ok(Planned::Delete(Box::new((confirmed, plan))))
    }

    /// Finds out what savepoints and pins keep, as far as it exists: a pin that came too late protects
    /// nothing, and its reader withdraws.
    async fn look_at_pinned(&mut self, remote: &Remote, confirmed: &Confirmed) -> Result<()> {
        let mut pinned = BTreeMap::new();
        for version in confirmed.held().versions.iter().copied() {
            // A manifest never changes.
            if let Some(manifest) = self.pinned.get(&version) {
                pinned.insert(version, Arc::clone(manifest));
                continue;
            }
            match read_manifest(remote, version).await {
                Ok((manifest, _)) => drop(pinned.insert(version, Arc::new(manifest))),
                Err(error) if error.kind() == ErrorKind::MissingObject => {}
                Err(error) => return Err(blocked(&error, version)),
            }
        }
        self.swept &= self.pinned.keys().all(|version| pinned.contains_key(version));
        self.pinned = pinned;
        Ok(())
    }

    async fn execute(&mut self, remote: &Remote, confirmed: Confirmed, plan: GcPlan) -> Result<GcReport> {
        let report = report(&plan);
        for names in [plan.manifests, plan.data] {
            if let Some(refused) = self.delete(remote, &confirmed, &names).await? {
                return Ok(GcReport { refused, foreign: report.foreign, ..GcReport::default() });
            }
            for name in names {
                self.dead.remove(&name);
                if let ObjectName::Manifest(version) = name {
                    self.kinds.remove(&version);
                }
            }
        }
        Ok(report)
    }

    /// Deletes objects; how many the store refuses to, if any.
    async fn delete(
        &mut self,
        remote: &Remote,
        confirmed: &Confirmed,
        names: &[ObjectName],
    ) -> Result<Option<usize>> {
        if names.is_empty() {
            return Ok(None);
        }
        // While it refuses, one is enough to see whether that has changed.
        let first = if self.refused > 0 { &names[..1] } else { names };
        let mut refused = remote.delete_collected(confirmed, first.to_vec()).await?;
        if refused.is_none() && first.len() < names.len() {
            refused = remote.delete_collected(confirmed, names.to_vec()).await?;
        }
        let Some(refused) = refused else {
            self.refused = 0;
            return Ok(None);
        };
        let count = if first.len() < names.len() { names.len() } else { refused.count };
        self.say_refused(count, &refused);
        Ok(Some(count))
    }

    /// Says once that objects cannot be deleted, and again when they have become twice as many.
    fn say_refused(&mut self, count: usize, refused: &Refused) {
        if count < self.refused.saturating_mul(2).max(1) {
            return;
        }
        let Refused { example, error, .. } = refused;
        tracing::warn!(
            objects = count, %example, kind = %error.kind(),
            "the store refuses to delete what is no longer needed; it stays, and costs its space",
        );
        tracing::debug!(%error, "the refusal");
        self.refused = count;
    }
}

/// Takes away the pins of attempts that were fenced while they made a savepoint. What they alone kept goes with the next
/// collection, which misses them.
async fn settle(remote: &Remote, unfinished: Vec<(ObjectName, SavepointName)>) {
    for (pin, name) in unfinished {
        let settled = async {
            savepoint::settle(remote, &name).await?;
            remote.withdraw(vec![pin.clone()]).await
        };
        if let Err(error) = settled.await {
            tracing::warn!(%error, %pin, savepoint = %name, "the pin of a savepoint that was not finished stays behind");
        }
    }
}

/// What may be deleted, with the proof.
enum Planned {
    Delete(Box<(Confirmed, GcPlan)>),
    Overtaken(Epoch),
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

/// How much of a manifest is read.
#[derive(Clone, Copy)]
enum Depth {
    Header,
    All,
}

/// What a look at a version has found.
enum Looked {
    /// It was collected meanwhile.
    Gone,
    Kind(RecordKind),
    Damaged,
}

async fn look_at(remote: &Remote, versions: Vec<&Version>, depth: Depth) -> Result<Vec<(Version, Looked)>> {
    let reads: Vec<_> = versions.into_iter().map(|version| look_at_one(remote, *version, depth)).collect();
    stream::iter(reads).buffered(PARALLEL_READS).try_collect().await
}

async fn look_at_one(remote: &Remote, version: Version, depth: Depth) -> Result<(Version, Looked)> {
    let kind = match depth {
        Depth::Header => read_kind(remote, version).await,
        Depth::All => read_manifest(remote, version).await.map(|(manifest, _)| Some(manifest.record.kind())),
    };
    match kind {
        Ok(Some(kind)) => Ok((version, Looked::Kind(kind))),
        Ok(None) => Ok((version, Looked::Gone)),
        Err(error) if error.kind() == ErrorKind::MissingObject => Ok((version, Looked::Gone)),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
            tracing::warn!(%error, "a manifest cannot be read, and is left where it is");
            Ok((version, Looked::Damaged))
        }
        Err(error) => Err(error),
    }
}

/// One that is damaged has no kind, and so is not deleted: it may be an open record.
fn note_kind(
    version: Version,
    looked: Looked,
    kinds: &mut BTreeMap<Version, RecordKind>,
    damaged: &mut BTreeSet<Version>,
) {
    match looked {
        Looked::Gone => {}
        Looked::Kind(kind) => drop(kinds.insert(version, kind)),
        Looked::Damaged => {
            kinds.remove(&version);
            damaged.insert(version);
        }
    }
}

/// Finds out what retained checkpoints of earlier attempts refer to. Returns the attempt that has taken over, if one
/// of them is gone because of it.
///
/// # Errors
/// `Corrupt` or `MissingObject` if one of them cannot be read all the same.
async fn read_all(remote: &Remote, roots: &Roots) -> Result<Option<Epoch>> {
    let Err((version, error)) = roots.read_all(remote).await else { return Ok(None) };
    let (_, newest) = newest_attempt(remote, (roots.newest, roots.epoch)).await?;
    if newest > roots.epoch { Ok(Some(newest)) } else { Err(blocked(&error, version)) }
}

fn blocked(error: &Error, version: Version) -> Error {
    Error::new(error.kind(), "nothing is collected while it is not known what a live checkpoint needs")
        .object(ObjectName::manifest(version))
        .source(error.clone())
}
