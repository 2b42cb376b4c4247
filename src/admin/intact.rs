//! Checks that the objects of a checkpoint exist and are long enough. This needs a listing and the indexes of bases.
//! The content of other objects is checked when they are read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::StreamExt;

use super::PARALLEL_READS;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Version;
use crate::manifest::{BaseRef, CheckpointRecord, DeltaRef, Manifest, Origin};
use crate::materialize::{BaseIndex, FileLocation};
use crate::remote::{ObjectName, Remote};

/// What is wrong with the objects that checkpoints need.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Names of objects that are shorter than what refers to them says.
    pub(super) cut: BTreeSet<String>,
    /// What is wrong, by the version whose checkpoint it concerns.
    by_version: BTreeMap<Version, BTreeSet<String>>,
}

impl Damage {
    /// What is wrong with the checkpoint of a version; empty if it is intact.
    pub(super) fn of(&self, version: Version) -> Vec<String> {
        self.by_version.get(&version).into_iter().flatten().cloned().collect()
    }

    fn add(&mut self, version: Version, problem: String) {
        self.by_version.entry(version).or_default().insert(problem);
    }
}

/// A piece of an object whose bytes have a checksum of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    object: ObjectName,
    offset: u64,
    length: u64,
    crc32c: u32,
}

impl Piece {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Inspects the checkpoints of `manifests`. `sizes` is a listing of all objects, `damaged` are the versions of the
/// chain that cannot be read: what travels within them may still be sound.
///
/// # Errors
/// What the object store answers.
pub(super) async fn look(
    remote: &Remote,
    manifests: &[&Manifest],
    sizes: &BTreeMap<String, u64>,
    damaged: &[Version],
) -> Result<Damage> {
    let mut damage = Damage::default();
    let records = || manifests.iter().filter_map(|manifest| Some((manifest.version, manifest.checkpoint()?)));
    let damaged: BTreeSet<_> = damaged.iter().map(|version| ObjectName::manifest(*version)).collect();
    // Several checkpoints share most of what they need.
    let indexes: BTreeSet<_> = records().flat_map(|(_, record)| bases(record)).collect();
    let inline = records().flat_map(|(_, record)| deltas(record));
    let inline: BTreeSet<_> = inline.filter(|piece| damaged.contains(&piece.object)).collect();
    let there = |piece: &Piece| sizes.get(&piece.object.to_string()).is_some_and(|size| *size >= piece.end());
    let indexes = read_all(remote, indexes.into_iter().filter(there).collect()).await?;
    let indexes = indexes.into_iter().map(|(piece, bytes)| {
        let index =
            bytes.and_then(|bytes| BaseIndex::decode(&bytes).map_err(|error| error.object(&piece.object)));
        (piece, index)
    });
    let indexes: BTreeMap<_, _> = indexes.collect();
    // An index in a format of a later version is sound, but not for this version to judge.
    if let Some(Err(error)) = indexes.values().find(|index| matches!(index, Err(error) if !is_damage(error)))
    {
        return Err(error.clone());
    }
    let inline = read_all(remote, inline.into_iter().filter(there).collect()).await?;

    for (version, record) in records() {
        for (name, least) in needs(record, &indexes) {
            match sizes.get(&name) {
                None => damage.add(version, format!("{name} does not exist")),
                Some(size) if *size < least => {
                    damage.add(version, format!("{name} has {size} bytes of at least {least}"));
                    damage.cut.insert(name);
                }
                Some(_) => {}
            }
        }
        let unread_bases = bases(record).filter_map(|piece| indexes.get(&piece)?.as_ref().err());
        let unread_deltas = deltas(record).filter_map(|piece| inline.get(&piece)?.as_ref().err());
        for problem in unread_bases.chain(unread_deltas) {
            damage.add(version, problem.to_string());
        }
    }
    Ok(damage)
}

/// Every object that a restore of the checkpoint needs, with the least length that it must have.
fn needs(record: &CheckpointRecord, indexes: &BTreeMap<Piece, Result<BaseIndex>>) -> BTreeMap<String, u64> {
    let mut needs: BTreeMap<String, u64> = BTreeMap::new();
    let mut need = |object: &ObjectName, length: u64| {
        let least = needs.entry(object.to_string()).or_default();
        *least = length.max(*least);
    };
    record.references().for_each(|object| need(object, 0));
    for piece in bases(record).chain(deltas(record)) {
        need(&piece.object, piece.end());
        let Some(Ok(index)) = indexes.get(&piece) else { continue };
        for file in &index.files {
            if let FileLocation::Object(object) = &file.location {
                need(object, file.id.size);
            }
        }
    }
    needs
}

/// Reads pieces side by side. What is wrong with one is kept; what the store refuses ends the look.
async fn read_all(remote: &Remote, pieces: Vec<Piece>) -> Result<BTreeMap<Piece, Result<Bytes>>> {
    let reads: Vec<_> = pieces.into_iter().map(|piece| read(remote, piece)).collect();
    let mut reads = futures::stream::iter(reads).buffered(PARALLEL_READS);
    let mut done = BTreeMap::new();
    while let Some((piece, outcome)) = reads.next().await {
        match outcome {
            Err(error) if !is_damage(&error) => return Err(error),
            outcome => drop(done.insert(piece, outcome)),
        }
    }
    Ok(done)
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::MissingObject)
}

async fn read(remote: &Remote, piece: Piece) -> (Piece, Result<Bytes>) {
    let bytes = remote.get_range(&piece.object, piece.offset..piece.end()).await;
    let bytes = bytes.and_then(|bytes| match crc32c::crc32c(&bytes) == piece.crc32c {
        true => Ok(bytes),
        false => Err(Error::corrupt("checksum does not match").object(&piece.object)),
    });
    (piece, bytes)
}

/// The indexes of its bases.
fn bases(record: &CheckpointRecord) -> impl Iterator<Item = Piece> {
    let bases = record.subtasks.iter().flat_map(|subtask| {
        subtask.origins.iter().filter_map(|origin| origin.base.as_ref()).chain(&subtask.base)
    });
    bases.map(|BaseRef { object, offset, length, crc32c, .. }| Piece {
        object: object.clone(),
        offset: *offset,
        length: *length,
        crc32c: *crc32c,
    })
}

fn deltas(record: &CheckpointRecord) -> impl Iterator<Item = Piece> {
    let deltas = record.subtasks.iter().flat_map(|subtask| {
        subtask.origins.iter().flat_map(Origin::deltas).map(|(_, delta)| delta).chain(&subtask.deltas)
    });
    deltas.map(|DeltaRef { object, offset, length, crc32c, .. }| Piece {
        object: object.clone(),
        offset: *offset,
        length: *length,
        crc32c: *crc32c,
    })
}
