//! The oracle: a delta as a plain sorted map, by the rules of the algebra word for word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// One write of an operator.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Put(TableKind, Vec<u8>, Vec<u8>),
    Delete(TableKind, Vec<u8>),
    Append(TableKind, Vec<u8>, Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// An entry that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owned {
    Put(Vec<u8>),
    Delete,
    Append(Vec<u8>),
}

impl From<Entry<'_>> for Owned {
    fn from(entry: Entry<'_>) -> Self {
        match entry {
            Entry::Put(value) => Self::Put(value.to_vec()),
            Entry::Delete => Self::Delete,
            Entry::Merge { op: MergeOp::ListAppend, operand } => Self::Append(operand.to_vec()),
        }
    }
}

/// A delta over keys of three states in two key groups. Tombstones are kept as the set of the keys
/// out of [`all_keys`] that they cover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) points: BTreeMap<Vec<u8>, Owned>,
    pub(super) deleted: BTreeSet<Vec<u8>>,
}

impl Model {
    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Put(_, key, value) => {
                self.points.insert(key.clone(), Owned::Put(value.clone()));
            }
            Step::Delete(_, key) => {
                self.points.insert(key.clone(), Owned::Delete);
            }
            Step::Append(_, key, operand) => self.append(key, operand),
            Step::DeleteRange(start, end) => {
                let covers = |key: &Vec<u8>| start <= key && key < end;
                self.points.retain(|key, _| !covers(key));
                self.deleted.extend(all_keys().into_iter().filter(covers));
            }
        }
    }

    fn append(&mut self, key: &[u8], operand: &[u8]) {
        let entry = match self.points.get(key) {
            Some(Owned::Put(value)) => Owned::Put([value, operand].concat()),
            Some(Owned::Append(before)) => Owned::Append([before, operand].concat()),
            Some(Owned::Delete) => Owned::Put(operand.to_vec()),
            None if self.deleted.contains(key) => Owned::Put(operand.to_vec()),
            None => Owned::Append(operand.to_vec()),
        };
        self.points.insert(key.to_vec(), entry);
    }

    /// This delta followed by `newer`.
    pub(super) fn merge(&self, newer: &Self) -> Self {
        let mut merged = self.clone();
        merged.points.retain(|key, _| !newer.deleted.contains(key));
        merged.deleted.extend(newer.deleted.iter().cloned());
        for (key, entry) in &newer.points {
            match entry {
                Owned::Append(operand) => merged.append(key, operand),
                other => {
                    merged.points.insert(key.clone(), other.clone());
                }
            }
        }
        merged
    }

    /// What applying the delta makes of a table.
    pub(super) fn apply_to(&self, table: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        table.retain(|key, _| !self.deleted.contains(key));
        for (key, entry) in &self.points {
            match entry {
                Owned::Put(value) => {
                    table.insert(key.clone(), value.clone());
                }
                Owned::Delete => {
                    table.remove(key);
                }
                Owned::Append(operand) => table.entry(key.clone()).or_default().extend(operand),
            }
        }
    }
}

/// The model with these entries and tombstones.
pub(super) fn model_of<'a>(
    entries: impl Iterator<Item = (&'a [u8], Entry<'a>)>,
    tombstones: &RangeSet,
) -> Model {
    let listed: Vec<_> = entries.map(|(key, entry)| (key.to_vec(), Owned::from(entry))).collect();
    assert!(listed.is_sorted_by(|a, b| a.0 < b.0), "entries are sorted, one per key");
    let covered = |key: &Vec<u8>| tombstones.contains(key);
    Model { points: listed.into_iter().collect(), deleted: all_keys().into_iter().filter(covered).collect() }
}

/// Does `step` to the real thing.
pub(super) fn run(delta: &mut ActiveDelta, step: &Step) {
    match step {
        Step::Put(kind, key, value) => delta.put(*kind, key, value),
        Step::Delete(kind, key) => delta.delete(*kind, key),
        Step::Append(kind, key, operand) => delta.merge(*kind, MergeOp::ListAppend, key, operand),
        Step::DeleteRange(start, end) => delta.delete_range(start, end),
    }
}

const STATES: [(u32, TableKind); 3] = [(1, TableKind::Hash), (7, TableKind::Ordered), (300, TableKind::Hash)];

fn key(group: u16, state: u32, user: u8) -> Vec<u8> {
    let mut key = [&group.to_be_bytes()[..], &state.to_be_bytes()].concat();
    // Of different lengths, some a prefix of others.
    key.extend(std::iter::repeat_n(user / 4, 1 + usize::from(user % 4) * 3));
    key
}

/// Every key that a step can name.
pub(super) fn all_keys() -> Vec<Vec<u8>> {
    let ids = (5..=6).flat_map(|group| STATES.iter().map(move |(state, _)| (group, *state)));
    ids.flat_map(|(group, state)| (0..24).map(move |user| key(group, state, user))).collect()
}

fn keys() -> impl Strategy<Value = (TableKind, Vec<u8>)> {
    (5..=6_u16, prop::sample::select(STATES.to_vec()), 0..24_u8)
        .prop_map(|(group, (state, kind), user)| (kind, key(group, state, user)))
}

fn ranges() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    prop_oneof![
        // A prefix within a state, as delete_prefix makes them.
        3 => keys().prop_map(|(_, key)| {
            let end = crate::key::successor(&key).expect("keys do not end in 0xff alone");
            (key, end)
        }),
        2 => (keys(), keys()).prop_map(|((_, a), (_, b))| (a, b)),
        // A whole key group, and bounds that are no keys.
        1 => Just((vec![0, 5], vec![0, 6])),
        1 => (prop::collection::vec(0..8_u8, 0..8), prop::collection::vec(0..8_u8, 0..8)),
    ]
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 0..2000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

/// Up to `len` writes of an operator.
pub(super) fn steps(len: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (keys(), values()).prop_map(|((kind, key), value)| Step::Put(kind, key, value)),
        2 => keys().prop_map(|(kind, key)| Step::Delete(kind, key)),
        4 => (keys(), values()).prop_map(|((kind, key), value)| Step::Append(kind, key, value)),
        1 => ranges().prop_map(|(start, end)| Step::DeleteRange(start, end)),
    ];
    prop::collection::vec(step, 0..=len)
}

fn as_lookup<'a>(model: &'a Model, key: &[u8]) -> Lookup<'a> {
    match model.points.get(key) {
        Some(Owned::Put(value)) => Lookup::Value(value),
        Some(Owned::Delete) => Lookup::Deleted,
        Some(Owned::Append(operand)) => Lookup::Operand { op: MergeOp::ListAppend, operand },
        None if model.deleted.contains(key) => Lookup::Deleted,
        None => Lookup::Unknown,
    }
}

fn check_reads<'a>(
    model: &Model,
    get: impl Fn(&[u8]) -> Lookup<'a>,
    range: impl Iterator<Item = (&'a [u8], Entry<'a>)>,
    bounds: &(Vec<u8>, Vec<u8>),
) {
    for key in all_keys() {
        assert_eq!(get(&key), as_lookup(model, &key), "{key:?}");
    }
    let ranged: Vec<_> = range.map(|(key, entry)| (key.to_vec(), Owned::from(entry))).collect();
    let within = model.points.iter().filter(|(key, _)| bounds.0 <= **key && **key < bounds.1);
    assert_eq!(ranged, within.map(|(key, entry)| (key.clone(), entry.clone())).collect::<Vec<_>>());
}

/// What a delta that is written to goes through besides.
#[derive(Clone, Debug)]
enum Turn {
    Write(Vec<Step>),
    /// A scan begins.
    View,
    /// One of the scans ends.
    Forget(prop::sample::Index),
    Cut,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        6 => steps(12).prop_map(Turn::Write),
        3 => Just(Turn::View),
        3 => any::<prop::sample::Index>().prop_map(Turn::Forget),
        1 => Just(Turn::Cut),
    ];
    prop::collection::vec(turn, 0..40)
}

/// Tables that lie one above the other, the newest first, as one delta.
fn united<'a>(tables: impl IntoIterator<Item = &'a Pooled>) -> Model {
    let tables: Vec<_> = tables.into_iter().collect();
    tables.into_iter().rev().fold(Model::default(), |united, table| {
        let entries = table.range(&[], &[0xff]).map(|pos| table.point(pos));
        united.merge(&model_of(entries, table.tombstones()))
    })
}

proptest! {
    #[test]
    fn what_a_scan_holds_does_not_change_and_costs_the_delta_nothing(turns in turns()) {
        let (mut delta, mut model) = (ActiveDelta::new(), Model::default());
        let mut views: Vec<(Vec<Arc<Pooled>>, Model)> = Vec::new();
        for turn in turns {
            match turn {
                Turn::Write(steps) => for step in steps {
                    run(&mut delta, &step);
                    model.apply(&step);
                },
                Turn::View => {
                    let view: Option<Vec<_>> = delta.tables().map(|table| delta.view(table)).collect();
                    views.extend(view.map(|view| (view, model.clone())));
                }
                Turn::Forget(which) => if !views.is_empty() {
                    views.swap_remove(which.index(views.len()));
                },
                Turn::Cut => {
                    let mut cut = Model::default();
                    while !delta.is_empty() {
                        let frozen = delta.cut();
                        cut = cut.merge(&model_of(frozen.iter(), frozen.tombstones()));
                    }
                    prop_assert_eq!((&cut, delta.bytes()), (&model, 0));
                    model = Model::default();
                }
            }
            for (view, as_it_was) in &views {
                prop_assert_eq!(&united(view.iter().map(|table| &**table)), as_it_was);
            }
            let tables: Vec<_> = delta.tables().collect();
            prop_assert!(tables.len() <= 5);
            prop_assert_eq!(&united(tables), &model);
            for key in all_keys() {
                let lookups = std::iter::once(delta.newest(&key)).chain(delta.older().map(|table| table.get(&key)));
                let known = lookups.fold(Model::default(), |newer, lookup| {
                    let points = match lookup {
                        Lookup::Unknown => None,
                        Lookup::Value(value) => Some(Owned::Put(value.to_vec())),
                        Lookup::Deleted => Some(Owned::Delete),
                        Lookup::Operand { operand, .. } => Some(Owned::Append(operand.to_vec())),
                    };
                    let points = points.map(|entry| (key.clone(), entry)).into_iter().collect();
                    Model { points, ..Model::default() }.merge(&newer)
                });
                let mut expected = Model::default();
                expected.points.extend(model.points.get(&key).map(|entry| (key.clone(), entry.clone())));
                if expected.points.is_empty() && model.deleted.contains(&key) {
                    expected.points.insert(key.clone(), Owned::Delete);
                }
                prop_assert_eq!(known.points, expected.points);
            }
        }
        drop(views);
        run(&mut delta, &Step::Delete(TableKind::Hash, all_keys().swap_remove(0)));
        prop_assert_eq!(delta.tables().count(), 1, "nobody holds anything any more");
    }

    #[test]
    fn a_delta_behaves_as_the_model_over_many_cuts(
        rounds in prop::collection::vec((steps(80), ranges()), 1..4),
    ) {
        let mut delta = ActiveDelta::new();
        for (steps, bounds) in rounds {
            let mut model = Model::default();
            let mut bytes = delta.bytes();
            prop_assert_eq!(bytes, 0);
            for step in &steps {
                run(&mut delta, step);
                model.apply(step);
                if !matches!(step, Step::DeleteRange(..)) {
                    prop_assert!(delta.bytes() >= bytes, "bytes only shrink where points are removed");
                }
                bytes = delta.bytes();
            }
            prop_assert_eq!(delta.len(), model.points.len());
            prop_assert!(!delta.is_empty() || model == Model::default());
            let table = delta.tables().next().expect("there is always one");
            let range = table.range(&bounds.0, &bounds.1).map(|pos| table.point(pos));
            check_reads(&model, |key| table.get(key), range, &bounds);
            let frozen = delta.cut();
            check_reads(&model, |key| frozen.get(key), frozen.range(&bounds.0, &bounds.1), &bounds);
            prop_assert_eq!(&model_of(frozen.iter(), frozen.tombstones()), &model);
            // Once more, now that it is sorted.
            check_reads(&model, |key| frozen.get(key), frozen.range(&bounds.0, &bounds.1), &bounds);
            prop_assert_eq!((frozen.len(), frozen.bytes()), (model.points.len(), bytes));
        }
    }

    #[test]
    fn the_model_itself_is_an_algebra(a in steps(30), b in steps(30), c in steps(30)) {
        let model = |parts: &[&[Step]]| {
            let mut model = Model::default();
            parts.iter().for_each(|steps| steps.iter().for_each(|step| model.apply(step)));
            model
        };
        let (x, y, z) = (model(&[&a]), model(&[&b]), model(&[&c]));
        prop_assert_eq!(x.merge(&y).merge(&z), x.merge(&y.merge(&z)), "associative");
        let merged = x.merge(&y);
        prop_assert_eq!(&merged, &model(&[&a, &b]), "merging is writing one after the other");
        let mut table: BTreeMap<_, _> = all_keys().into_iter().step_by(3).map(|key| (key, b"base".to_vec())).collect();
        let mut at_once = table.clone();
        x.apply_to(&mut table);
        y.apply_to(&mut table);
        merged.apply_to(&mut at_once);
        prop_assert_eq!(table, at_once, "merged equals one by one");
    }
}
