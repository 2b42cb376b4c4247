//! The content of a manifest: plain values, the rules that every manifest obeys, and how one
//! follows from another. No I/O and no bytes here.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::carried::{States, decode_states};
use super::format::Inline;
use super::origin::{Origin, Segment};
use super::retained::{Entry, Facts, Retained, RetainedList};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, StateId, SubtaskIndex, Version};
use crate::key_group::{KeyGroupRange, MaxParallelism};
use crate::remote::{ObjectName, Remote};

/// How checkpoints are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointMode {
    /// Every change goes into a changelog as well; a checkpoint uploads the last bit of it. The default.
    #[default]
    Changelog,
    /// A checkpoint flushes RocksDB and uploads the files that are new.
    NativeIncremental,
}

impl CheckpointMode {
    /// Whether every change goes into the changelog, and bases follow in the background. Where a mode only needs to
    /// say this, it says it here; where it does something of its own, a `match` names every mode.
    pub(crate) fn logs_changes(self) -> bool {
        match self {
            Self::Changelog => true,
            Self::NativeIncremental => false,
        }
    }
}

/// A run of a subtask's changelog: one delta, or several packed into one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeltaRef {
    /// A data object, or the manifest that carries the bytes inline.
    pub object: ObjectName,
    pub offset: u64,
    pub length: u64,
    /// Of exactly these bytes.
    pub crc32c: u32,
    pub first: DeltaSeq,
    pub last: DeltaSeq,
    pub entries: u64,
}

/// A materialized snapshot of a subtask's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseRef {
    /// Holds the base's index.
    pub object: ObjectName,
    pub offset: u64,
    pub length: u64,
    /// Of the index.
    pub crc32c: u32,
    /// The last delta that the base contains.
    pub seq: DeltaSeq,
    pub state_bytes: u64,
    /// Every object that the index refers to, so that reachability can be told without reading it.
    pub files: Vec<ObjectName>,
}

/// One subtask's part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubtaskRecord {
    pub subtask: SubtaskIndex,
    pub range: KeyGroupRange,
    /// Where the state comes from, if the subtask was rescaled and has no base of its own yet:
    /// ascending, disjoint, and together the range.
    pub origins: Vec<Origin>,
    pub base: Option<BaseRef>,
    /// What came after the base or the origins, oldest first, without gaps.
    pub deltas: Vec<DeltaRef>,
    /// The last delta before the cut.
    pub seq: DeltaSeq,
    /// The user's, as of this subtask's own barrier.
    pub metadata: Vec<u8>,
    /// The store that took the cut.
    pub instance: Nonce,
}

/// A checkpoint of the whole job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointRecord {
    pub id: CheckpointId,
    pub mode: CheckpointMode,
    /// When it was committed, for people.
    pub unix_millis: u64,
    /// The user's, from the coordinator.
    pub metadata: Vec<u8>,
    /// Ascending by subtask.
    pub subtasks: Vec<SubtaskRecord>,
    pub states: States,
}

/// What a version of the chain stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// An attempt began. Fences all earlier ones and is never deleted.
    Open,
    Checkpoint(CheckpointRecord),
}

impl Record {
    pub(crate) fn kind(&self) -> RecordKind {
        match self {
            Self::Open => RecordKind::Open,
            Self::Checkpoint(_) => RecordKind::Checkpoint,
        }
    }
}

/// What can be told from a manifest's header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RecordKind {
    Open,
    Checkpoint,
}

/// One version of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub version: Version,
    /// Tells this write from any other of the same version.
    pub nonce: Nonce,
    /// The nonce of the manifest that this one follows; zero for the first.
    pub parent: Nonce,
    /// The attempt that wrote it.
    pub epoch: Epoch,
    pub max_parallelism: MaxParallelism,
    /// All checkpoints that can be restored; a checkpoint names itself as the last.
    pub retained: RetainedList,
    pub record: Record,
}

impl DeltaRef {
    pub(super) fn validate(&self) -> Result<()> {
        place_is_sound(&self.object, self.offset, self.length)?;
        if self.first.0 == 0 || self.first > self.last {
            return Err(Error::corrupt(format!("delta range {}..={} is not one", self.first, self.last)));
        }
        Ok(())
    }
}

impl BaseRef {
    pub(super) fn validate(&self) -> Result<()> {
        place_is_sound(&self.object, self.offset, self.length)?;
        match self.files.iter().find(|file| !matches!(file, ObjectName::Data { .. })) {
            Some(file) => Err(Error::corrupt(format!("{file} cannot be a file of a base"))),
            None => Ok(()),
        }
    }
}

impl SubtaskRecord {
    /// Every object that restoring this subtask needs; some more than once.
    pub(crate) fn references(&self) -> impl Iterator<Item = &ObjectName> {
        let own = self.base_references().chain(self.deltas.iter().map(|delta| &delta.object));
        self.origins.iter().flat_map(Origin::references).chain(own)
    }

    /// What its own base refers to.
    pub(super) fn base_references(&self) -> impl Iterator<Item = &ObjectName> {
        self.base.iter().flat_map(|base| std::iter::once(&base.object).chain(&base.files))
    }

    /// Bases and deltas by their places: object, offset, length.
    fn places(&self) -> impl Iterator<Item = (&ObjectName, u64, u64)> {
        let bases = self.origins.iter().map(|origin| &origin.base).chain([&self.base]).flatten();
        let bases = bases.map(|base| (&base.object, base.offset, base.length));
        let deltas = self.origins.iter().flat_map(Origin::deltas).map(|(_, delta)| delta).chain(&self.deltas);
        bases.chain(deltas.map(|delta| (&delta.object, delta.offset, delta.length)))
    }

    /// The subtask's own changelog, after its base or its origins.
    fn own_segment(&self) -> Segment {
        let base = self.base.as_ref().map(|base| base.seq);
        let after = base.or_else(|| self.origins.iter().map(Origin::seq).max());
        Segment {
            subtask: self.subtask,
            range: self.range,
            after: after.unwrap_or_default(),
            deltas: self.deltas.clone(),
            seq: self.seq,
        }
    }

    /// The state in the form of origins: what another subtask takes over of it.
    pub(crate) fn as_origins(&self) -> Vec<Origin> {
        let own = self.own_segment();
        if self.origins.is_empty() {
            return vec![Origin { owned: self.range, base: self.base.clone(), segments: vec![own] }];
        }
        let mut origins = self.origins.clone();
        if !own.deltas.is_empty() {
            // They may touch the key groups of any of the origins.
            origins.iter_mut().for_each(|origin| origin.segments.push(own.clone()));
        }
        origins
    }

    /// Checks that base, origins and deltas make up changelogs without gaps that end at the cut: anything
    /// else would restore to a state that never was (I1).
    pub(crate) fn check_contiguous(&self) -> Result<()> {
        self.origins.iter().try_for_each(Origin::check_contiguous)?;
        self.own_segment().check_contiguous()
    }

    pub(crate) fn validate(&self, max_parallelism: MaxParallelism) -> Result<()> {
        self.range.check(max_parallelism)?;
        self.base.iter().try_for_each(BaseRef::validate)?;
        self.deltas.iter().try_for_each(DeltaRef::validate)?;
        self.origins.iter().try_for_each(|origin| origin.validate(max_parallelism))?;
        if !self.origins.is_empty() {
            if self.base.is_some() {
                return Err(Error::corrupt("a subtask with a base of its own has origins"));
            }
            let owned = self.origins.iter().map(|origin| origin.owned);
            if !self.range.is_tiled_by(owned) {
                let range = self.range;
                return Err(Error::corrupt(format!("the origins do not make up key groups {range}")));
            }
        }
        self.check_contiguous()
    }
}

impl CheckpointRecord {
    /// Makes references to what travels in manifest `from` point to manifest `to` instead. Origins are
    /// older than any draft.
    pub(crate) fn relocate(&mut self, from: Version, to: Version) {
        if from == to {
            return;
        }
        let (from, to) = (ObjectName::manifest(from), ObjectName::manifest(to));
        for subtask in &mut self.subtasks {
            let base = subtask.base.iter_mut().map(|base| &mut base.object);
            let deltas = subtask.deltas.iter_mut().map(|delta| &mut delta.object);
            base.chain(deltas).filter(|object| **object == from).for_each(|object| *object = to.clone());
        }
    }

    /// Every object that restoring the checkpoint needs; some more than once.
    pub(crate) fn references(&self) -> impl Iterator<Item = &ObjectName> {
        let states = self.states.place.iter().map(|place| &place.object);
        states.chain(self.subtasks.iter().flat_map(SubtaskRecord::references))
    }

    /// Bytes that a restore has to read.
    pub(crate) fn full_bytes(&self) -> u64 {
        // What a manifest says comes from outside.
        let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.fold(0, u64::saturating_add);
        let own = self.subtasks.iter().map(|subtask| {
            let base = subtask.base.as_ref().map_or(0, |base| base.state_bytes);
            sum(&mut subtask.deltas.iter().map(|delta| delta.length)).saturating_add(base)
        });
        // What several subtasks have taken over from one is read once.
        let origins = || self.subtasks.iter().flat_map(|subtask| &subtask.origins);
        let bases = origins().filter_map(|origin| origin.base.as_ref());
        let bases = bases.map(|base| (&base.object, base.offset, base.state_bytes));
        let deltas = origins().flat_map(Origin::deltas).map(|(_, delta)| delta);
        let deltas = deltas.map(|delta| (&delta.object, delta.offset, delta.length));
        let taken_over: BTreeSet<_> = bases.chain(deltas).collect();
        let taken_over = sum(&mut taken_over.into_iter().map(|(.., bytes)| bytes));
        sum(&mut own.into_iter()).saturating_add(taken_over)
    }

    /// The checkpoint as a list of retained ones names it.
    pub(crate) fn entry(&self, version: Version) -> Entry {
        let facts = Facts { unix_millis: self.unix_millis, full_bytes: self.full_bytes() };
        Entry { checkpoint: Retained { version, id: self.id }, facts: Some(facts) }
    }

    fn validate(&self, max_parallelism: MaxParallelism) -> Result<()> {
        for record in &self.subtasks {
            record
                .validate(max_parallelism)
                .map_err(|error| error.object(format_args!("subtask {}", record.subtask)))?;
        }
        if !self.subtasks.is_sorted_by(|a, b| a.subtask < b.subtask) {
            return Err(Error::corrupt("subtasks are not in ascending order"));
        }
        let mut ranges: Vec<_> = self.subtasks.iter().map(|record| record.range).collect();
        ranges.sort_by_key(|range| range.first);
        if !ranges.is_sorted_by(|a, b| a.last < b.first) {
            return Err(Error::corrupt("key group ranges of subtasks overlap"));
        }
        let mut seen = BTreeSet::new();
        for state in self.states.known().into_iter().flat_map(|states| states.iter()) {
            if state.id == StateId::RESERVED || !seen.insert(state.id.0) {
                return Err(Error::corrupt(format!("state {:?} has an id that is taken", state.name)));
            }
        }
        Ok(())
    }
}

impl Manifest {
    /// The record that begins an attempt at `version`, after `head`.
    pub(crate) fn open(
        version: Version,
        nonce: Nonce,
        head: Option<&Manifest>,
        max_parallelism: MaxParallelism,
    ) -> Self {
        Self {
            version,
            nonce,
            parent: head.map_or(Nonce::default(), |head| head.nonce),
            epoch: Epoch(version.0),
            max_parallelism,
            retained: head.map_or_else(RetainedList::default, |head| head.retained.clone()),
            record: Record::Open,
        }
    }

    /// The manifest that commits `record` right after `self` and retains the checkpoints from version
    /// `oldest` on, at least itself.
    pub(crate) fn next(&self, nonce: Nonce, record: CheckpointRecord, oldest: Version) -> Self {
        let version = self.version.next();
        let mut retained = self.retained.clone();
        retained.push(record.entry(version), oldest);
        Self {
            version,
            nonce,
            parent: self.nonce,
            epoch: self.epoch,
            max_parallelism: self.max_parallelism,
            retained,
            record: Record::Checkpoint(record),
        }
    }

    /// Lets what it does not find in manifests before it, of which `before` is the newest, travel in it. `all`
    /// are the retained checkpoints before it, if they are known.
    pub(super) fn carry(
        &mut self,
        before: &Self,
        all: Option<&VecDeque<Entry>>,
        inline: &mut Inline,
    ) -> Result<()> {
        if let Record::Checkpoint(record) = &mut self.record {
            let before = before.checkpoint().map(|before| &before.states);
            record.states.carry(before, self.retained.oldest(), self.version, inline)?;
            self.retained.compact(all, self.version, inline)?;
        }
        Ok(())
    }

    /// Reads the descriptions of the states, if an earlier manifest carries them.
    ///
    /// # Errors
    /// `Corrupt` or `MissingObject` naming that manifest; what the store answers.
    pub(crate) async fn fetch_states(&mut self, remote: &Remote) -> Result<()> {
        if let Record::Checkpoint(record) = &mut self.record {
            let states = record.states.fetch(remote).await?;
            record.states.fill(states);
        }
        Ok(())
    }

    /// Reads what the manifest, whose bytes these are, carries of its own states.
    pub(super) fn read_carried(&mut self, bytes: &[u8]) -> Result<()> {
        if let Record::Checkpoint(record) = &mut self.record
            && let Some(place) = record.states.place.clone().filter(|place| place.is_in(self.version))
        {
            record.states.fill(decode_states(place.of(bytes)?)?);
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> Option<&CheckpointRecord> {
        match &self.record {
            Record::Open => None,
            Record::Checkpoint(record) => Some(record),
        }
    }

    /// Every object that restoring this manifest's checkpoint needs. Manifests that carry a delta
    /// are among them, this one too where it carries one.
    pub(crate) fn references(&self) -> impl Iterator<Item = &ObjectName> {
        self.checkpoint().into_iter().flat_map(CheckpointRecord::references)
    }

    /// Checks all that can be checked without other objects. `inline` is where in the manifest's
    /// bytes the deltas lie that travel in it.
    pub(crate) fn validate(&self, inline: std::ops::Range<u64>) -> Result<()> {
        if self.version.0 == 0 || self.epoch.0 == 0 {
            return Err(Error::corrupt("versions and epochs count from 1"));
        }
        self.retained.validate(self.version, &inline)?;
        let newest = self.retained.newest().map(|newest| newest.checkpoint);
        match &self.record {
            Record::Open => {
                if self.epoch.0 != self.version.0 {
                    return Err(Error::corrupt("the epoch of an open record is its version"));
                }
                if newest.is_some_and(|newest| newest.version >= self.version) {
                    return Err(Error::corrupt("an open record retains what comes after it"));
                }
            }
            Record::Checkpoint(record) => {
                if self.epoch.0 >= self.version.0 || record.id.epoch != self.epoch {
                    return Err(Error::corrupt("the checkpoint does not belong to its epoch"));
                }
                if newest != Some(Retained { version: self.version, id: record.id }) {
                    return Err(Error::corrupt("a checkpoint does not retain itself"));
                }
                record.validate(self.max_parallelism)?;
                self.validate_carriers(record, inline)?;
            }
        }
        Ok(())
    }

    /// References to manifests point backwards, or to where inline deltas lie in this one.
    fn validate_carriers(&self, record: &CheckpointRecord, inline: std::ops::Range<u64>) -> Result<()> {
        record.states.place.iter().try_for_each(|place| place.validate(self.version, &inline))?;
        for (object, offset, length) in record.subtasks.iter().flat_map(SubtaskRecord::places) {
            let ObjectName::Manifest(carrier) = *object else { continue };
            let inside = offset >= inline.start && offset.saturating_add(length) <= inline.end;
            if carrier > self.version || (carrier == self.version && !inside) {
                return Err(Error::corrupt(format!(
                    "reference to {length} bytes at {offset} of {object}, which carries none there"
                )));
            }
        }
        Ok(())
    }

    /// Whether `next` may be committed right after `self`: nothing goes backwards. Only within an
    /// attempt, as a later one may start from any older checkpoint.
    pub(crate) fn may_precede(&self, next: &CheckpointRecord) -> Result<()> {
        let Some(last) = self.checkpoint().filter(|_| self.epoch == next.id.epoch) else { return Ok(()) };
        if next.id <= last.id {
            return Err(Error::internal(format!("checkpoint {} comes after {}", next.id, last.id)));
        }
        for record in &next.subtasks {
            let before = last.subtasks.iter().find(|before| before.subtask == record.subtask);
            // Another instance has a changelog of its own.
            let Some(before) = before.filter(|before| before.instance == record.instance) else { continue };
            let base = |record: &SubtaskRecord| record.base.as_ref().map_or(DeltaSeq(0), |base| base.seq);
            if record.seq < before.seq || base(record) < base(before) {
                return Err(Error::internal(format!(
                    "subtask {} goes back in checkpoint {}: cut {} after {}, base {} after {}",
                    record.subtask,
                    next.id,
                    record.seq,
                    before.seq,
                    base(record),
                    base(before),
                )));
            }
            if record.base.is_none() && record.origins != before.origins {
                return Err(Error::internal(format!(
                    "subtask {} loses its origins in checkpoint {} without a base of its own",
                    record.subtask, next.id
                )));
            }
        }
        Ok(())
    }
}

/// A place is in a data object or a manifest, not empty, and ends below 2^64.
fn place_is_sound(object: &ObjectName, offset: u64, length: u64) -> Result<()> {
    if !matches!(object, ObjectName::Data { .. } | ObjectName::Manifest(_)) {
        return Err(Error::corrupt(format!("{object} cannot hold data")));
    }
    if length == 0 || offset.checked_add(length).is_none() {
        return Err(Error::corrupt(format!("{length} bytes at {offset} of {object} is no place")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::samples::{base, checkpoint, data, delta, id, nonce, rich, subtask};
    use super::*;
    use crate::error::ErrorKind;
    use crate::key_group::KeyGroup;
    use crate::manifest::StateInfo;
    use crate::remote::DataKind;

    fn inline() -> std::ops::Range<u64> {
        28..28 + rich().1.len()
    }

    fn plain(list: &RetainedList, change: impl FnOnce(&mut Vec<Entry>)) -> RetainedList {
        let mut entries = list.tail().to_vec();
        change(&mut entries);
        RetainedList::plain(entries)
    }

    fn change(record: &CheckpointRecord, change: impl FnOnce(&mut Vec<StateInfo>)) -> Arc<[StateInfo]> {
        let mut states = record.states.known().unwrap().to_vec();
        change(&mut states);
        states.into()
    }

    #[test]
    fn a_sound_manifest_is_accepted() {
        rich().0.validate(inline()).unwrap();
    }

    #[test]
    fn every_rule_is_enforced() {
        type Break = fn(&mut Manifest, &mut CheckpointRecord);
        let breaks: &[(&str, Break)] = &[
            ("version 0", |manifest, _| manifest.version = Version(0)),
            ("epoch 0", |manifest, _| manifest.epoch = Epoch(0)),
            ("epoch not below version", |manifest, _| manifest.epoch = Epoch(9)),
            ("another epoch's id", |_, record| record.id.epoch = Epoch(4)),
            ("not itself", |manifest, _| {
                manifest.retained = plain(&manifest.retained, |entries| entries.truncate(2));
            }),
            ("another id of itself", |manifest, _| {
                manifest.retained = plain(&manifest.retained, |entries| entries[2].checkpoint.id = id(5, 4));
            }),
            ("retained twice", |manifest, _| {
                manifest.retained = plain(&manifest.retained, |entries| entries.insert(0, entries[0]));
            }),
            ("retained backwards", |manifest, _| {
                manifest.retained = plain(&manifest.retained, |entries| entries.swap(0, 1));
            }),
            ("gap", |_, record| drop(record.subtasks[0].deltas.remove(1))),
            ("gap after the base", |_, record| drop(record.subtasks[0].deltas.remove(0))),
            ("overlap", |_, record| record.subtasks[0].deltas[1].first = DeltaSeq(3)),
            ("no delta at the cut", |_, record| drop(record.subtasks[0].deltas.pop())),
            ("delta before the first", |_, record| record.subtasks[1].deltas[0].first = DeltaSeq(0)),
            ("empty sequence", |_, record| record.subtasks[0].deltas[2].last = DeltaSeq(4)),
            ("empty place", |_, record| record.subtasks[0].deltas[0].length = 0),
            ("place beyond 2^64", |_, record| record.subtasks[0].deltas[0].offset = u64::MAX),
            ("inline before the payload", |_, record| record.subtasks[0].deltas[2].offset = 27),
            ("inline beyond the payload", |_, record| record.subtasks[0].deltas[2].length = 2_400),
            ("later manifest", |_, record| {
                record.subtasks[0].deltas[1].object = ObjectName::manifest(Version(10));
            }),
            ("delta in a pin", |_, record| record.subtasks[0].deltas[1].object = ObjectName::pin(nonce(1))),
            ("base in a probe", |_, record| {
                record.subtasks[0].base.as_mut().unwrap().object = ObjectName::probe(Version(1), nonce(1));
            }),
            ("manifest as a file", |_, record| {
                record.subtasks[0].base.as_mut().unwrap().files.push(ObjectName::manifest(Version(1)));
            }),
            ("base in a later manifest", |_, record| {
                record.subtasks[0].base.as_mut().unwrap().object = ObjectName::manifest(Version(10));
            }),
            ("origins beside a base", |_, record| {
                record.subtasks[2].base = Some(base(4, 1, 9, vec![]));
            }),
            ("origins overlap", |_, record| record.subtasks[2].origins[1].owned.first = KeyGroup(99)),
            ("origins with a hole", |_, record| record.subtasks[2].origins[1].owned.first = KeyGroup(101)),
            ("origins end early", |_, record| record.subtasks[2].origins[1].owned.last = KeyGroup(126)),
            ("origin of groups not had", |_, record| {
                record.subtasks[2].origins[1].segments[0].range.first = KeyGroup(101);
            }),
            ("origin of nobody", |_, record| record.subtasks[2].origins[0].segments.clear()),
            ("gap in an origin", |_, record| {
                drop(record.subtasks[2].origins[1].segments[1].deltas.remove(0));
            }),
            ("gap after an origin's base", |_, record| {
                record.subtasks[2].origins[1].segments[0].after = DeltaSeq(3);
            }),
            ("segments backwards", |_, record| record.subtasks[2].origins[1].segments.swap(0, 1)),
            ("changelog before the origins", |_, record| {
                record.subtasks[2].origins[1].segments[1].seq.0 += 1;
            }),
            ("place in an origin", |_, record| {
                record.subtasks[2].origins[1].segments[0].deltas[0].length = 0;
            }),
            ("origin in this manifest", |_, record| {
                record.subtasks[2].origins[1].segments[0].deltas[0].object = ObjectName::manifest(Version(9));
            }),
            ("subtasks backwards", |_, record| record.subtasks.swap(0, 1)),
            ("subtask twice", |_, record| record.subtasks[1].subtask = SubtaskIndex(0)),
            ("ranges overlap", |_, record| record.subtasks[1].range.first = KeyGroup(63)),
            ("range backwards", |_, record| record.subtasks[1].range.first = KeyGroup(96)),
            ("range too high", |_, record| record.subtasks[0].range.last = KeyGroup(128)),
            ("reserved state", |_, record| {
                record.states.fill(change(record, |states| states[0].id = StateId::RESERVED));
            }),
            ("state twice", |_, record| {
                record.states.fill(change(record, |states| states.push(states[0].clone())));
            }),
        ];
        for (what, spoil) in breaks {
            let (mut manifest, _) = rich();
            let mut record = manifest.checkpoint().unwrap().clone();
            spoil(&mut manifest, &mut record);
            manifest.record = Record::Checkpoint(record);
            let error = manifest.validate(inline()).expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
        }
    }

    #[test]
    fn an_open_record_carries_the_retained_forward() {
        let (head, _) = rich();
        let open = Manifest::open(Version(10), nonce(1), Some(&head), head.max_parallelism);
        open.validate(28..28).unwrap();
        assert_eq!(open.retained, head.retained);
        assert_eq!((open.parent, open.epoch), (head.nonce, Epoch(10)));
        let wrong = Manifest { epoch: Epoch(9), ..open.clone() };
        assert!(wrong.validate(28..28).is_err());
        let later = Entry { checkpoint: Retained { version: Version(10), id: id(9, 1) }, facts: None };
        let wrong = Manifest { retained: RetainedList::plain(vec![later]), ..open };
        assert!(wrong.validate(28..28).is_err());
    }

    #[test]
    fn the_newest_are_retained_and_always_the_last() {
        let (head, _) = rich();
        let record = checkpoint(id(5, 4), vec![subtask(None, vec![])]);
        let versions = |oldest| {
            let next = head.next(nonce(1), record.clone(), Version(oldest));
            next.retained.tail().iter().map(|entry| entry.version().0).collect::<Vec<_>>()
        };
        assert_eq!(versions(11), [10]);
        assert_eq!(versions(10), [10]);
        assert_eq!(versions(8), [8, 9, 10]);
        assert_eq!(versions(5), [8, 9, 10]);
        assert_eq!(versions(0), [4, 8, 9, 10]);
    }

    #[test]
    fn references_name_all_that_a_restore_needs() {
        let (manifest, _) = rich();
        let names: BTreeSet<_> = manifest.references().cloned().collect();
        let wanted = [
            data(3, DataKind::Sst, 1),
            data(3, DataKind::Sst, 2),
            data(3, DataKind::Sst, 3),
            data(4, DataKind::Base, 10),
            data(4, DataKind::Pack, 11),
            data(5, DataKind::Delta, 300),
            data(2, DataKind::Sst, 4),
            data(2, DataKind::Base, 5),
            data(3, DataKind::Delta, 6),
            data(4, DataKind::Delta, 7),
            data(5, DataKind::Delta, 301),
            ObjectName::manifest(Version(2)),
            ObjectName::manifest(Version(8)),
            ObjectName::manifest(Version(9)),
        ];
        assert_eq!(names, BTreeSet::from(wanted));
    }

    #[test]
    fn what_travels_inline_moves_with_its_manifest() {
        let mut record = rich().0.checkpoint().unwrap().clone();
        record.relocate(Version(9), Version(12));
        let objects: Vec<_> = record.subtasks[0].deltas.iter().map(|delta| delta.object.clone()).collect();
        let earlier = ObjectName::manifest(Version(8));
        assert_eq!(objects, [data(4, DataKind::Pack, 11), earlier, ObjectName::manifest(Version(12))]);
    }

    #[test]
    fn nothing_goes_back_within_an_attempt() {
        let (head, _) = rich();
        let last = head.checkpoint().unwrap();
        let next = |change: fn(&mut CheckpointRecord)| {
            let mut record = CheckpointRecord { id: id(5, 4), ..last.clone() };
            change(&mut record);
            head.may_precede(&record)
        };
        next(|_| ()).unwrap();
        assert!(next(|record| record.id.number = 3).is_err());
        assert!(next(|record| record.subtasks[0].seq = DeltaSeq(4)).is_err());
        assert!(next(|record| record.subtasks[0].base = None).is_err());
        assert!(next(|record| record.subtasks[0].base = Some(base(4, 1, 1, vec![]))).is_err());
        assert!(next(|record| record.subtasks[2].origins.clear()).is_err());
        assert!(next(|record| record.subtasks[2].origins[0].segments[0].deltas.clear()).is_err());
        next(|record| {
            record.subtasks[2].origins.clear();
            record.subtasks[2].base = Some(base(5, 9, 9, vec![]));
        })
        .unwrap();
        // Another instance, or another attempt, starts where its restore says.
        next(|record| {
            record.subtasks[0].instance = nonce(8);
            record.subtasks[0].seq = DeltaSeq(1);
        })
        .unwrap();
        next(|record| {
            record.id = id(6, 1);
            record.subtasks[0] = subtask(None, vec![delta(data(6, DataKind::Delta, 1), 0, 1, 1, 1)]);
        })
        .unwrap();
    }
}
