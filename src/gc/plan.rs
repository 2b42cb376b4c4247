//! What may be deleted: a pure function of what was seen.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::ids::{Epoch, Version};
use crate::manifest::{Manifest, RecordKind};
use crate::remote::{ObjectName, ParsedName};

/// What a plan is made from.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// Newest version of the chain, seen before the pins were listed.
    pub newest: Version,
    /// The attempt that `newest` belongs to, or that asks. Its own unreferenced objects may be on their way into
    /// a checkpoint; those of earlier ones never get into any, because they are fenced.
    pub epoch: Epoch,
    /// All checkpoints that `newest` retains.
    pub retained: &'a [&'a Manifest],
    /// All checkpoints that pins name, as far as they exist.
    pub pinned: &'a [&'a Manifest],
    /// What is known of versions' kinds. A version is deleted only if it is known to be no open record.
    pub kinds: &'a BTreeMap<Version, RecordKind>,
    /// Objects of `epoch` itself that were committed and dropped again, and so are on no one's way.
    pub dead: &'a BTreeSet<ObjectName>,
}

/// What may be deleted and what was left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GcPlan {
    /// Deleted first, so that no manifest is ever seen that refers to what is gone.
    pub manifests: Vec<ObjectName>,
    pub data: Vec<ObjectName>,
    /// Unreferenced, but a running attempt may be about to commit them.
    pub in_flight: usize,
    /// Versions that may go unless they are open records.
    pub unknown: Vec<Version>,
    /// Not ours.
    pub foreign: Vec<String>,
    /// Kept by pins alone.
    pub pinned: Vec<ObjectName>,
}

/// Sorts `listing`, names below the job's prefix, into what may go and what stays.
pub(super) fn plan<'a>(facts: &Facts<'_>, listing: impl IntoIterator<Item = &'a str>) -> GcPlan {
    let retained = live(facts.retained);
    let pinned = live(facts.pinned);
    let mut plan = GcPlan::default();
    for text in listing {
        let Some(parsed) = ObjectName::parse(text) else {
            plan.foreign.push(text.to_owned());
            continue;
        };
        let name = parsed.name();
        if retained.contains(&name) {
            continue;
        }
        if pinned.contains(&name) {
            plan.pinned.push(name);
            continue;
        }
        match parsed {
            // The newest says what is retained; what lies above it is newer than what we know.
            ParsedName::Manifest(version) if version >= facts.newest => {}
            ParsedName::Manifest(version) => match facts.kinds.get(&version) {
                Some(RecordKind::Checkpoint) => plan.manifests.push(name),
                // They fence attempts that have slept, for however long (I2).
                Some(RecordKind::Open) => {}
                None => plan.unknown.push(version),
            },
            ParsedName::Data { epoch, .. } if epoch < facts.epoch => plan.data.push(name),
            ParsedName::Data { epoch, .. } if epoch == facts.epoch && facts.dead.contains(&name) => {
                plan.data.push(name);
            }
            ParsedName::Data { .. } => plan.in_flight += 1,
            // They belong to readers and openers, who withdraw them.
            ParsedName::Pin(_) | ParsedName::Probe(_) => {}
        }
    }
    plan
}

/// The manifests themselves and all that they refer to.
fn live(manifests: &[&Manifest]) -> HashSet<ObjectName> {
    manifests
        .iter()
        .flat_map(|manifest| {
            std::iter::once(ObjectName::manifest(manifest.version)).chain(manifest.references().cloned())
        })
        .collect()
}
