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

/// The same as the model keeps it: each value, element and entry with the time at which it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Slot {
    value: Option<(String, u64)>,
    list: Vec<(String, u64)>,
    map: BTreeMap<String, (String, u64)>,
    /// All inputs in order; so are those of `aggregating`.
    reducing: Option<(Vec<u64>, u64)>,
    aggregating: Option<(Vec<u64>, u64)>,
}

impl Slot {
    fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Value => self.value.is_some(),
            Kind::List => !self.list.is_empty(),
            Kind::Map => !self.map.is_empty(),
            Kind::Reducing => self.reducing.is_some(),
            Kind::Aggregating => self.aggregating.is_some(),
        }
    }

    fn apply(&mut self, change: &Change, now: u64) {
        let at_now = |elements: Vec<String>| elements.into_iter().map(move |element| (element, now));
        match change.clone() {
            Change::Put(value) => self.value = Some((value, now)),
            Change::Extend(elements) => self.list.extend(at_now(elements)),
            Change::Set(elements) => self.list = at_now(elements).collect(),
            Change::RetainLonger(length) => self.list.retain(|(element, _)| element.len() > length),
            Change::PutEntry(key, value) => _ = self.map.insert(key, (value, now)),
            Change::RemoveEntry(key) => _ = self.map.remove(&key),
            Change::Reduce(input) => append(&mut self.reducing, Some((vec![input], now)), now),
            Change::Aggregate(input) => append(&mut self.aggregating, Some((vec![input], now)), now),
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
            Kind::Reducing => taken.reducing = self.reducing.take(),
            Kind::Aggregating => taken.aggregating = self.aggregating.take(),
        }
        taken
    }

    /// Folds another namespace's in. What is folded from two is a write, what only moves is as old as it was.
    fn merge(&mut self, other: Self, now: u64) {
        if let Some((other, time)) = other.value {
            self.value = Some(match self.value.take() {
                Some((mine, _)) => (fold(mine, other), now),
                None => (other, time),
            });
        }
        self.list.extend(other.list);
        for (key, (value, time)) in other.map {
            let value = match self.map.remove(&key) {
                Some((mine, _)) => (fold(mine, value), now),
                None => (value, time),
            };
            self.map.insert(key, value);
        }
        for (mine, other) in
            [(&mut self.reducing, other.reducing), (&mut self.aggregating, other.aggregating)]
        {
            match mine {
                Some(_) => append(mine, other, now),
                None => *mine = other,
            }
        }
    }

    /// Removes what was written at `expired` or before.
    fn expire(&mut self, expired: u64) {
        self.value.take_if(|(_, time)| *time <= expired);
        self.list.retain(|(_, time)| *time > expired);
        self.map.retain(|_, (_, time)| *time > expired);
        self.reducing.take_if(|(_, time)| *time <= expired);
        self.aggregating.take_if(|(_, time)| *time <= expired);
    }

    fn seen(&self) -> Seen {
        Seen {
            value: self.value.clone().map(|(value, _)| value),
            list: self.list.iter().map(|(element, _)| element.clone()).collect(),
            map: self.map.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect(),
            reducing: self
                .reducing
                .as_ref()
                .map(|(inputs, _)| (*inputs.first().unwrap(), inputs.iter().sum(), *inputs.last().unwrap())),
            aggregating: self.aggregating.as_ref().map(|(inputs, _)| {
                let inputs: Vec<_> = inputs.iter().map(u64::to_string).collect();
                inputs.join(",")
            }),
        }
    }
}

/// Adds inputs, if there are any, which makes the whole young.
fn append(inputs: &mut Option<(Vec<u64>, u64)>, more: Option<(Vec<u64>, u64)>, now: u64) {
    if let Some((more, _)) = more {
        let (all, time) = inputs.get_or_insert_default();
        all.extend(more);
        *time = now;
    }
}

/// What merging makes of two values of a value or map state: their order shows in it.
pub(crate) fn fold(first: String, second: String) -> String {
    let mut both = first;
    // So that it does not grow without end.
    both.truncate(50);
    both + &second
}

/// A timer: in event time or not, and when; its key and its namespace. They fire in this order.
pub(crate) type Timer = (bool, i64, String, Window);

/// What a program has written: places without anything are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    slots: BTreeMap<Place, Slot>,
    timers: BTreeSet<Timer>,
}

impl Model {
    /// The part that has the keys that `owns` says true of.
    pub(crate) fn part(&self, owns: impl Fn(&str) -> bool) -> Self {
        let slots = self.slots.iter().filter(|(place, _)| owns(&place.key));
        let timers = self.timers.iter().filter(|(_, _, key, _)| owns(key));
        Self {
            slots: slots.map(|(place, slot)| (place.clone(), slot.clone())).collect(),
            timers: timers.cloned().collect(),
        }
    }

    /// Adds the part of another subtask.
    pub(crate) fn join(&mut self, part: Self) {
        self.slots.extend(part.slots);
        self.timers.extend(part.timers);
    }

    pub(crate) fn apply(&mut self, place: &Place, change: &Change, now: u64) {
        self.at(place, |slot| slot.apply(change, now));
    }

    /// Merges namespaces of a key in the state of one kind.
    pub(crate) fn merge(&mut self, kind: Kind, key: &str, into: Window, from: &[Window], now: u64) {
        let place = |window| Place { key: key.to_owned(), window: Some(window) };
        for window in from.iter().filter(|window| **window != into) {
            let taken = self.at(&place(*window), |slot| slot.take(kind));
            self.at(&place(into), |slot| slot.merge(taken, now));
        }
    }

    /// Removes what was written to states with namespaces at `expired` or before.
    pub(crate) fn expire(&mut self, expired: u64) {
        self.slots.retain(|place, slot| {
            if place.window.is_some() {
                slot.expire(expired);
            }
            *slot != Slot::default()
        });
    }

    pub(crate) fn register(&mut self, timer: Timer) {
        self.timers.insert(timer);
    }

    pub(crate) fn delete(&mut self, timer: &Timer) {
        self.timers.remove(timer);
    }

    /// The timers of a domain up to `time`, of the keys that `owns` says true of; they are removed.
    pub(crate) fn fire(&mut self, event: bool, time: i64, owns: impl Fn(&str) -> bool) -> Vec<Timer> {
        let is_due = |(domain, at, key, _): &Timer| *domain == event && *at <= time && owns(key);
        let (due, rest): (BTreeSet<_>, _) = std::mem::take(&mut self.timers).into_iter().partition(is_due);
        self.timers = rest;
        due.into_iter().collect()
    }

    /// The earliest timestamp of a domain.
    pub(crate) fn next_timestamp(&self, event: bool, owns: impl Fn(&str) -> bool) -> Option<i64> {
        let mut timers = self.timers.iter().filter(|(domain, _, key, _)| *domain == event && owns(key));
        timers.next().map(|(_, time, ..)| *time)
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
        owned.filter_map(|(place, slot)| Some((place.key.clone(), slot.seen().value?))).collect()
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
