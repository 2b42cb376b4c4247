//! Manifests for tests, here and in other modules.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::carried::States;
use super::elements::{Elements, Spread};
use super::inline::Inline;
use super::model::{CheckpointMode, CheckpointRecord, Manifest, OperatorRecord, Record, SubtaskRecord};
use super::origin::{Origin, Segment};
use super::references::{BaseRef, DeltaRef};
use super::retained::{Entry, Facts, Retained, RetainedList};
use super::state_info::{StateInfo, TtlInfo, ValueInfo};
use super::state_lists::StateLists;
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, OperatorId, StateId, SubtaskIndex, Version};
use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
use crate::remote::{DataKind, ObjectName};

pub(crate) fn nonce(byte: u8) -> Nonce {
    Nonce([byte; 16])
}

pub(crate) fn id(epoch: u64, number: u64) -> CheckpointId {
    CheckpointId { epoch: Epoch(epoch), number }
}

pub(crate) fn data(epoch: u64, kind: DataKind, n: u64) -> ObjectName {
    ObjectName::data(Epoch(epoch), SubtaskIndex(0), nonce(7), kind, n)
}

pub(crate) fn range(first: u16, last: u16) -> KeyGroupRange {
    KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) }
}

/// Deltas `first..=last` in `length` bytes.
pub(crate) fn delta(object: ObjectName, offset: u64, length: u64, first: u64, last: u64) -> DeltaRef {
    let (first, last) = (DeltaSeq(first), DeltaSeq(last));
    DeltaRef { object, offset, length, crc32c: 0xc0ff_ee00, first, last, entries: 3 }
}

pub(crate) fn base(epoch: u64, n: u64, seq: u64, files: Vec<ObjectName>) -> BaseRef {
    BaseRef {
        object: data(epoch, DataKind::Base, n),
        offset: 0,
        length: 400,
        crc32c: 0xbead,
        seq: DeltaSeq(seq),
        state_bytes: 1 << 30,
        files,
    }
}

/// Subtask 0, owner of all 128 key groups.
pub(crate) fn subtask(base: Option<BaseRef>, deltas: Vec<DeltaRef>) -> SubtaskRecord {
    let seq = deltas.last().map(|delta| delta.last).or(base.as_ref().map(|base| base.seq));
    SubtaskRecord {
        subtask: SubtaskIndex(0),
        range: range(0, 127),
        origins: Vec::new(),
        base,
        deltas,
        seq: seq.unwrap_or_default(),
        metadata: b"offset 17".to_vec(),
        elements: [].into(),
        instance: nonce(7),
    }
}

pub(crate) fn checkpoint(id: CheckpointId, subtasks: Vec<SubtaskRecord>) -> CheckpointRecord {
    CheckpointRecord {
        id,
        mode: CheckpointMode::Changelog,
        unix_millis: 1_700_000_000_000,
        metadata: b"coordinator".to_vec(),
        operators: Vec::new(),
        subtasks,
        states: States::new(StateLists::from(Arc::from([StateInfo {
            id: StateId::of("counts"),
            name: "counts".to_owned(),
            kind: 3,
            merge: 0,
            key: "u64".to_owned(),
            namespace: "(u64, u64)".to_owned(),
            map_key: "str".to_owned(),
            value: ValueInfo {
                codec: "postcard".to_owned(),
                type_name: "Count".to_owned(),
                type_is_named: true,
                schema: 2,
                oldest_schema: 1,
                shape: String::new(),
            },
            ttl: Some(TtlInfo { millis: 60_000, mode: 1 }),
        }]))),
    }
}

/// Key groups 96 to 99 of a subtask without a base, and 100 to 127 of one that was rescaled before it
/// had taken another.
fn origins() -> Vec<Origin> {
    let segment = |subtask, range, after, deltas: Vec<DeltaRef>| Segment {
        subtask: SubtaskIndex(subtask),
        range,
        after: DeltaSeq(after),
        seq: deltas.last().map_or(DeltaSeq(after), |delta| delta.last),
        deltas,
    };
    let carried = delta(ObjectName::manifest(Version(2)), 28, 40, 1, 2);
    let (old, newer) = (data(3, DataKind::Delta, 6), data(4, DataKind::Delta, 7));
    vec![
        Origin {
            owned: range(96, 99),
            base: None,
            segments: vec![segment(2, range(50, 99), 0, vec![carried])],
        },
        Origin {
            owned: range(100, 127),
            base: Some(base(2, 5, 4, vec![data(2, DataKind::Sst, 4)])),
            segments: vec![
                segment(1, range(64, 127), 4, vec![delta(old, 0, 80, 5, 6)]),
                segment(3, range(100, 127), 7, vec![delta(newer, 10, 90, 8, 9)]),
            ],
        },
    ]
}

pub(crate) fn entry(version: u64, id: CheckpointId) -> Entry {
    let facts = Some(Facts { unix_millis: 1_699_999_000_000, full_bytes: 1 << 20 });
    Entry { checkpoint: Retained { version: Version(version), id }, facts }
}

/// The first record of an attempt, with nothing retained.
pub(crate) fn open_record(version: u64) -> Manifest {
    Manifest::open(Version(version), nonce(1), None, MaxParallelism::default())
}

/// A checkpoint with everything in it: three subtasks, bases, deltas here, there and elsewhere, and a
/// subtask that was rescaled.
pub(crate) fn rich() -> (Manifest, Inline) {
    let version = Version(9);
    let here = ObjectName::manifest(version);
    let mut inline = Inline::new();
    let place = inline.push(Bytes::from_static(b"the bytes of delta five"));
    let files = (1..4).map(|n| data(3, DataKind::Sst, n)).collect();
    let first = SubtaskRecord {
        range: range(0, 63),
        ..subtask(
            Some(base(4, 10, 2, files)),
            vec![
                delta(data(4, DataKind::Pack, 11), 64, 1000, 3, 3),
                delta(ObjectName::manifest(Version(8)), 28, 10, 4, 4),
                delta(here, place, 23, 5, 5),
            ],
        )
    };
    let second = SubtaskRecord {
        subtask: SubtaskIndex(1),
        range: range(64, 95),
        metadata: Vec::new(),
        ..subtask(None, vec![delta(data(5, DataKind::Delta, 300), 0, 70_000, 1, 4)])
    };
    let third = SubtaskRecord {
        subtask: SubtaskIndex(2),
        range: range(96, 127),
        origins: origins(),
        ..subtask(None, vec![delta(data(5, DataKind::Delta, 301), 0, 70, 10, 10)])
    };
    let record = checkpoint(id(5, 3), vec![first, second, third]);
    let mut manifest = Manifest {
        version,
        nonce: nonce(0xaa),
        parent: nonce(0xbb),
        epoch: Epoch(5),
        max_parallelism: MaxParallelism::default(),
        retained: RetainedList::plain(vec![
            entry(4, id(1, 9)),
            Entry { facts: None, ..entry(8, id(5, 2)) },
            record.entry(version),
        ]),
        record: Record::Checkpoint(record),
    };
    manifest.carry(&open_record(5), None, &mut inline).unwrap();
    (manifest, inline)
}

pub(crate) fn operator(name: &str, groups: u16, subtasks: u32) -> OperatorRecord {
    let max_parallelism = MaxParallelism::new(groups).unwrap();
    OperatorRecord { id: OperatorId::new(name).unwrap(), max_parallelism, subtasks }
}

pub(crate) fn elements(name: &str, spread: Spread, items: &[&'static [u8]]) -> Elements {
    let items = items.iter().copied().map(Bytes::from_static).collect();
    Elements { state: StateId::of(name), spread, items }
}

/// A checkpoint of two operators, one with state that is not keyed. Both have a state of one name.
pub(crate) fn with_operators() -> (Manifest, Inline) {
    let version = Version(9);
    let mut inline = Inline::new();
    let place = inline.push(Bytes::from_static(b"the bytes of delta one"));
    let carried = delta(ObjectName::manifest(version), place, 22, 1, 1);
    let mut offsets =
        vec![elements("rules", Spread::Copy, &[b"a"]), elements("offsets", Spread::Deal, &[b"0:17", b""])];
    offsets.sort_by_key(|elements| elements.state);
    let first =
        SubtaskRecord { range: range(0, 63), elements: offsets.into(), ..subtask(None, vec![carried]) };
    let second = SubtaskRecord {
        subtask: SubtaskIndex(1),
        range: range(64, 127),
        elements: [elements("offsets", Spread::Deal, &[b"1:4"])].into(),
        ..subtask(Some(base(4, 10, 2, vec![data(3, DataKind::Sst, 1)])), Vec::new())
    };
    let third = SubtaskRecord { subtask: SubtaskIndex(2), range: range(0, 31), ..subtask(None, Vec::new()) };
    let mut record = checkpoint(id(5, 3), vec![first, second, third]);
    record.operators = vec![operator("clicks", 128, 2), operator("joins", 32, 1)];
    let list = record.states.known().unwrap().of(0);
    let other: Vec<_> = list.iter().map(|state| StateInfo { kind: 1, ..state.clone() }).collect();
    record.states = States::new(StateLists::new(vec![list, other.into()]));
    let mut manifest = Manifest {
        version,
        nonce: nonce(0xaa),
        parent: nonce(0xbb),
        epoch: Epoch(5),
        max_parallelism: MaxParallelism::default(),
        retained: RetainedList::plain(vec![record.entry(version)]),
        record: Record::Checkpoint(record),
    };
    manifest.carry(&open_record(5), None, &mut inline).unwrap();
    (manifest, inline)
}

/// Any valid manifest.
pub(crate) fn any_manifest() -> impl Strategy<Value = (Manifest, Inline)> {
    let ends = (any::<[u8; 16]>(), any::<[u8; 16]>(), 1..1000_u64, 1..=64_u16);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (ends, vec(any_subtask(), 0..4), vec(any::<u8>(), 0..40), flags).prop_map(
        |((nonce, parent, epoch, groups), parts, metadata, (native, open, named))| {
            let version = Version(if open { epoch } else { epoch + 7 });
            let max_parallelism = MaxParallelism::new(groups).unwrap();
            let earlier = (epoch > 1).then_some(entry(epoch - 1, id(epoch - 1, 5)));
            let mut inline = Inline::new();
            let record = if open {
                Record::Open
            } else {
                let count = parts.len().min(usize::from(groups)) as u32;
                // With names, one operator has all but the last subtask, another the last.
                let first = if named { count.saturating_sub(1) } else { count };
                let subtasks = (0..count).map(SubtaskIndex).zip(parts).map(|(index, part)| {
                    let range = match index.0.checked_sub(first) {
                        None => max_parallelism.range_of(index, first).unwrap(),
                        Some(_) => range(0, groups - 1),
                    };
                    let mut record = part.record(version, index, range, &mut inline);
                    if named {
                        record.elements = [elements("offsets", Spread::Deal, &[b"1", b""])].into();
                    }
                    record
                });
                let mut record = checkpoint(id(epoch, 3), subtasks.collect());
                if named {
                    let both = [operator("a", groups, first), operator("é", groups, count - first)];
                    record.operators = both.into_iter().filter(|operator| operator.subtasks > 0).collect();
                    let list = record.states.known().unwrap().of(0);
                    let lists = vec![list; record.operators.len().max(1)];
                    record.states = States::new(StateLists::new(lists));
                }
                record.metadata = metadata;
                if native {
                    record.mode = CheckpointMode::NativeIncremental;
                }
                Record::Checkpoint(record)
            };
            let itself = match &record {
                Record::Open => None,
                Record::Checkpoint(record) => Some(record.entry(version)),
            };
            let mut manifest = Manifest {
                version,
                nonce: Nonce(nonce),
                parent: Nonce(parent),
                epoch: Epoch(epoch),
                max_parallelism,
                retained: RetainedList::plain(earlier.into_iter().chain(itself).collect()),
                record,
            };
            manifest.carry(&open_record(epoch), None, &mut inline).unwrap();
            (manifest, inline)
        },
    )
}

#[derive(Debug, Clone)]
struct Part {
    /// Whether what would be the base and the first deltas are another subtask's.
    rescaled: bool,
    base: Option<(u64, u16)>,
    deltas: Vec<(Location, u64)>,
    metadata: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Location {
    Data(u64),
    Earlier(u64),
    Inline(Vec<u8>),
}

fn any_subtask() -> impl Strategy<Value = Part> {
    let place = prop_oneof![
        any::<u64>().prop_map(Location::Data),
        (1..7_u64).prop_map(Location::Earlier),
        vec(any::<u8>(), 1..50).prop_map(Location::Inline),
    ];
    let base = proptest::option::of((any::<u32>().prop_map(u64::from), 0..50_u16));
    (any::<bool>(), base, vec((place, 1..5_u64), 0..6), vec(any::<u8>(), 0..20))
        .prop_map(|(rescaled, base, deltas, metadata)| Part { rescaled, base, deltas, metadata })
}

impl Part {
    fn record(
        self,
        version: Version,
        index: SubtaskIndex,
        range: KeyGroupRange,
        inline: &mut Inline,
    ) -> SubtaskRecord {
        let base = self.base.map(|(seq, files)| {
            let files = (0..files).map(|n| data(u64::from(n % 3) + 1, DataKind::Sst, u64::from(n)));
            base(1, 99, seq, files.collect())
        });
        let mut end = base.as_ref().map_or(0, |base| base.seq.0);
        let deltas = self.deltas.into_iter().map(|(place, count)| {
            let first = end + 1;
            end += count;
            match place {
                Location::Data(n) => delta(data(1, DataKind::Delta, n), 5, 9, first, end),
                Location::Earlier(back) => {
                    delta(ObjectName::manifest(Version(version.0 - back)), 28, 9, first, end)
                }
                Location::Inline(bytes) => {
                    let length = bytes.len() as u64;
                    let offset = inline.push(bytes.into());
                    delta(ObjectName::manifest(version), offset, length, first, end)
                }
            }
        });
        let mut deltas: Vec<_> = deltas.collect();
        let (mut base, mut origins, mut seq) = (base, Vec::new(), DeltaSeq(end));
        if self.rescaled {
            // Origins lie in earlier manifests only.
            let here = ObjectName::manifest(version);
            let own = deltas.iter().position(|delta| delta.object == here).unwrap_or(deltas.len());
            let old: Vec<_> = deltas.drain(..own).collect();
            let after = base.as_ref().map_or(DeltaSeq(0), |base| base.seq);
            seq = old.last().map_or(after, |delta| delta.last);
            let segment = Segment { subtask: SubtaskIndex(9), range, after, deltas: old, seq };
            origins.push(Origin { owned: range, base: base.take(), segments: vec![segment] });
            seq = deltas.last().map_or(seq, |delta| delta.last);
        }
        SubtaskRecord {
            subtask: index,
            range,
            origins,
            seq,
            metadata: self.metadata,
            ..subtask(base, deltas)
        }
    }
}
