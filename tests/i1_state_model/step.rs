//! The steps that a run is made of, and how they are drawn.

use std::ops::Bound;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::model::{Change, KINDS, Kind, MapRead, Place, Timer, Window};

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Change(Place, Change),
    /// Merges namespaces of a key.
    Merge {
        kind: Kind,
        key: String,
        into: Window,
        from: Vec<Window>,
    },
    /// Reads what all kinds have at a place.
    Read(Place),
    ReadMap(Place, MapRead),
    /// Lists the namespaces of a key.
    Windows(Kind, String),
    /// Lists all keys of a group, and with their namespaces.
    Keys(Kind, u16),
    /// Clears the state of each key of a group while they are listed.
    Sweep(Kind, u16),
    Register(Timer),
    Delete(Timer),
    /// Fires the timers of a domain up to a time, in all subtasks.
    Fire {
        event: bool,
        time: i64,
    },
    /// Time goes on, in milliseconds.
    Tick(u64),
    /// The next step of a checkpoint that goes on beside the others: trigger, the cut of one subtask, the
    /// end, or an abort, after which those that have not cut may still do so.
    Advance {
        subtask: usize,
        abort: bool,
        late: bool,
    },
    /// A whole checkpoint.
    Checkpoint,
    Materialize,
    Compact,
    Settle,
}

/// What steps choose from.
pub(crate) struct Pools {
    pub(crate) keys: Vec<String>,
    pub(crate) windows: Vec<Window>,
    map_keys: Vec<String>,
}

pub(crate) fn pick<'a, T>(rng: &mut StdRng, items: &'a [T]) -> &'a T {
    &items[rng.random_range(0..items.len())]
}

/// Strings with much in common, and with characters at both ends of the order.
fn strings(rng: &mut StdRng, count: usize) -> Vec<String> {
    let alphabet = ['\0', '\u{1}', 'a', 'b', '\u{10ffff}'];
    let word = |rng: &mut StdRng| (0..rng.random_range(0..5)).map(|_| *pick(rng, &alphabet)).collect();
    let mut strings: Vec<String> = (0..count).map(|_| word(rng)).collect();
    strings.sort();
    strings.dedup();
    strings
}

fn text(rng: &mut StdRng) -> String {
    let len = match rng.random_range(0..40) {
        0 => rng.random_range(3000..9000),
        1..5 => rng.random_range(50..300),
        _ => rng.random_range(0..20),
    };
    let letter = char::from(rng.random_range(b'a'..=b'z'));
    format!("{}{}", rng.next_u32(), letter.to_string().repeat(len))
}

impl Pools {
    pub(crate) fn new(rng: &mut StdRng) -> Self {
        let mut keys = strings(rng, 16);
        keys.extend((0..10).map(|n| format!("user/{n}")));
        let mut windows: Vec<Window> =
            (0..5).map(|_| (rng.random_range(-3..3), rng.random_range(-3..3))).collect();
        windows.push((i32::MIN, i32::MAX));
        windows.sort_unstable();
        windows.dedup();
        Self { keys, windows, map_keys: strings(rng, 20) }
    }

    pub(crate) fn draw(&self, rng: &mut StdRng, subtasks: usize, groups: u16) -> Step {
        let key = pick(rng, &self.keys).clone();
        let window = rng.random_bool(0.6).then(|| *pick(rng, &self.windows));
        let place = Place { key, window };
        let kind = *pick(rng, &KINDS);
        let group = rng.random_range(0..groups);
        match rng.random_range(0..1000) {
            0..530 => Step::Change(place, self.change(rng)),
            530..580 => Step::Register(self.timer(rng)),
            580..595 => Step::Delete(self.timer(rng)),
            595..610 => Step::Fire { event: rng.random(), time: rng.random_range(-60..100) },
            610..640 => Step::Tick(rng.random_range(1..50)),
            640..720 => {
                let from = (0..rng.random_range(0..4)).map(|_| *pick(rng, &self.windows)).collect();
                Step::Merge { kind, key: place.key, into: *pick(rng, &self.windows), from }
            }
            720..780 => Step::Read(place),
            780..840 => Step::ReadMap(place, self.map_read(rng)),
            840..860 => Step::Windows(kind, place.key),
            860..875 => Step::Keys(kind, group),
            875..880 => Step::Sweep(kind, group),
            880..950 => {
                let subtask = rng.random_range(0..subtasks);
                Step::Advance { subtask, abort: rng.random_ratio(1, 15), late: rng.random() }
            }
            950..970 => Step::Checkpoint,
            970..985 => Step::Materialize,
            985..990 => Step::Compact,
            _ => Step::Settle,
        }
    }

    fn change(&self, rng: &mut StdRng) -> Change {
        let input = rng.random_range(0..100);
        match rng.random_range(0..100) {
            0..15 => Change::Put(text(rng)),
            15..35 => Change::Extend((0..rng.random_range(0..3)).map(|_| text(rng)).collect()),
            35..39 => Change::Set((0..rng.random_range(0..3)).map(|_| text(rng)).collect()),
            39..42 => Change::RetainLonger(rng.random_range(0..40)),
            42..60 => Change::PutEntry(pick(rng, &self.map_keys).clone(), text(rng)),
            60..66 => Change::RemoveEntry(pick(rng, &self.map_keys).clone()),
            66..76 => Change::Reduce(input),
            76..86 => Change::Aggregate(input),
            _ => Change::Clear(*pick(rng, &KINDS)),
        }
    }

    fn timer(&self, rng: &mut StdRng) -> Timer {
        let time = rng.random_range(-100..100);
        (rng.random(), time, pick(rng, &self.keys).clone(), *pick(rng, &self.windows))
    }

    fn map_read(&self, rng: &mut StdRng) -> MapRead {
        let bound = |rng: &mut StdRng| {
            let key = pick(rng, &self.map_keys).clone();
            match rng.random_range(0..3) {
                0 => Bound::Included(key),
                1 => Bound::Excluded(key),
                _ => Bound::Unbounded,
            }
        };
        match rng.random_range(0..3) {
            0 => MapRead::Get(pick(rng, &self.map_keys).clone()),
            1 => {
                let mut prefix = pick(rng, &self.map_keys).clone();
                if rng.random_bool(0.5) {
                    prefix.pop();
                }
                MapRead::Prefix(prefix)
            }
            _ => MapRead::Range(bound(rng), bound(rng)),
        }
    }
}
