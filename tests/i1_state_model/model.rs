//! What typed state must hold, as plain collections.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};

/// A namespace: begin and end.
pub(crate) type Window = (i32, i32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Value,
    List,
    Map,
    Reducing,
    Aggregating,
}

pub(crate) const KINDS: [Kind; 5] = [Kind::Value, Kind::List, Kind::Map, Kind::Reducing, Kind::Aggregating];

/// A key in the states without namespaces, or in one namespace of those that have them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) key: String,
    pub(crate) window: Option<Window>,
}

/// A change at one place.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(String),
    Extend(Vec<String>),
    Set(Vec<String>),
    /// Keeps the elements that are longer.
    RetainLonger(usize),
    PutEntry(String, String),
    RemoveEntry(String),
    Reduce(u64),
    Aggregate(u64),
    Clear(Kind),
}

/// What is read of a map, but for all of it.
#[derive(Debug, Clone)]
pub(crate) enum MapRead {
    Get(String),
    Prefix(String),
    Range(Bound<String>, Bound<String>),
}

/// What one place has in the states of all kinds, as a program sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    pub(crate) value: Option<String>,
    pub(crate) list: Vec<String>,
    pub(crate) map: Vec<(String, String)>,
    /// The first input, the sum of all, and the last one.
    pub(crate) reducing: Option<(u64, u64, u64)>,
    /// All inputs, one after the other.
    pub(crate) aggregating: Option<String>,
}

/// The same as the model keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Slot {
    value: Option<String>,
    list: Vec<String>,
    map: BTreeMap<String, String>,
    /// All inputs in order; so are those of `aggregating`.
    reducing: Vec<u64>,
    aggregating: Vec<u64>,
}

impl Slot {
    fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Value => self.value.is_some(),
            Kind::List => !self.list.is_empty(),
            Kind::Map => !self.map.is_empty(),
            Kind::Reducing => !self.reducing.is_empty(),
            Kind::Aggregating => !self.aggregating.is_empty(),
        }
    }

    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Put(value) => self.value = Some(value),
            Change::Extend(elements) => self.list.extend(elements),
            Change::Set(elements) => self.list = elements,
            Change::RetainLonger(length) => self.list.retain(|element| element.len() > length),
            Change::PutEntry(key, value) => _ = self.map.insert(key, value),
            Change::RemoveEntry(key) => _ = self.map.remove(&key),
            Change::Reduce(input) => self.reducing.push(input),
            Change::Aggregate(input) => self.aggregating.push(input),
            Change::Clear(kind) => _ = self.take(kind),
        }
    }

    /// What there is of a kind, which is removed.
    fn take(&mut self, kind: Kind) -> Self {
        let mut taken = Self::default();
        match kind {
            Kind::Value => taken.value = self.value.take(),
            Kind::List => taken.list.append(&mut self.list),
            Kind::Map => taken.map.append(&mut self.map),
            Kind::Reducing => taken.reducing.append(&mut self.reducing),
            Kind::Aggregating => taken.aggregating.append(&mut self.aggregating),
        }
        taken
    }

    /// Folds another namespace's in.
    fn merge(&mut self, other: Self) {
        self.value = match (self.value.take(), other.value) {
            (Some(mine), Some(other)) => Some(fold(mine, other)),
            (mine, other) => mine.or(other),
        };
        self.list.extend(other.list);
        for (key, value) in other.map {
            let value = match self.map.remove(&key) {
                Some(mine) => fold(mine, value),
                None => value,
            };
            self.map.insert(key, value);
        }
        self.reducing.extend(other.reducing);
        self.aggregating.extend(other.aggregating);
    }

    fn seen(&self) -> Seen {
        let inputs: Vec<_> = self.aggregating.iter().map(u64::to_string).collect();
        Seen {
            value: self.value.clone(),
            list: self.list.clone(),
            map: self.map.clone().into_iter().collect(),
            reducing: match self.reducing[..] {
                [] => None,
                [first, .., last] => Some((first, self.reducing.iter().sum(), last)),
                [only] => Some((only, only, only)),
            },
            aggregating: (!inputs.is_empty()).then(|| inputs.join(",")),
        }
    }
}

/// What merging makes of two values of a value or map state: their order shows in it.
pub(crate) fn fold(first: String, second: String) -> String {
    let mut both = first;
    // So that it does not grow without end.
    both.truncate(50);
    both + &second
}

/// What a program has written: places without anything are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    slots: BTreeMap<Place, Slot>,
}

impl Model {
    /// The part that has the keys that `owns` says true of.
    pub(crate) fn part(&self, owns: impl Fn(&str) -> bool) -> Self {
        let owned = self.slots.iter().filter(|(place, _)| owns(&place.key));
        Self { slots: owned.map(|(place, slot)| (place.clone(), slot.clone())).collect() }
    }

    /// Adds the part of another subtask.
    pub(crate) fn join(&mut self, part: Self) {
        self.slots.extend(part.slots);
    }

    pub(crate) fn apply(&mut self, place: &Place, change: &Change) {
        self.at(place, |slot| slot.apply(change));
    }

    /// Merges namespaces of a key in the state of one kind.
    pub(crate) fn merge(&mut self, kind: Kind, key: &str, into: Window, from: &[Window]) {
        let place = |window| Place { key: key.to_owned(), window: Some(window) };
        for window in from.iter().filter(|window| **window != into) {
            let taken = self.at(&place(*window), |slot| slot.take(kind));
            self.at(&place(into), |slot| slot.merge(taken));
        }
    }

    fn at<R>(&mut self, place: &Place, change: impl FnOnce(&mut Slot) -> R) -> R {
        let slot = self.slots.entry(place.clone()).or_default();
        let result = change(slot);
        if *slot == Slot::default() {
            self.slots.remove(place);
        }
        result
    }

    pub(crate) fn seen(&self, place: &Place) -> Seen {
        self.slots.get(place).map(Slot::seen).unwrap_or_default()
    }

    pub(crate) fn map_read(&self, place: &Place, read: &MapRead) -> Vec<(String, String)> {
        let mut entries = self.seen(place).map;
        entries.retain(|(key, _)| match read {
            MapRead::Get(one) => key == one,
            MapRead::Prefix(prefix) => key.starts_with(prefix.as_str()),
            MapRead::Range(start, end) => (start.clone(), end.clone()).contains(key),
        });
        entries
    }

    /// The windows of a key in the state of one kind.
    pub(crate) fn windows(&self, kind: Kind, key: &str) -> Vec<Window> {
        let places = self.places(kind).filter(|place| place.key == key);
        places.filter_map(|place| place.window).collect()
    }

    /// The keys in the state of one kind without namespaces.
    pub(crate) fn keys(&self, kind: Kind, owns: impl Fn(&str) -> bool) -> Vec<String> {
        let places = self.places(kind).filter(|place| place.window.is_none() && owns(&place.key));
        places.map(|place| place.key.clone()).collect()
    }

    /// The keys in the value state without namespaces, and their values.
    pub(crate) fn values(&self, owns: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let owned = self.slots.iter().filter(|(place, _)| place.window.is_none() && owns(&place.key));
        owned.filter_map(|(place, slot)| Some((place.key.clone(), slot.value.clone()?))).collect()
    }

    /// The keys and namespaces in the state of one kind with namespaces.
    pub(crate) fn keys_and_windows(&self, kind: Kind, owns: impl Fn(&str) -> bool) -> Vec<(String, Window)> {
        let places = self.places(kind).filter(|place| owns(&place.key));
        places.filter_map(|place| Some((place.key.clone(), place.window?))).collect()
    }

    /// The keys in the state of one kind with namespaces.
    pub(crate) fn keys_with_windows(&self, kind: Kind, owns: impl Fn(&str) -> bool) -> Vec<String> {
        let keys: BTreeSet<_> = self.keys_and_windows(kind, owns).into_iter().map(|(key, _)| key).collect();
        keys.into_iter().collect()
    }

    fn places(&self, kind: Kind) -> impl Iterator<Item = &Place> {
        self.slots.iter().filter(move |(_, slot)| slot.has(kind)).map(|(place, _)| place)
    }
}
