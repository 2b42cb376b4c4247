//! Finding out the facts, and deleting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::confirmed::{Confirmation, Confirmed};
use super::plan::{Facts, GcPlan, plan};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Epoch, Version};
use crate::manifest::{Manifest, RecordKind, Roots, read_kind, read_manifest};
use crate::remote::{ObjectName, Remote};

/// Headers read at the same time.
const PARALLEL_READS: usize = 16;

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
    /// What savepoints and pins kept when it was last looked, and still exists.
    pinned: BTreeMap<Version, Arc<Manifest>>,
    /// Whether everything that earlier attempts have left is known to be gone, or needed.
    swept: bool,
}

impl Collector {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Notes objects that this attempt wrote and refers to no more. Whatever is still reachable is kept
    /// when it comes to deleting; what a commit under way may yet name must not be handed in.
    pub(crate) fn retire(&mut self, objects: Vec<ObjectName>) {
        self.dead.extend(objects);
    }

    /// Whether a [`sweep`](Self::sweep) may find more than a [`collect`](Self::collect): before the
    /// first one, and when a savepoint or a pin is gone that may have kept objects of earlier attempts.
    pub(crate) fn sweep_is_due(&self) -> bool {
        !self.swept
    }

    /// Deletes what `dropped` manifests referred to and no live one does. Needs no listing but those
    /// of savepoints and pins. `roots` must be as of after the commit that dropped them.
    ///
    /// # Errors
    /// `Corrupt` or `MissingObject` if a retained checkpoint, a savepoint or a pin cannot be read, because what it needs is then not
    /// known; nothing is deleted. What the store answers otherwise; the rest is deleted next time.
    pub(crate) async fn collect(
        &mut self,
        remote: &Remote,
        roots: &Roots,
        dropped: Vec<Arc<Manifest>>,
    ) -> Result<Collection> {
        for manifest in dropped {
            // Dropped, and carriers of what was dropped: neither can be an open record.
            self.kinds.insert(manifest.version, RecordKind::Checkpoint);
            self.dead.insert(ObjectName::manifest(manifest.version));
            self.dead.extend(manifest.references().cloned());
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
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub(crate) async fn sweep(
        &mut self,
        remote: &Remote,
        roots: &Roots,
        dry_run: bool,
    ) -> Result<Collection> {
        let mut listing = Vec::new();
        for folder in ObjectName::FOLDERS {
            listing.extend(remote.list(folder).await?.into_iter().map(|listed| listed.name));
        }
        let (confirmed, plan) = match self.plan(remote, roots, &listing).await? {
            Planned::Delete(planned) => *planned,
            Planned::Overtaken(by) => return Ok(Collection::Overtaken(by)),
        };
        if dry_run {
            return Ok(Collection::Done(report(&plan)));
        }
        let report = self.execute(remote, confirmed, plan).await?;
        self.swept = true;
        Ok(Collection::Done(report))
    }

    async fn plan(&mut self, remote: &Remote, roots: &Roots, listing: &[String]) -> Result<Planned> {
        let retained = roots
            .retained
            .iter()
            .map(|found| found.manifest.as_deref().map_err(|error| blocked(error, found.retained.version)))
            .collect::<Result<Vec<_>>>()?;
        let confirmed = match Confirmed::take(remote, roots).await? {
            Confirmation::Confirmed(confirmed) => confirmed,
            Confirmation::Overtaken(by) => return Ok(Planned::Overtaken(by)),
        };
        debug_assert!(confirmed.is_of(roots), "a confirmation is good for one plan");
        self.look_at_pinned(remote, &confirmed).await?;
        let stale = &confirmed.held().stale;
        let Self { dead, kinds, pinned, .. } = self;
        let pinned: Vec<_> = pinned.values().map(|manifest| &**manifest).collect();
        let make = |kinds: &BTreeMap<_, _>| {
            let (newest, epoch) = (roots.newest, roots.epoch);
            let (retained, pinned) = (&retained, &pinned);
            let facts = Facts { newest, epoch, retained, pinned, stale, kinds, dead };
            plan(&facts, listing.iter().map(String::as_str))
        };
        let first = make(kinds);
        if first.unknown.is_empty() {
            return Ok(Planned::Delete(Box::new((confirmed, first))));
        }
        let read: Vec<_> = stream::iter(first.unknown)
            .map(|version| async move { kind_of(remote, version).await.map(|kind| (version, kind)) })
            .buffered(PARALLEL_READS)
            .try_collect()
            .await?;
        // One that is gone by now, or cannot be read, stays unknown.
        kinds.extend(read.into_iter().filter_map(|(version, kind)| kind.map(|kind| (version, kind))));
        let plan = make(kinds);
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
            if !names.is_empty() {
                remote.delete_collected(&confirmed, names.clone()).await?;
            }
            for name in names {
                self.dead.remove(&name);
            }
        }
        Ok(report)
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
        deleted: names.map(ToString::to_string).collect(),
        foreign: plan.foreign.clone(),
    }
}

/// A version's kind; None if it is gone, or damaged: it is not deleted then, and stands in nobody's way.
async fn kind_of(remote: &Remote, version: Version) -> Result<Option<RecordKind>> {
    match read_kind(remote, version).await {
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
            tracing::warn!(%error, "a manifest that nothing needs cannot be read, and is left where it is");
            Ok(None)
        }
        kind => kind,
    }
}

fn blocked(error: &Error, version: Version) -> Error {
    Error::new(error.kind(), "nothing is collected while it is not known what a live checkpoint needs")
        .object(ObjectName::manifest(version))
        .source(error.clone())
}
