//! Every rule of a manifest, broken once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::samples::{
    base, checkpoint, data, delta, elements, id, nonce, rich, subtask, with_operators,
};
use super::*;
use crate::error::ErrorKind;
use crate::ids::{StateId, SubtaskIndex};
use crate::key_group::KeyGroup;
use crate::manifest::{Elements, Spread, StateInfo, StateLists};
use crate::remote::DataKind;

fn inline() -> std::ops::Range<u64> {
    28..28 + rich().1.len()
}

fn plain(list: &RetainedList, change: impl FnOnce(&mut Vec<Entry>)) -> RetainedList {
    let mut entries = list.tail().to_vec();
    change(&mut entries);
    RetainedList::plain(entries)
}

fn change(record: &CheckpointRecord, change: impl FnOnce(&mut Vec<StateInfo>)) -> StateLists {
    let mut states = record.states.known().unwrap().of(0).to_vec();
    change(&mut states);
    StateLists::from(Arc::from(states))
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
fn every_rule_of_operators_is_enforced() {
    type Break = fn(&mut CheckpointRecord);
    fn set(record: &mut CheckpointRecord, elements: &[Elements]) {
        record.subtasks[2].elements = elements.into();
    }
    fn one() -> Elements {
        elements("a", Spread::Deal, &[b"1"])
    }
    let breaks: &[(&str, Break)] = &[
        ("one name twice", |record| record.operators[1].id = record.operators[0].id.clone()),
        ("no name", |record| record.operators[1].id = crate::ids::OperatorId::default()),
        ("fewer subtasks", |record| record.operators[0].subtasks = 1),
        ("more subtasks", |record| record.operators[1].subtasks = 2),
        ("more subtasks than can be counted", |record| record.operators[1].subtasks = u32::MAX),
        ("no subtask", |record| (record.operators[0].subtasks, record.operators[1].subtasks) = (3, 0)),
        ("an overlap within one", |record| record.subtasks[1].range.first = KeyGroup(63)),
        ("beyond its own max parallelism", |record| record.subtasks[2].range.last = KeyGroup(32)),
        ("an overlap without names", |record| record.operators.clear()),
        ("elements twice", |record| set(record, &[one(), one()])),
        ("elements of a reserved state", |record| {
            set(record, &[Elements { state: StateId::RESERVED, ..one() }]);
        }),
        ("no elements", |record| set(record, &[Elements { items: Vec::new(), ..one() }])),
        ("states of a third", |record| {
            let list = record.states.known().unwrap().of(0);
            record.states.fill(StateLists::new(vec![list; 3]));
        }),
        ("state twice", |record| {
            let mut states = record.states.known().unwrap().of(0).to_vec();
            states.push(states[0].clone());
            record.states.fill(StateLists::new(vec![Arc::default(), states.into()]));
        }),
    ];
    let (sound, inline) = with_operators();
    let inline = 28..28 + inline.len();
    sound.validate(inline.clone()).unwrap();
    for (what, spoil) in breaks {
        let mut record = sound.checkpoint().unwrap().clone();
        spoil(&mut record);
        let manifest = Manifest { record: Record::Checkpoint(record), ..sound.clone() };
        let error = manifest.validate(inline.clone()).expect_err(what);
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
    assert!(
        next(|record| record.operators.push(with_operators().0.checkpoint().unwrap().operators[0].clone()))
            .is_err()
    );
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
