//! Gathers the facts that a plan is made of, in the order that makes it safe.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::Collector;
use super::look::{Depth, look_at, note_kind};
use crate::error::{Error, ErrorKind, Result};
use crate::gc::confirmed::{Confirmation, Confirmed};
use crate::gc::plan::{Facts, GcPlan, plan};
use crate::ids::{Epoch, Version};
use crate::manifest::{Roots, newest_attempt, read_manifest};
use crate::remote::{ObjectName, Remote};

/// What may be deleted, with the proof.
pub(super) enum Planned {
    Delete(Box<(Confirmed, GcPlan)>),
    Overtaken(Epoch),
}

impl Collector {
    pub(super) async fn plan(
        &mut self,
        remote: &Remote,
        roots: &Roots,
        listing: &[String],
    ) -> Result<Planned> {
        if let Some(by) = read_all(remote, roots).await? {
            return Ok(Planned::Overtaken(by));
        }
        // This comes before pins are listed, because a reader may pin a checkpoint as long as it is retained. An
        // object that no checkpoint refers to now will never be referred to again.
        let live: HashSet<_> = {
            let live = roots.live();
            let names = listing.iter().filter_map(|name| ObjectName::parse(name));
            names.filter(|name| live.contains(name)).collect()
        };
        let confirmed = match Confirmed::take(remote, roots).await? {
            Confirmation::Confirmed(confirmed) => confirmed,
            Confirmation::Overtaken(by) => return Ok(Planned::Overtaken(by)),
        };
        assert!(confirmed.is_of(roots), "a confirmation is good for one plan");
        self.look_at_pinned(remote, &confirmed).await?;
        let stale = &confirmed.protected().stale;
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
        // The plan is made three times, and only the last is carried out. Each of the first two shows which
        // versions must be looked at before it is known whether they may go.
        let first = make(kinds, damaged);
        let unknown: Vec<_> = first.unknown.iter().filter(|version| !damaged.contains(version)).collect();
        for (version, kind) in look_at(remote, unknown, Depth::Header).await? {
            note_kind(version, kind, kinds, damaged);
        }
        // A checkpoint that is not retained, though older ones are. Its commit did not count, or the manifest is
        // damaged behind its header and was passed over.
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
        let mut doomed = plan.manifests.iter().chain(&plan.data);
        assert!(doomed.all(|name| !live.contains(name)), "I3: a plan spares what is live");
        Ok(Planned::Delete(Box::new((confirmed, plan))))
    }

    /// Reads the manifests that savepoints and pins keep, as far as they exist. A pin that came too late keeps
    /// nothing, and its reader withdraws it.
    async fn look_at_pinned(&mut self, remote: &Remote, confirmed: &Confirmed) -> Result<()> {
        let mut pinned = BTreeMap::new();
        for version in confirmed.protected().versions.iter().copied() {
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
        // A pin or savepoint is gone, and what it kept may be of an earlier attempt: only a sweep finds that.
        self.swept &= self.pinned.keys().all(|version| pinned.contains_key(version));
        self.pinned = pinned;
        Ok(())
    }
}

/// Reads what retained checkpoints of earlier attempts refer to. If one of them is gone because a later attempt has
/// taken over, returns that attempt.
///
/// # Errors
/// `Corrupt` or `MissingObject` if one of them cannot be read for another reason.
pub(super) async fn read_all(remote: &Remote, roots: &Roots) -> Result<Option<Epoch>> {
    let Err((version, error)) = roots.read_all(remote).await else { return Ok(None) };
    let (_, newest) = newest_attempt(remote, (roots.newest, roots.epoch)).await?;
    if newest > roots.epoch { Ok(Some(newest)) } else { Err(blocked(&error, version)) }
}

fn blocked(error: &Error, version: Version) -> Error {
    Error::new(error.kind(), "nothing is collected while it is not known what a live checkpoint needs")
        .object(ObjectName::manifest(version))
        .source(error.clone())
}
