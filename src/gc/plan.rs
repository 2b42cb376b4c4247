//! Which objects may be deleted: a pure function of the facts.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::ids::{Epoch, Version};
use crate::manifest::{Manifest, RecordKind};
use crate::remote::ObjectName;

/// What a plan is made from.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// Newest version of the chain, seen before the pins were listed.
    pub newest: Version,
    /// The attempt that `newest` belongs to, or that collects. Its unreferenced objects may be on their way into a
    /// checkpoint. Those of earlier attempts never get into one, because these attempts are fenced.
    pub epoch: Epoch,
    /// Listed objects that belong to a retained checkpoint, its manifest included.
    pub live: &'a HashSet<ObjectName>,
    /// The oldest retained checkpoint.
    pub oldest: Option<Version>,
    /// All checkpoints that savepoints and pins name, as far as they exist.
    pub pinned: &'a [&'a Manifest],
    /// Pins of attempts before `epoch`, and what a name stood for before it was released.
    pub stale: &'a BTreeSet<ObjectName>,
    /// Versions that cannot be read. One above the oldest retained checkpoint may itself be a retained checkpoint, so
    /// all objects that it may refer to stay.
    pub damaged: &'a BTreeSet<Version>,
    /// The newest record of which versions are open records, if it could be read.
    pub opened: Option<Epoch>,
    /// Known kinds of versions. A version is deleted only if it is known to be a checkpoint.
    pub kinds: &'a BTreeMap<Version, RecordKind>,
    /// Objects of `epoch` that were committed and dropped again, so they are not on their way into a checkpoint.
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
    /// Kept because a damaged checkpoint may refer to it.
    pub held_back: usize,
    /// Not ours.
    pub foreign: Vec<String>,
    /// Kept by savepoints and pins alone.
    pub pinned: Vec<ObjectName>,
}

impl Facts<'_> {
    /// The newest of the damaged versions that may be checkpoints that are still retained.
    pub(super) fn unsettled(&self) -> Option<Version> {
        unsettled(self.damaged, self.oldest)
    }
}

/// As [`Facts::unsettled`], where `oldest` is the oldest retained checkpoint. Once all that are older than a
/// damaged version have been dropped, it would have been dropped as well.
pub(super) fn unsettled(damaged: &BTreeSet<Version>, oldest: Option<Version>) -> Option<Version> {
    damaged.last().copied().filter(|version| oldest.is_none_or(|oldest| oldest < *version))
}

/// Whether a checkpoint of this version may refer to an object: its attempt was no later one, and manifests
/// refer to older ones.
fn may_refer(version: Version, name: &ObjectName) -> bool {
    match name {
        ObjectName::Manifest(older) => *older <= version,
        ObjectName::Data { epoch, .. } => epoch.0 <= version.0,
        ObjectName::Opened(_) | ObjectName::Pin(_) | ObjectName::Savepoint(..) | ObjectName::Probe(..) => {
            false
        }
    }
}

/// Sorts `listing`, names below the job's prefix, into what may go and what stays.
pub(super) fn plan<'a>(facts: &Facts<'_>, listing: impl IntoIterator<Item = &'a str>) -> GcPlan {
    let pinned = live(facts.pinned);
    let unsettled = facts.unsettled();
    let mut plan = GcPlan::default();
    for text in listing {
        let Some(name) = ObjectName::parse(text) else {
            plan.foreign.push(text.to_owned());
            continue;
        };
        if facts.live.contains(&name) {
            continue;
        }
        if pinned.contains(&name) {
            plan.pinned.push(name);
            continue;
        }
        if unsettled.is_some_and(|version| may_refer(version, &name)) {
            plan.held_back += 1;
            continue;
        }
        // No checkpoint that is known needs it. What is left to ask is who may still come to need it.
        match name {
            // The newest version says what is retained. Versions above it are newer than the facts.
            ObjectName::Manifest(version) if version >= facts.newest => {}
            ObjectName::Manifest(version) => match facts.kinds.get(&version) {
                Some(RecordKind::Checkpoint) => plan.manifests.push(name),
                // Open records fence attempts that have slept, for however long (I2).
                Some(RecordKind::Open) => {}
                // Its header is read before it is decided about.
                None => plan.unknown.push(version),
            },
            // Its writer is fenced, so no commit will ever name it.
            ObjectName::Data { epoch, .. } if epoch < facts.epoch => plan.data.push(name),
            ObjectName::Data { epoch, .. } if epoch == facts.epoch && facts.dead.contains(&name) => {
                plan.data.push(name);
            }
            // Written by the running attempt or a later one: its next commit may name it.
            ObjectName::Data { .. } => plan.in_flight += 1,
            // A pin of a fenced attempt keeps nothing, and a released savepoint's name stands for something newer.
            ObjectName::Pin(_) | ObjectName::Savepoint(..) if facts.stale.contains(&name) => {
                plan.data.push(name);
            }
            // A probe of an attempt that has opened by now, or that lost its version to another attempt.
            ObjectName::Probe(wanted, _) if wanted.0 != 0 && wanted.0 <= facts.epoch.0 => {
                plan.data.push(name);
            }
            // A newer memo of open records contains this one.
            ObjectName::Opened(epoch) if facts.opened.is_some_and(|newest| epoch < newest) => {
                plan.data.push(name);
            }
            ObjectName::Opened(_) => {}
            // These belong to readers, users and openers, who remove them.
            ObjectName::Pin(_) | ObjectName::Savepoint(..) | ObjectName::Probe(..) => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_group::MaxParallelism;
    use crate::manifest::Record;
    use crate::manifest::samples::{base, checkpoint, data, delta, id, nonce, subtask};
    use crate::remote::{DataKind, Generation};

    /// Version 8 of epoch 5: a base of two files, a delta of its own, and one that version 6 carries.
    fn head() -> Manifest {
        let files = vec![data(3, DataKind::Sst, 1), data(5, DataKind::Sst, 2)];
        let deltas = vec![
            delta(ObjectName::manifest(Version(6)), 28, 5, 3, 3),
            delta(data(5, DataKind::Delta, 4), 0, 5, 4, 4),
        ];
        Manifest {
            version: Version(8),
            nonce: nonce(1),
            parent: nonce(2),
            epoch: Epoch(5),
            max_parallelism: MaxParallelism::default(),
            retained: Default::default(),
            record: Record::Checkpoint(checkpoint(
                id(5, 3),
                vec![subtask(Some(base(5, 3, 2, files)), deltas)],
            )),
        }
    }

    fn kinds() -> BTreeMap<Version, RecordKind> {
        let kind = |version| match version {
            1 | 5 => RecordKind::Open,
            _ => RecordKind::Checkpoint,
        };
        (1..=9).map(|version| (Version(version), kind(version))).collect()
    }

    fn plan_of(pinned: &[&Manifest], dead: &[ObjectName], names: &[ObjectName]) -> GcPlan {
        let (head, dead) = (head(), dead.iter().cloned().collect());
        let facts = Facts {
            newest: head.version,
            epoch: head.epoch,
            live: &live(&[&head]),
            oldest: Some(head.version),
            pinned,
            damaged: &BTreeSet::new(),
            opened: Some(Epoch(5)),
            stale: &BTreeSet::from([ObjectName::pin(nonce(9))]),
            kinds: &kinds(),
            dead: &dead,
        };
        plan(&facts, names.iter().map(ToString::to_string).collect::<Vec<_>>().iter().map(String::as_str))
    }

    #[test]
    fn what_is_live_stays() {
        let head = head();
        let mut names: Vec<_> = head.references().cloned().collect();
        names.push(ObjectName::manifest(head.version));
        assert_eq!(plan_of(&[], &names, &names), GcPlan::default());
    }

    #[test]
    fn manifests_go_but_open_records_carriers_and_the_newest() {
        let names: Vec<_> = (1..=9).map(|version| ObjectName::manifest(Version(version))).collect();
        let gone = [2, 3, 4, 7].map(|version| ObjectName::manifest(Version(version)));
        assert_eq!(plan_of(&[], &[], &names), GcPlan { manifests: gone.to_vec(), ..GcPlan::default() });
    }

    #[test]
    fn a_version_of_unknown_kind_stays() {
        let head = head();
        let facts = Facts {
            newest: head.version,
            epoch: head.epoch,
            live: &live(&[&head]),
            oldest: Some(head.version),
            pinned: &[],
            damaged: &BTreeSet::new(),
            opened: Some(Epoch(5)),
            stale: &BTreeSet::new(),
            kinds: &BTreeMap::new(),
            dead: &BTreeSet::new(),
        };
        let plan = plan(&facts, [ObjectName::manifest(Version(7)).to_string().as_str()]);
        assert_eq!(plan, GcPlan { unknown: vec![Version(7)], ..GcPlan::default() });
    }

    #[test]
    fn orphans_of_earlier_epochs_go_and_what_may_be_in_flight_stays() {
        let orphan = data(4, DataKind::Delta, 9);
        let dead = data(5, DataKind::Delta, 1);
        let names = [orphan.clone(), dead.clone(), data(5, DataKind::Delta, 9), data(6, DataKind::Base, 1)];
        let plan = plan_of(&[], std::slice::from_ref(&dead), &names);
        assert_eq!(plan, GcPlan { data: vec![orphan, dead], in_flight: 2, ..GcPlan::default() });
    }

    #[test]
    fn pins_protect_what_they_reach() {
        let file = data(1, DataKind::Sst, 1);
        let pinned = Manifest {
            version: Version(3),
            epoch: Epoch(1),
            record: Record::Checkpoint(checkpoint(
                id(1, 2),
                vec![subtask(Some(base(1, 2, 2, vec![file.clone()])), vec![])],
            )),
            ..head()
        };
        let names = [ObjectName::manifest(Version(3)), file, data(1, DataKind::Base, 2)];
        let plan = plan_of(&[&pinned], &[], &names);
        assert_eq!(plan, GcPlan { pinned: names.to_vec(), ..GcPlan::default() });
    }

    #[test]
    fn i3_what_a_damaged_checkpoint_may_refer_to_stays_as_long_as_older_ones_are_retained() {
        // The manifests 6 and 8 are retained; 7 cannot be read.
        let head = head();
        let older = Manifest { version: Version(6), ..head.clone() };
        let names =
            [ObjectName::manifest(Version(3)), ObjectName::manifest(Version(7)), data(4, DataKind::Delta, 9)];
        let texts = names.clone().map(|name| name.to_string());
        let (damaged, kinds) = (BTreeSet::from([Version(7)]), kinds());
        let (stale, dead) = (BTreeSet::new(), BTreeSet::new());
        let plan_of = |retained: &[&Manifest]| {
            let (newest, epoch) = (head.version, head.epoch);
            let (damaged, kinds, stale, dead) = (&damaged, &kinds, &stale, &dead);
            let (live, pinned, opened) = (&live(retained), &[], None);
            let oldest = retained.iter().map(|manifest| manifest.version).min();
            let facts = Facts { newest, epoch, live, oldest, pinned, stale, damaged, opened, kinds, dead };
            plan(&facts, texts.iter().map(String::as_str))
        };
        assert_eq!(plan_of(&[&older, &head]), GcPlan { held_back: 3, ..GcPlan::default() });
        let settled = plan_of(&[&head]);
        assert_eq!((settled.manifests.len(), settled.data.len(), settled.held_back), (2, 1, 0));
        // Data of a later attempt is none of its.
        assert!(may_refer(Version(7), &data(7, DataKind::Sst, 1)));
        assert!(!may_refer(Version(7), &data(8, DataKind::Sst, 1)));
    }

    #[test]
    fn what_is_not_ours_stays() {
        let head = head();
        let (kinds, dead) = (kinds(), BTreeSet::new());
        let facts = Facts {
            newest: head.version,
            epoch: head.epoch,
            live: &live(&[&head]),
            oldest: Some(head.version),
            pinned: &[],
            damaged: &BTreeSet::new(),
            opened: Some(Epoch(5)),
            stale: &BTreeSet::new(),
            kinds: &kinds,
            dead: &dead,
        };
        let names = ["manifest/2", "data/x", "data/00000000000000000001/notes.txt", "thesis.tex", ""];
        let plan = plan(&facts, names);
        assert_eq!(plan.foreign, names);
        assert_eq!(plan, GcPlan { foreign: plan.foreign.clone(), ..GcPlan::default() });
        let savepoint = ObjectName::savepoint(&"kept".parse().unwrap(), Generation(0));
        let ours = [
            ObjectName::pin(nonce(1)),
            savepoint,
            ObjectName::probe(Version(0), nonce(1)),
            // An attempt may be about to open.
            ObjectName::probe(Version(9), nonce(1)),
            ObjectName::Opened(Epoch(5)),
        ];
        assert_eq!(plan_of(&[], &[], &ours), GcPlan::default());
    }

    #[test]
    fn what_openers_have_left_goes_once_their_version_is_taken() {
        let probes = [5, 6].map(|wanted| ObjectName::probe(Version(wanted), nonce(1)));
        let plan = plan_of(&[], &[], &probes);
        assert_eq!(plan, GcPlan { data: vec![probes[0].clone()], ..GcPlan::default() });
    }

    #[test]
    fn the_pin_of_a_fenced_attempt_goes() {
        let pins = [1, 9].map(|n| ObjectName::pin(nonce(n)));
        let plan = plan_of(&[], &[], &pins);
        assert_eq!(plan, GcPlan { data: vec![pins[1].clone()], ..GcPlan::default() });
    }
}
