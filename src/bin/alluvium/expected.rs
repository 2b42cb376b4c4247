//! The state after a prefix of the stream, computed without a store, and a store's state held against
//! it: every key, by a scan and by point reads.

use alluvium::KeyGroup;
use serde::Serialize;

use crate::backend::Operator;
use crate::failure::Result;
use crate::workload::{Action, Stream, write_element, write_value};

/// What must stand under every key of one subtask.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    stream: &'a Stream,
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
    /// After the first `position` records.
    pub(crate) fn after(stream: &'a Stream, position: u64) -> Self {
        let keys = stream.own_keys() as usize;
        let mut slots = if stream.appends() {
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
                (Slots::Values(slots), Action::Delete) => slots[record.index].0 = 0,
                (Slots::Lists(slots), Action::Append) => slots[record.index].push(record.number),
                (Slots::Lists(slots), Action::Delete) => slots[record.index].clear(),
                (Slots::Values(_), Action::Append) | (Slots::Lists(_), Action::Increment | Action::Put) => {
                    unreachable!("a workload holds values or lists, not both")
                }
            }
        }
        Self { stream, slots }
    }

    /// Writes into `value` what must stand under the key at `index`; false where there must be nothing.
    pub(crate) fn value(&self, index: usize, value: &mut Vec<u8>) -> bool {
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
    pub(crate) fn is_right(&self) -> bool {
        self.missing_keys == 0 && self.wrong_keys == 0 && self.extra_keys == 0
    }

    pub(crate) fn add(&mut self, other: Self) {
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
enum Seen {
    Not,
    Right,
    Wrong,
    Extra,
}

/// Compares what `operator` holds with the state after `position` records of `stream`. A key is
/// looked at twice, by a scan of its group and by a point read, because a layer may answer one of
/// them right and the other wrong.
pub(crate) fn verify<O: Operator>(
    operator: &O,
    groups: impl Iterator<Item = KeyGroup>,
    stream: &Stream,
    position: u64,
) -> Result<Verdict> {
    let expected = Expected::after(stream, position);
    let mut verdict = Verdict::default();
    let mut seen = vec![Seen::Not; stream.own_keys() as usize];
    let mut wanted = Vec::new();

    for group in groups {
        operator.scan(group, &mut |key, value| {
            let index =
                <[u8; 8]>::try_from(key).ok().and_then(|key| stream.index_of(u64::from_be_bytes(key)));
            match index {
                Some(index) if stream.group_of(key) == group && seen[index] == Seen::Not => {
                    seen[index] = match expected.value(index, &mut wanted) {
                        false => Seen::Extra,
                        true if wanted == value => Seen::Right,
                        true => Seen::Wrong,
                    };
                }
                // Not a key of this subtask, in a group that is not its own, or a second time.
                _ => {
                    verdict.extra_keys += 1;
                    verdict.example(|| format!("extra {key:02x?} in group {group}"));
                }
            }
        })?;
    }

    for (index, scanned) in seen.into_iter().enumerate() {
        let key = stream.key(index);
        let wanted = expected.value(index, &mut wanted).then_some(wanted.as_slice());
        let read =
            operator.read(stream.group_of(&key.to_be_bytes()), &key.to_be_bytes(), |value| {
                match (value, wanted) {
                    (None, _) => Seen::Not,
                    (Some(_), None) => Seen::Extra,
                    (Some(value), Some(wanted)) if value == wanted => Seen::Right,
                    (Some(_), Some(_)) => Seen::Wrong,
                }
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
        verdict.example(|| {
            let say = |seen| match seen {
                Seen::Not => "absent",
                Seen::Right => "right",
                Seen::Wrong => "wrong",
                Seen::Extra => "there",
            };
            format!("key {key}: by scan {}, by read {}", say(scanned), say(read))
        });
    }
    Ok(verdict)
}
