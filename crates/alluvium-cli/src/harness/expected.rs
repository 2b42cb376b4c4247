//! The state after a prefix of the stream, computed without a store, and a store's state held against
//! it: every key, by a scan and by point reads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use alluvium::KeyGroup;
use serde::Serialize;

use crate::failure::Result;
use crate::harness::backend::Operator;
use crate::harness::workload::{Action, KeyBytes, Operation, Stream, write_element, write_value};
use crate::signals::Interrupt;

/// What must stand under every key, whichever subtask holds it now.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    parts: Vec<SubtaskState<'a>>,
    /// The part that a key group belongs to.
    owner: Vec<usize>,
}

/// What one subtask of the run has left behind.
#[derive(Debug)]
struct SubtaskState<'a> {
    stream: &'a Stream,
    /// The window that is open, if the workload has windows.
    window: Option<u64>,
    slots: Slots,
}

#[derive(Debug)]
enum Slots {
    /// Count (0: absent) and number of the last record.
    Values(Vec<(u64, u64)>),
    /// Numbers of the records whose elements are in the list (none: absent).
    Lists(Vec<Vec<u64>>),
}

impl<'a> Expected<'a> {
    /// After the first `positions[s]` records of each stream s.
    pub(crate) fn after(streams: &'a [Stream], positions: &[u64]) -> Self {
        let parts = thread::scope(|scope| {
            let threads: Vec<_> = streams
                .iter()
                .zip(positions)
                .map(|(stream, position)| scope.spawn(move || SubtaskState::after(stream, *position)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let groups = streams.iter().flat_map(Stream::groups).map(|group| usize::from(group.0) + 1);
        let mut owner = vec![usize::MAX; groups.max().unwrap_or(0)];
        for (part, stream) in streams.iter().enumerate() {
            stream.groups().iter().for_each(|group| owner[usize::from(group.0)] = part);
        }
        Self { parts, owner }
    }

    /// The part, and the place in it, of a key as a store holds it. None for one that no record of the
    /// last window has written there.
    fn find(&self, group: KeyGroup, bytes: &[u8]) -> Option<(usize, usize)> {
        let part = *self.owner.get(usize::from(group.0))?;
        let SubtaskState { stream, window, .. } = self.parts.get(part)?;
        let key = KeyBytes::parse(bytes, *window)?;
        let index = stream.index_of(key)?;
        (stream.group_of(key) == group).then_some((part, index))
    }
}

impl<'a> SubtaskState<'a> {
    fn after(stream: &'a Stream, position: u64) -> Self {
        let keys = stream.own_keys() as usize;
        let mut slots = if stream.operation() == Operation::Append {
            Slots::Lists(vec![Vec::new(); keys])
        } else {
            Slots::Values(vec![(0, 0); keys])
        };
        for record in (0..position).map(|position| stream.record(position)) {
            match (&mut slots, record.action) {
                (_, Action::Read) => {}
                (Slots::Values(slots), Action::Increment) => {
                    let slot = &mut slots[record.index];
                    *slot = (slot.0 + 1, record.number);
                }
                (Slots::Values(slots), Action::Put) => slots[record.index] = (1, record.number),
                (Slots::Values(slots), Action::PutInWindow { first, .. }) => {
                    if first {
                        slots.fill((0, 0));
                    }
                    slots[record.index] = (1, record.number);
                }
                (Slots::Values(slots), Action::Delete) => slots[record.index].0 = 0,
                (Slots::Lists(slots), Action::Append) => slots[record.index].push(record.number),
                (Slots::Lists(slots), Action::Delete) => slots[record.index].clear(),
                (Slots::Values(_), Action::Append)
                | (Slots::Lists(_), Action::Increment | Action::Put | Action::PutInWindow { .. }) => {
                    unreachable!("a workload holds values or lists, not both")
                }
            }
        }
        Self { stream, window: stream.window_after(position), slots }
    }

    /// Writes into `value` what must stand under the key at `index`; false where there must be nothing.
    fn value(&self, index: usize, value: &mut Vec<u8>) -> bool {
        value.clear();
        match &self.slots {
            Slots::Values(slots) => {
                let (count, number) = slots[index];
                if count > 0 {
                    write_value(count, number, self.stream.value_bytes(), value);
                }
            }
            Slots::Lists(slots) => slots[index].iter().for_each(|number| write_element(*number, value)),
        }
        !value.is_empty()
    }
}

/// Keys that are not as they must be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// Keys that must be there.
    pub(crate) keys: u64,
    pub(crate) missing_keys: u64,
    pub(crate) wrong_keys: u64,
    pub(crate) extra_keys: u64,
    /// The first few, for the message.
    #[serde(skip)]
    pub(crate) examples: Vec<String>,
}

const EXAMPLES: usize = 5;

impl Verdict {
    #[cfg(test)]
    pub(crate) fn is_right(&self) -> bool {
        self.missing_keys == 0 && self.wrong_keys == 0 && self.extra_keys == 0
    }

    fn add(&mut self, other: Self) {
        self.keys += other.keys;
        self.missing_keys += other.missing_keys;
        self.wrong_keys += other.wrong_keys;
        self.extra_keys += other.extra_keys;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text());
        }
    }
}

/// How a key was found.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Seen {
    Not,
    Right,
    Wrong,
    Extra,
}

impl Seen {
    fn from(code: u8) -> Self {
        [Self::Not, Self::Right, Self::Wrong, Self::Extra]
            .into_iter()
            .find(|seen| *seen as u8 == code)
            .unwrap_or(Self::Not)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Not => "absent",
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Extra => "there",
        }
    }
}

/// Compares what the operators hold, each in its groups, with `expected`; their ranges need not be
/// those of the run that wrote the state. A key is looked at twice, by a scan of its group and by a
/// point read, because a layer may answer one of them right and the other wrong.
pub(crate) fn verify<O: Operator>(operators: &mut [O], expected: &Expected<'_>) -> Result<Verdict> {
    let seen: Vec<Vec<AtomicU8>> = expected
        .parts
        .iter()
        .map(|part| (0..part.stream.own_keys()).map(|_| AtomicU8::new(Seen::Not as u8)).collect())
        .collect();
    let verdict = Mutex::new(Ok(Verdict::default()));
    let mut owned = vec![false; expected.owner.len()];
    thread::scope(|scope| {
        for operator in operators {
            let groups = operator.groups();
            for group in &groups {
                if let Some(owned) = owned.get_mut(usize::from(group.0)) {
                    *owned = true;
                }
            }
            let (seen, verdict) = (&seen, &verdict);
            scope.spawn(move || {
                let found = verify_one(operator, &groups, expected, seen);
                let mut all = verdict.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match (&mut *all, found) {
                    (Ok(all), Ok(found)) => all.add(found),
                    (all @ Ok(_), Err(failure)) => *all = Err(failure),
                    (Err(_), _) => {}
                }
            });
        }
    });
    let mut verdict = verdict.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?;
    // Whole groups that nobody holds.
    let mut wanted = Vec::new();
    for part in &expected.parts {
        for index in 0..part.stream.own_keys() as usize {
            let key = part.stream.key(index);
            let group = part.stream.group_of(key);
            if !owned.get(usize::from(group.0)).copied().unwrap_or(false) && part.value(index, &mut wanted) {
                verdict.keys += 1;
                verdict.missing_keys += 1;
                verdict.example(|| format!("key {key}: nobody holds its group {group}"));
            }
        }
    }
    Ok(verdict)
}

fn verify_one<O: Operator>(
    operator: &O,
    groups: &[KeyGroup],
    expected: &Expected<'_>,
    seen: &[Vec<AtomicU8>],
) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut wanted = Vec::new();
    for group in groups {
        Interrupt.check()?;
        operator.scan(*group, &mut |key, value| {
            let place = expected
                .find(*group, key)
                .filter(|(part, index)| seen[*part][*index].load(Ordering::Relaxed) == Seen::Not as u8);
            match place {
                Some((part, index)) => {
                    let found = match expected.parts[part].value(index, &mut wanted) {
                        false => Seen::Extra,
                        true if wanted == value => Seen::Right,
                        true => Seen::Wrong,
                    };
                    seen[part][index].store(found as u8, Ordering::Relaxed);
                }
                // No key of the workload, in a group that is not its own, of a window that has ended, or a
                // second time.
                None => {
                    verdict.extra_keys += 1;
                    verdict.example(|| format!("extra {key:02x?} in group {group}"));
                }
            }
        })?;
    }

    for (part, seen) in expected.parts.iter().zip(seen) {
        let stream = part.stream;
        for (index, scanned) in seen.iter().enumerate() {
            let key = stream.key(index);
            let group = stream.group_of(key);
            if groups.binary_search(&group).is_err() {
                continue;
            }
            let scanned = Seen::from(scanned.load(Ordering::Relaxed));
            let wanted = part.value(index, &mut wanted).then_some(wanted.as_slice());
            let read =
                operator.read(group, &KeyBytes::new(key, part.window), |value| match (value, wanted) {
                    (None, _) => Seen::Not,
                    (Some(_), None) => Seen::Extra,
                    (Some(value), Some(wanted)) if value == wanted => Seen::Right,
                    (Some(_), Some(_)) => Seen::Wrong,
                })?;
            verdict.keys += u64::from(wanted.is_some());
            let as_it_must_be = if wanted.is_some() { Seen::Right } else { Seen::Not };
            // The scan's word is the worse one where the two differ.
            let found = if scanned == as_it_must_be { read } else { scanned };
            match found {
                _ if found == as_it_must_be => continue,
                Seen::Not => verdict.missing_keys += 1,
                Seen::Extra => verdict.extra_keys += 1,
                Seen::Right | Seen::Wrong => verdict.wrong_keys += 1,
            }
            verdict.example(|| format!("key {key}: by scan {}, by read {}", scanned.word(), read.word()));
        }
    }
    Ok(verdict)
}
