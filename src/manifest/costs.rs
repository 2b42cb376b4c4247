//! The cost of a manifest of a given shape, measured on made-up records, for benches and for the
//! tests that bound its size.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::carried::States;
use super::format;
use super::inline::Inline;
use super::model::{CheckpointMode, CheckpointRecord, Manifest, Record, SubtaskRecord};
use super::references::{BaseRef, DeltaRef};
use super::retained::{Entry, Facts, Retained, RetainedList};
use super::state_info::{StateInfo, ValueInfo};
use super::state_lists::StateLists;
use crate::env::{Env, NonceSource, SeededNonces, splitmix64};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, StateId, SubtaskIndex, Version};
use crate::key_group::MaxParallelism;
use crate::remote::{DataKind, ObjectName};

/// How large a made-up job is.
#[derive(Debug, Clone, Copy)]
pub struct ManifestShape {
    /// Its subtasks, 1 to 32,768.
    pub subtasks: u32,
    /// Files in the base of each subtask.
    pub files: u64,
    /// Deltas after the base of each subtask, each in an object of its own.
    pub deltas: u64,
    /// Named states.
    pub states: u32,
    /// Retained checkpoints.
    pub retained: u64,
}

/// The cost of the job's next checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct ManifestCosts {
    /// Size of the manifest.
    pub bytes: u64,
    /// Time to make the manifest from the records and encode it, the shortest of several.
    pub encode: Duration,
    /// Time to read it, the shortest of several.
    pub decode: Duration,
}

/// How often each time is taken.
const RUNS: usize = 7;

/// Measures the next checkpoint of a job of this shape, in which no states and files are new.
///
/// # Errors
/// `InvalidArgument` if no job can have this shape.
pub fn manifest_costs(shape: &ManifestShape) -> Result<ManifestCosts> {
    let clock = Env::default().clock;
    let (head, all) = head(shape)?;
    let record = record(shape, head.version.next().0)?;
    let (mut encode, mut decode) = (Duration::MAX, Duration::MAX);
    let mut bytes = 0;
    for _ in 0..RUNS {
        let record = record.clone();
        let start = clock.monotonic();
        let mut inline = Inline::new();
        let mut manifest = head.next(Nonce([2; 16]), record, Version(0));
        manifest.carry(&head, Some(&all), &mut inline)?;
        let encoded = format::encode(&manifest, &inline)?;
        encode = encode.min(clock.monotonic().saturating_sub(start));
        let start = clock.monotonic();
        let read = format::decode(&encoded)?;
        decode = decode.min(clock.monotonic().saturating_sub(start));
        if read != manifest {
            return Err(Error::internal("a manifest reads differently than it was written"));
        }
        bytes = encoded.len() as u64;
    }
    Ok(ManifestCosts { bytes, encode, decode })
}

/// The newest checkpoint with all that it retains.
fn head(shape: &ManifestShape) -> Result<(Manifest, VecDeque<Entry>)> {
    let (mut list, mut all) = (RetainedList::default(), VecDeque::new());
    let newest = Version(1 + shape.retained.max(1));
    for version in 2..newest.0 {
        let checkpoint = Retained { version: Version(version), id: id(version) };
        let facts =
            Facts { unix_millis: 1_700_000_000_000 + version * 1_003, full_bytes: splitmix64(version) >> 34 };
        let entry = Entry { checkpoint, facts: Some(facts) };
        list.push(entry, Version(0));
        all.push_back(entry);
        list.compact(Some(&all), Version(version), &mut Inline::new())?;
    }
    let groups = u16::try_from(shape.subtasks.max(128)).map_err(|_| Error::invalid("too many subtasks"))?;
    let before = Manifest {
        version: Version(newest.0 - 1),
        nonce: Nonce([1; 16]),
        parent: Nonce([1; 16]),
        epoch: Epoch(1),
        max_parallelism: MaxParallelism::new(groups)?,
        retained: list,
        record: Record::Open,
    };
    let mut head = before.next(Nonce([1; 16]), record(shape, newest.0)?, Version(0));
    head.carry(&before, Some(&all), &mut Inline::new())?;
    all.extend(head.retained.newest());
    Ok((head, all))
}

fn id(version: u64) -> CheckpointId {
    CheckpointId { epoch: Epoch(1), number: version }
}

/// The checkpoint of version `version`.
fn record(shape: &ManifestShape, version: u64) -> Result<CheckpointRecord> {
    let groups = u16::try_from(shape.subtasks.max(128)).map_err(|_| Error::invalid("too many subtasks"))?;
    let groups = MaxParallelism::new(groups)?;
    let nonces = SeededNonces::new(7);
    let subtasks = (0..shape.subtasks).map(|index| {
        let (subtask, instance) = (SubtaskIndex(index), nonces.nonce());
        let range = groups.range_of(subtask, shape.subtasks);
        let range = range.ok_or_else(|| Error::invalid("more subtasks than key groups"))?;
        let object = |kind, n| ObjectName::data(Epoch(1), subtask, instance, kind, n);
        let random = |salt: u64| splitmix64((u64::from(index) << 32) | salt);
        let base = BaseRef {
            object: object(DataKind::Base, 10_000),
            offset: 0,
            length: 9_000 + random(1) % 4_096,
            crc32c: random(2) as u32,
            seq: DeltaSeq(500),
            state_bytes: random(3) >> 30,
            // Compactions leave gaps.
            files: (0..shape.files).map(|n| object(DataKind::Sst, n * 3 + random(n) % 3)).collect(),
        };
        let deltas = (1..=shape.deltas).map(|n| DeltaRef {
            object: object(DataKind::Delta, 10_000 + n),
            offset: 0,
            length: 60_000 + random(n) % 20_000,
            crc32c: random(n << 8) as u32,
            first: DeltaSeq(500 + n),
            last: DeltaSeq(500 + n),
            entries: 500 + random(n) % 400,
        });
        Ok(SubtaskRecord {
            subtask,
            range,
            origins: Vec::new(),
            base: Some(base),
            deltas: deltas.collect(),
            seq: DeltaSeq(500 + shape.deltas),
            metadata: random(4).to_le_bytes().to_vec(),
            elements: Arc::default(),
            instance,
        })
    });
    Ok(CheckpointRecord {
        id: id(version),
        mode: CheckpointMode::Changelog,
        unix_millis: 1_700_000_000_000 + version * 1_003,
        metadata: Vec::new(),
        operators: Vec::new(),
        subtasks: subtasks.collect::<Result<_>>()?,
        states: States::new(StateLists::from((0..shape.states).map(described).collect::<Arc<[_]>>())),
    })
}

fn described(index: u32) -> StateInfo {
    let name = format!("state {index}");
    StateInfo {
        // Hashing the name could give two states one id.
        id: StateId(index + 1),
        name,
        kind: 1,
        merge: 0,
        key: "u64".to_owned(),
        namespace: String::new(),
        map_key: String::new(),
        value: ValueInfo {
            codec: "postcard".to_owned(),
            type_name: "program::Value".to_owned(),
            ..ValueInfo::default()
        },
        ttl: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: ManifestShape = ManifestShape { subtasks: 1, files: 4, deltas: 4, states: 1, retained: 1 };

    fn bytes(shape: ManifestShape) -> u64 {
        manifest_costs(&shape).unwrap().bytes
    }

    #[test]
    fn i5_a_manifest_does_not_grow_with_states_and_retained_checkpoints() {
        let small = bytes(SMALL);
        assert!(small < 300, "{small} bytes");
        let states = bytes(ManifestShape { states: 1_000, ..SMALL });
        assert!(states < small + 20, "{states} bytes with 1,000 states, {small} with one");
        for retained in [100, 1_000, 10_000] {
            let many = bytes(ManifestShape { retained, ..SMALL });
            assert!(many < small + 1_000, "{many} bytes with {retained} retained");
        }
    }

    #[test]
    fn i5_a_manifest_of_many_subtasks_stays_well_below_a_megabyte() {
        let shape = ManifestShape { subtasks: 1_000, files: 160, deltas: 20, states: 1_000, retained: 100 };
        let large = bytes(shape);
        assert!(large < 700_000, "{large} bytes");
        let fewer = bytes(ManifestShape { deltas: 4, ..shape });
        assert!(fewer < 350_000, "{fewer} bytes");
    }
}
