//! The reference workload: which key each record updates, and how.
//!
//! Every record follows from its number alone, so that another system can be measured on the very
//! same work, and so that the state after any prefix of the stream can be computed without a store
//! (see [`crate::expected`]). Nothing in here touches one.

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::str::FromStr;

use alluvium::{KeyGroup, MaxParallelism, SubtaskIndex};
use serde::{Deserialize, Serialize};

use crate::harness::random::splitmix64;
use crate::harness::zipf::Zipf;
use crate::result::WorkloadSpec;

/// Records of one subtask are numbered from `subtask · 2^SUBTASK_SHIFT`.
const SUBTASK_SHIFT: u32 = 40;

/// Bytes that one record appends to a list.
pub(crate) const APPEND_BYTES: usize = 16;

/// Every so manieth record of `append` clears its key's list instead.
const CLEAR_EVERY: u64 = 64;

/// What is done, on what. Everything that decides the stream, and nothing that does not: it rides in
/// each checkpoint's metadata, so that a later run goes on with the same stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Workload {
    /// Keys 0..keys, each 8 bytes big-endian.
    pub(crate) keys: u64,
    /// Bytes of a value (`append`: lists of 16 byte elements instead).
    pub(crate) value_bytes: usize,
    /// Parallel subtasks; a key belongs to the one that owns its key group.
    pub(crate) subtasks: u32,
    /// Number of key groups.
    pub(crate) max_parallelism: u16,
    pub(crate) operation: Operation,
    pub(crate) distribution: Distribution,
    /// 0 is the reference stream.
    pub(crate) seed: u64,
}

/// What one record does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// Read the old value and write one with its count plus one
    ReadModifyWrite,
    /// Write without reading
    Put,
    /// Append 16 bytes to the key's list; every 64th record clears the list instead
    Append,
    /// Write under (window, key); a window is as many records as the subtask has keys, and is deleted
    /// whole when the next one begins
    Window,
    /// 50 % reads, 45 % read-modify-writes, 5 % deletes
    Mixed,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadModifyWrite => "read-modify-write",
            Self::Put => "put",
            Self::Append => "append",
            Self::Window => "window",
            Self::Mixed => "mixed",
        })
    }
}

/// How often each key is hit. Written `uniform` or `zipf:0.99`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Distribution {
    Uniform,
    Zipf(f64),
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(exponent) => write!(f, "zipf:{exponent}"),
        }
    }
}

impl From<Distribution> for String {
    fn from(distribution: Distribution) -> Self {
        distribution.to_string()
    }
}

impl TryFrom<String> for Distribution {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "uniform" {
            return Ok(Self::Uniform);
        }
        text.strip_prefix("zipf:")
            .and_then(|exponent| exponent.parse().ok())
            .filter(|exponent: &f64| exponent.is_finite() && *exponent > 0.0 && *exponent <= 10.0)
            .map(Self::Zipf)
            .ok_or_else(|| "write uniform, or zipf:S with 0 < S <= 10, as in zipf:0.99".to_owned())
    }
}

impl Workload {
    /// Why this workload cannot be run, if so.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let groups = MaxParallelism::new(self.max_parallelism).map_err(|error| error.to_string())?;
        if self.keys == 0 || self.keys > u64::from(u32::MAX) {
            return Err(format!("--keys must be 1 to {}, not {}", u32::MAX, self.keys));
        }
        if self.value_bytes < 8 || self.value_bytes > 16 << 20 {
            return Err(format!(
                "--value-bytes must be 8 (a value begins with its count) to 16777216, not {}",
                self.value_bytes
            ));
        }
        if self.subtasks == 0 || self.subtasks > u32::from(groups.get()) {
            return Err(format!(
                "--subtasks must be 1 to {} (key groups), not {}",
                groups.get(),
                self.subtasks
            ));
        }
        Ok(())
    }

    /// As a result writes it.
    pub(crate) fn spec(&self) -> WorkloadSpec {
        WorkloadSpec {
            keys: self.keys,
            value_bytes: self.value_bytes as u64,
            subtasks: self.subtasks,
            max_parallelism: Some(self.max_parallelism.into()),
            operation: self.operation.to_string(),
            distribution: self.distribution.to_string(),
            seed: self.seed,
        }
    }

    /// The streams of all subtasks, in order.
    pub(crate) fn streams(&self) -> Result<Vec<Stream>, String> {
        self.validate()?;
        let all = MaxParallelism::new(self.max_parallelism).map_err(|error| error.to_string())?;
        let mut owner = vec![0_usize; usize::from(all.get())];
        let mut groups = vec![Vec::new(); self.subtasks as usize];
        for subtask in 0..self.subtasks {
            let range = all.range_of(SubtaskIndex(subtask), self.subtasks);
            for group in range.into_iter().flat_map(alluvium::KeyGroupRange::groups) {
                owner[usize::from(group.0)] = subtask as usize;
                groups[subtask as usize].push(group);
            }
        }
        let mut own = vec![Vec::new(); self.subtasks as usize];
        for key in 0..self.keys {
            let group = all.group_of(&key.to_be_bytes());
            // `validate` has seen to it that a key fits.
            own[owner[usize::from(group.0)]].push(key as u32);
        }
        let parts = own.into_iter().zip(groups).zip(0..);
        Ok(parts.map(|((own, groups), subtask)| Stream::new(self, subtask, own, groups)).collect())
    }
}

/// One subtask's endless stream of records.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    subtask: u32,
    operation: Operation,
    value_bytes: usize,
    max_parallelism: u16,
    /// The key groups that this subtask owns.
    groups: Vec<KeyGroup>,
    /// Zero for the reference stream.
    scramble: u64,
    zipf: Option<Zipf>,
    /// The keys that this subtask owns, ascending.
    own: Vec<u32>,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its number, unique over all subtasks.
    pub(crate) number: u64,
    /// Position of its key in [`Stream::own`].
    pub(crate) index: usize,
    pub(crate) action: Action,
}

/// What a record does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Write the old value's count plus one.
    Increment,
    /// Write a count of one.
    Put,
    Append,
    Read,
    /// Delete the value, or clear the list.
    Delete,
    /// Write a count of one under the key in a window; as the window's first record delete the window
    /// before it.
    PutInWindow {
        window: u64,
        first: bool,
    },
}

impl Stream {
    fn new(workload: &Workload, subtask: u32, own: Vec<u32>, groups: Vec<KeyGroup>) -> Self {
        let zipf = match workload.distribution {
            Distribution::Uniform => None,
            Distribution::Zipf(exponent) => Some(Zipf::new(own.len().max(1) as u64, exponent)),
        };
        Self {
            subtask,
            operation: workload.operation,
            value_bytes: workload.value_bytes,
            max_parallelism: workload.max_parallelism,
            groups,
            scramble: if workload.seed == 0 { 0 } else { splitmix64(workload.seed) },
            zipf,
            own,
        }
    }

    pub(crate) fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    pub(crate) fn operation(&self) -> Operation {
        self.operation
    }

    pub(crate) fn groups(&self) -> &[KeyGroup] {
        &self.groups
    }

    /// Number of keys, and of records in the load phase: the first records write each key once.
    pub(crate) fn own_keys(&self) -> u64 {
        self.own.len() as u64
    }

    pub(crate) fn key(&self, index: usize) -> u64 {
        u64::from(self.own[index])
    }

    /// Where `key` stands among the keys of this subtask.
    pub(crate) fn index_of(&self, key: u64) -> Option<usize> {
        u32::try_from(key).ok().and_then(|key| self.own.binary_search(&key).ok())
    }

    pub(crate) fn group_of(&self, key: u64) -> KeyGroup {
        match MaxParallelism::new(self.max_parallelism) {
            Ok(groups) => groups.group_of(&key.to_be_bytes()),
            Err(_) => unreachable!("Workload::validate has checked the number of groups"),
        }
    }

    /// The window that the last of `position` records belongs to; None if this workload has none.
    pub(crate) fn window_after(&self, position: u64) -> Option<u64> {
        let last = position.checked_sub(1).filter(|_| self.operation == Operation::Window)?;
        last.checked_div(self.own_keys())
    }

    /// The `position`-th record, counted from 0. The stream must own a key.
    pub(crate) fn record(&self, position: u64) -> Record {
        let number = (u64::from(self.subtask) << SUBTASK_SHIFT) + position;
        let keys = self.own_keys();
        let (window, first) = (position / keys, position.is_multiple_of(keys));
        if position < keys {
            let action = match self.operation {
                Operation::ReadModifyWrite | Operation::Mixed => Action::Increment,
                Operation::Put => Action::Put,
                Operation::Append => Action::Append,
                Operation::Window => Action::PutInWindow { window, first },
            };
            return Record { number, index: position as usize, action };
        }
        let draw = splitmix64(number ^ self.scramble);
        let index = match &self.zipf {
            None => draw % keys,
            // Ranks lie scattered, so that hot keys are not neighbours.
            Some(zipf) => splitmix64(zipf.draw(draw)) % keys,
        };
        let action = match self.operation {
            Operation::ReadModifyWrite => Action::Increment,
            Operation::Put => Action::Put,
            Operation::Append if position % CLEAR_EVERY == CLEAR_EVERY - 1 => Action::Delete,
            Operation::Append => Action::Append,
            Operation::Window => Action::PutInWindow { window, first },
            // A second draw: the first one has chosen the key.
            Operation::Mixed => match splitmix64(draw) % 100 {
                0..50 => Action::Read,
                50..95 => Action::Increment,
                _ => Action::Delete,
            },
        };
        Record { number, index: index as usize, action }
    }
}

/// The bytes of a key: big-endian, after its window if there are windows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyBytes {
    bytes: [u8; 16],
    from: usize,
}

impl KeyBytes {
    pub(crate) fn new(key: u64, window: Option<u64>) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&window.unwrap_or(0).to_be_bytes());
        bytes[8..].copy_from_slice(&key.to_be_bytes());
        Self { bytes, from: if window.is_some() { 0 } else { 8 } }
    }

    /// The key in `bytes`, if they are one of `window`.
    pub(crate) fn parse(bytes: &[u8], window: Option<u64>) -> Option<u64> {
        let key = match window {
            None => bytes,
            Some(window) => bytes.strip_prefix(window.to_be_bytes().as_slice())?,
        };
        Some(u64::from_be_bytes(key.try_into().ok()?))
    }
}

impl std::ops::Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

/// Writes into `value` what record `number` leaves under its key: the count, then bytes that do not
/// compress, `len` in all.
pub(crate) fn write_value(count: u64, number: u64, len: usize, value: &mut Vec<u8>) {
    value.clear();
    value.extend_from_slice(&count.to_le_bytes());
    fill(number, len, value);
}

/// Appends the element that record `number` adds to its list.
pub(crate) fn write_element(number: u64, value: &mut Vec<u8>) {
    fill(number, value.len() + APPEND_BYTES, value);
}

fn fill(number: u64, len: usize, value: &mut Vec<u8>) {
    let mut x = number;
    while value.len() < len {
        x = splitmix64(x);
        value.extend_from_slice(&x.to_le_bytes());
    }
    value.truncate(len);
}

/// The count that a value begins with; 0 where there is none.
pub(crate) fn count_of(value: Option<&[u8]>) -> u64 {
    value.and_then(|value| value.first_chunk()).map_or(0, |count| u64::from_le_bytes(*count))
}
