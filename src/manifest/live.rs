//! The objects that the retained checkpoints refer to, kept by difference: a commit changes little
//! of it, however many objects a checkpoint names and however many checkpoints are retained.
//!
//! Retention drops checkpoints from the old end. For an object that the newest checkpoint does not
//! refer to, only the last retained checkpoint that does counts: when that is dropped, the object
//! is garbage. Manifests of earlier attempts are added one by one, as they are read. Until all of
//! them have been added, nothing is garbage (I3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::{CheckpointRecord, Manifest, SubtaskRecord};
use super::origin::Origin;
use super::retained::Retained;
use crate::ids::{CheckpointId, Version};
use crate::remote::ObjectName;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// The newest checkpoint of the attempt.
    newest: Option<Arc<Manifest>>,
    /// How often it refers to each object.
    counts: foldhash::HashMap<ObjectName, u32>,
    /// Objects that only earlier checkpoints refer to, with the last of these checkpoints.
    last: foldhash::HashMap<ObjectName, Version>,
    /// The same by that checkpoint. Has more: what came back to life is struck from `last` alone.
    ends: BTreeMap<Version, Vec<ObjectName>>,
    retained: BTreeSet<Version>,
    /// Checkpoints of earlier attempts that were not read yet, some of them no longer retained.
    unread: BTreeMap<Version, CheckpointId>,
    /// Dropped checkpoints whose garbage was not handed over yet.
    dropped: BTreeSet<Version>,
    /// Up to which version there may be retained checkpoints that are not known.
    gaps: Option<Version>,
}

impl Live {
    /// For a chain that retains these checkpoints, none of which was read. It may retain more, up to
    /// version `gaps`, and there is no telling which.
    pub(super) fn new(retained: impl Iterator<Item = Retained>, gaps: Option<Version>) -> Self {
        let unread: BTreeMap<_, _> = retained.map(|one| (one.version, one.id)).collect();
        Self { retained: unread.keys().copied().collect(), unread, gaps, ..Self::default() }
    }

    /// Whether there are retained checkpoints that are not known.
    pub(crate) fn has_gaps(&self) -> bool {
        self.gaps.is_some()
    }

    /// How many objects the newest checkpoint refers to.
    pub(crate) fn objects(&self) -> usize {
        self.counts.len()
    }

    /// A checkpoint was committed, and those before `oldest` are no longer retained.
    pub(super) fn committed(&mut self, manifest: &Arc<Manifest>, oldest: Version) {
        let before = self.newest.replace(Arc::clone(manifest));
        let old = before.as_ref().and_then(|before| before.checkpoint());
        let changes = Changes::between(old, manifest.checkpoint());
        // New references come first, because an object that only moves must not become garbage in between.
        for name in changes.added {
            *self.counts.entry(name.clone()).or_default() += 1;
            self.last.remove(name);
        }
        for name in changes.removed {
            let Some(count) = self.counts.get_mut(name) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(name);
                let version = before.as_ref().map_or(manifest.version, |before| before.version);
                self.last.insert(name.clone(), version);
                self.ends.entry(version).or_default().push(name.clone());
            }
        }
        self.retained.insert(manifest.version);
        let kept = self.retained.split_off(&oldest);
        self.dropped.extend(std::mem::replace(&mut self.retained, kept));
        self.gaps = self.gaps.filter(|gaps| oldest <= *gaps);
    }

    /// The checkpoints that must be read before anything is garbage, newest first.
    pub(crate) fn unread(&self) -> Vec<Retained> {
        self.unread.iter().rev().map(|(version, id)| Retained { version: *version, id: *id }).collect()
    }

    /// Takes in a checkpoint that was read.
    pub(crate) fn read(&mut self, manifest: &Manifest) {
        let version = manifest.version;
        if self.unread.remove(&version).is_none() {
            return;
        }
        for name in manifest.references() {
            if self.counts.contains_key(name) || self.last.get(name).is_some_and(|last| *last >= version) {
                continue;
            }
            self.last.insert(name.clone(), version);
            self.ends.entry(version).or_default().push(name.clone());
        }
    }

    /// Does without a checkpoint that cannot be read, if it is no longer retained. A sweep finds the objects that it alone
    /// referred to. Returns false if it is still retained.
    pub(crate) fn give_up(&mut self, version: Version) -> bool {
        let dropped = self.dropped.contains(&version);
        if dropped {
            self.unread.remove(&version);
        }
        dropped
    }

    /// The oldest retained checkpoint.
    pub(crate) fn oldest(&self) -> Option<Version> {
        self.retained.first().copied()
    }

    /// Whether a retained checkpoint refers to the object, or is it. Also true for what was not handed
    /// over yet.
    pub(crate) fn contains(&self, name: &ObjectName) -> bool {
        let itself = matches!(name, ObjectName::Manifest(version) if self.retained.contains(version));
        itself || self.counts.contains_key(name) || self.last.contains_key(name)
    }

    /// Hands over the manifests of dropped checkpoints and what they alone referred to. Some of these manifests
    /// may carry what is still needed: see [`contains`](Self::contains).
    pub(crate) fn take_garbage(&mut self) -> Vec<ObjectName> {
        // One that was not read may refer to any of these (I3). They stay until it was.
        if !self.unread.is_empty() || self.has_gaps() {
            return Vec::new();
        }
        let mut garbage = Vec::new();
        for version in std::mem::take(&mut self.dropped) {
            garbage.push(ObjectName::manifest(version));
            for name in self.ends.remove(&version).unwrap_or_default() {
                // Unless a later checkpoint has come to refer to it again.
                if self.last.get(&name) == Some(&version) {
                    self.last.remove(&name);
                    garbage.push(name);
                }
            }
        }
        garbage
    }
}

/// References that one checkpoint has and the one before has not, and the other way round, as often as they
/// are there.
struct Changes<'a> {
    added: Vec<&'a ObjectName>,
    removed: Vec<&'a ObjectName>,
}

impl<'a> Changes<'a> {
    fn between(old: Option<&'a CheckpointRecord>, new: Option<&'a CheckpointRecord>) -> Self {
        let mut changes = Self { added: Vec::new(), removed: Vec::new() };
        let carrier =
            |record: Option<&'a CheckpointRecord>| record.and_then(|record| record.states.carrier());
        if carrier(old) != carrier(new) {
            changes.added.extend(carrier(new));
            changes.removed.extend(carrier(old));
        }
        let subtasks =
            |record: Option<&'a CheckpointRecord>| record.map_or(&[][..], |record| &record.subtasks);
        let (mut old, mut new) = (subtasks(old), subtasks(new));
        loop {
            // Both ascend by subtask.
            match (old.split_first(), new.split_first()) {
                (Some((before, rest)), Some((after, others))) if before.subtask == after.subtask => {
                    changes.subtask(before, after);
                    (old, new) = (rest, others);
                }
                (Some((before, rest)), after)
                    if after.is_none_or(|(after, _)| before.subtask < after.subtask) =>
                {
                    changes.removed.extend(before.references());
                    old = rest;
                }
                (_, Some((after, others))) => {
                    changes.added.extend(after.references());
                    new = others;
                }
                (_, None) => return changes,
            }
        }
    }

    fn subtask(&mut self, before: &'a SubtaskRecord, after: &'a SubtaskRecord) {
        if before.origins != after.origins {
            self.removed.extend(before.origins.iter().flat_map(Origin::references));
            self.added.extend(after.origins.iter().flat_map(Origin::references));
        }
        // The same index names the same files.
        let place = |record: &'a SubtaskRecord| {
            record.base.as_ref().map(|base| (&base.object, base.offset, base.crc32c))
        };
        if place(before) != place(after) {
            self.removed.extend(before.base_references());
            self.added.extend(after.base_references());
        }
        // A changelog goes on at its end, and loses from its beginning.
        let from = after.deltas.first().map_or(before.deltas.len(), |first| {
            before.deltas.partition_point(|delta| delta.first < first.first)
        });
        let (gone, kept) = before.deltas.split_at(from);
        let same = kept.iter().zip(&after.deltas).take_while(|(a, b)| a.object == b.object).count();
        let objects = |deltas: &'a [super::DeltaRef]| deltas.iter().map(|delta| &delta.object);
        self.removed.extend(objects(gone).chain(objects(kept.split_at(same).1)));
        self.added.extend(objects(after.deltas.split_at(same).1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{base, checkpoint, data, delta, id, open_record, subtask};
    use super::*;
    use crate::ids::SubtaskIndex;
    use crate::remote::DataKind;

    /// One subtask's base, and its deltas: the first, and in which objects they lie.
    type Part = Option<(u64, u64, Vec<u64>)>;

    fn any_part() -> impl Strategy<Value = Part> {
        let deltas = proptest::collection::vec(0..6_u64, 0..5);
        proptest::option::weighted(0.9, (0..4_u64, 1..5_u64, deltas))
    }

    fn manifest(version: u64, parts: &[Part]) -> Arc<Manifest> {
        let subtasks = (0..).zip(parts).filter_map(|(index, part)| {
            let (n, first, objects) = part.clone()?;
            // Bases share files, and one base always has the same.
            let files = (0..=n).map(|file| data(1, DataKind::Sst, n * 2 + file)).collect();
            let object = |(seq, object): (u64, &u64)| match *object {
                // Carried by a manifest that may be dropped already.
                0 => ObjectName::manifest(Version(version.saturating_sub(1))),
                n => data(1, DataKind::Delta, n * 100 + seq / 3),
            };
            let deltas = (first..).zip(&objects).map(|one| delta(object(one), 0, 5, one.0, one.0)).collect();
            let base = (n > 0).then(|| base(1, n, first - 1, files));
            Some(SubtaskRecord { subtask: SubtaskIndex(index), ..subtask(base, deltas) })
        });
        let record = checkpoint(id(1, version), subtasks.collect());
        let head = Manifest { version: Version(version - 1), ..open_record(1) };
        Arc::new(head.next(crate::ids::Nonce([0; 16]), record, Version(0)))
    }

    proptest! {
        /// Against sets that are made anew each time.
        #[test]
        fn i3_garbage_is_what_no_retained_checkpoint_refers_to(
            history in proptest::collection::vec((proptest::collection::vec(any_part(), 3), 1..5_u64, any::<bool>()), 1..30),
            earlier in 0..5_usize,
        ) {
            let manifests: Vec<_> = (2..).zip(&history).map(|(version, (parts, ..))| manifest(version, parts)).collect();
            let (old, new) = manifests.split_at(earlier.min(manifests.len()));
            let retained = |manifest: &Arc<Manifest>| manifest.retained.newest().unwrap().checkpoint;
            let mut live = Live::new(old.iter().map(retained), None);
            let (mut oldest, mut garbage) = (Version(2), BTreeSet::new());
            let mut unread: Vec<_> = old.to_vec();
            for (manifest, (_, keep, look)) in new.iter().zip(&history[old.len()..]) {
                oldest = oldest.max(Version((manifest.version.0 + 1).saturating_sub(*keep)));
                live.committed(manifest, oldest);
                if *look && let Some(read) = unread.pop() {
                    live.read(&read);
                }
                // What is garbage once is taken up again by no job; here it may be, by chance. So only what is new counts.
                let mut new = if *look { live.take_garbage() } else { Vec::new() };
                new.retain(|name| !live.contains(name));
                for kept in manifests.iter().filter(|kept| (oldest..=manifest.version).contains(&kept.version)) {
                    for name in kept.references().chain([&ObjectName::manifest(kept.version)]) {
                        prop_assert!(!new.contains(name), "{} needs {}", kept.version, name);
                        prop_assert!(live.contains(name) || live.unread.contains_key(&kept.version));
                    }
                }
                garbage.extend(new);
            }
            for read in unread.iter().rev() {
                live.read(read);
            }
            garbage.extend(live.take_garbage());
            garbage.retain(|name| !live.contains(name));
            let all = |manifests: &mut dyn Iterator<Item = &Arc<Manifest>>| -> BTreeSet<ObjectName> {
                manifests.flat_map(|one| one.references().cloned().chain([ObjectName::manifest(one.version)])).collect()
            };
            let needed = all(&mut manifests.iter().filter(|one| one.version >= oldest));
            let gone: BTreeSet<_> = all(&mut manifests.iter()).difference(&needed).cloned().collect();
            prop_assert_eq!(garbage, gone);
        }
    }

    #[test]
    fn i3_nothing_is_garbage_while_a_retained_checkpoint_was_not_read() {
        let (first, second) = (manifest(2, &[Some((1, 1, vec![1]))]), manifest(3, &[None]));
        let retained = first.retained.newest().unwrap().checkpoint;
        let mut live = Live::new([retained].into_iter(), None);
        live.committed(&second, Version(3));
        assert_eq!((live.take_garbage(), live.unread()), (vec![], vec![retained]));
        live.read(&first);
        assert_eq!(live.take_garbage().len(), 5, "itself, the base, two files, a delta");
        assert_eq!(live.take_garbage(), []);

        // Nor while there may be others.
        let mut live = Live::new([].into_iter(), Some(Version(2)));
        live.committed(&first, Version(1));
        live.committed(&second, Version(2));
        assert!(live.has_gaps() && live.take_garbage().is_empty());
        live.committed(&manifest(4, &[None]), Version(4));
        assert!(!live.has_gaps() && live.take_garbage().len() >= 6);

        // One that is damaged stands in the way only as long as it is retained.
        let mut live = Live::new([retained].into_iter(), None);
        assert!(!live.give_up(Version(2)));
        live.committed(&second, Version(3));
        assert!(live.give_up(Version(2)));
        assert_eq!(live.take_garbage(), [ObjectName::manifest(Version(2))]);
    }
}
