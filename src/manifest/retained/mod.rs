//! The list of checkpoints that can be restored, as manifests store it: by difference, so that
//! neither a manifest nor a commit grows with its length.
//!
//! A manifest names the last few. Each [`FANOUT`] of them move into a *chunk*, which the next
//! manifest carries, and each `FANOUT` chunks of one level become one of the next. An entry is thus
//! written once per level, and a manifest refers to fewer than `FANOUT` chunks of each level.
//! Retention drops from the old end: a number in the manifest says from where on entries count.
//!
//! The manifest that carries a chunk is a checkpoint later than all in the chunk. It is itself
//! retained as long as any of them, so chunks keep nothing alive.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

mod chunk;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::carried::Carried;
use super::inline::Inline;
use super::varint::{Reader, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, Version};
use crate::remote::Remote;

use chunk::{CHUNK, Chunk, read_entries, write_entries};

/// Entries of a chunk of the lowest level, and chunks of one level that become one of the next.
const FANOUT: usize = 16;

/// Chunks read at the same time.
const PARALLEL_READS: usize = 16;

/// A checkpoint that can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Retained {
    pub version: Version,
    pub id: CheckpointId,
}

/// What is said of a retained checkpoint without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// When it was committed.
    pub unix_millis: u64,
    /// What a restore has to read.
    pub full_bytes: u64,
}

/// An entry of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub checkpoint: Retained,
    /// Manifests of format 1 do not say it.
    pub facts: Option<Facts>,
}

impl Entry {
    pub(crate) fn version(&self) -> Version {
        self.checkpoint.version
    }
}

/// The retained checkpoints as a manifest says them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RetainedList {
    /// Entries before are no longer retained.
    oldest: Version,
    /// Oldest first; levels do not rise.
    chunks: Vec<Chunk>,
    /// What came after the chunks. Has the newest, where there is one.
    tail: Vec<Entry>,
}

impl RetainedList {
    /// A list in which nothing is referred to: that of a manifest of format 1.
    pub(super) fn plain(entries: Vec<Entry>) -> Self {
        let oldest = entries.first().map_or(Version(0), Entry::version);
        Self { oldest, chunks: Vec::new(), tail: entries }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    #[cfg(test)]
    pub(super) fn tail(&self) -> &[Entry] {
        &self.tail
    }

    pub(crate) fn newest(&self) -> Option<Entry> {
        self.tail.last().copied()
    }

    /// Entries before this one are no longer retained.
    pub(crate) fn oldest(&self) -> Version {
        self.oldest
    }

    /// Whether a checkpoint that an earlier manifest of the chain retained still is: lists go on at their
    /// end, and lose from their beginning.
    pub(crate) fn keeps(&self, earlier: Retained) -> bool {
        !self.is_empty() && earlier.version >= self.oldest
    }

    /// All entries, oldest first.
    ///
    /// # Errors
    /// `MissingObject` if what carries a part is gone, which it is once this list is no longer the newest;
    /// `Corrupt` and the like naming the manifest.
    pub(crate) async fn fetch(&self, remote: &Remote) -> Result<Vec<Entry>> {
        let chunks: Vec<_> = self.chunks.iter().map(|chunk| chunk.fetch(remote)).collect();
        let chunks: Vec<_> = stream::iter(chunks).buffered(PARALLEL_READS).try_collect().await?;
        let all = chunks.into_iter().flatten().chain(self.tail.iter().copied());
        Ok(all.filter(|entry| entry.version() >= self.oldest).collect())
    }

    /// As [`fetch`](Self::fetch), for a caller that only looks: damaged parts are left out.
    pub(crate) async fn fetch_readable(&self, remote: &Remote) -> Result<Vec<Entry>> {
        match self.fetch(remote).await {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
                self.fetch_intact(remote).await.map(|(entries, _)| entries)
            }
            list => list,
        }
    }

    /// As [`fetch`](Self::fetch), without the parts that are damaged or gone, and where the last of these ends.
    pub(super) async fn fetch_intact(&self, remote: &Remote) -> Result<(Vec<Entry>, Option<Version>)> {
        let (mut all, mut gaps) = (Vec::new(), None);
        for chunk in &self.chunks {
            match chunk.fetch(remote).await {
                Ok(entries) => all.extend(entries),
                Err(error) if is_lasting(&error) => gaps = Some(chunk.last),
                Err(error) => return Err(error),
            }
        }
        all.extend(&self.tail);
        all.retain(|entry| entry.version() >= self.oldest);
        Ok((all, gaps))
    }

    /// Adds a checkpoint at the end, and drops those before `oldest`.
    pub(super) fn push(&mut self, entry: Entry, oldest: Version) {
        self.tail.push(entry);
        self.oldest = oldest.min(entry.version());
        self.chunks.retain(|chunk| chunk.last >= self.oldest);
        self.tail.retain(|entry| entry.version() >= self.oldest);
    }

    /// Moves what has gathered into a chunk that manifest `carrier`, the newest, carries. `all` are the entries
    /// so far, which a chunk is made of that takes in others; without them none does.
    pub(super) fn compact(
        &mut self,
        all: Option<&VecDeque<Entry>>,
        carrier: Version,
        inline: &mut Inline,
    ) -> Result<()> {
        if self.tail.len() <= FANOUT {
            return Ok(());
        }
        let Some(newest) = self.tail.pop() else { return Ok(()) };
        let mut entries = std::mem::replace(&mut self.tail, vec![newest]);
        let mut level = entries.len().checked_ilog(FANOUT).map_or(0, |level| level.saturating_sub(1)) as u8;
        if let Some(all) = all {
            let before = self.chunks.len();
            while self.absorb(&mut level) {}
            if self.chunks.len() < before {
                let after = self.chunks.last().map_or(Version(0), |chunk| chunk.last);
                let gone = |entry: &Entry| entry.version() <= after || entry.version() < self.oldest;
                let first = entries.first().map(Entry::version);
                let older = all.range(all.partition_point(gone)..);
                let older = older.take_while(|entry| Some(entry.version()) < first);
                entries = older.chain(&entries).copied().collect();
            }
        }
        let Some(last) = entries.last().map(Entry::version) else { return Ok(()) };
        let mut out = Writer(vec![CHUNK]);
        write_entries(&entries, &mut out);
        self.chunks.push(Chunk { place: Carried::push(out.0, carrier, inline), level, last });
        Ok(())
    }

    /// Takes away chunks that a new one of `level` takes in, and raises the level if they were enough.
    fn absorb(&mut self, level: &mut u8) -> bool {
        let trailing = |matches: &dyn Fn(u8) -> bool| {
            self.chunks.iter().rev().take_while(|chunk| matches(chunk.level)).count()
        };
        let (smaller, same) = (trailing(&|other| other < *level), trailing(&|other| other == *level));
        let taken = if smaller > 0 {
            smaller
        } else if same + 1 >= FANOUT {
            *level = level.saturating_add(1);
            same
        } else {
            0
        };
        self.chunks.truncate(self.chunks.len() - taken);
        taken > 0
    }

    pub(super) fn validate(&self, version: Version, inline: &Range<u64>) -> Result<()> {
        if !self.tail.is_sorted_by(|a, b| a.version() < b.version() && a.checkpoint.id < b.checkpoint.id) {
            return Err(Error::corrupt("retained checkpoints are not in ascending order"));
        }
        if self.tail.is_empty() && !self.chunks.is_empty() {
            return Err(Error::corrupt("the newest retained checkpoint is missing"));
        }
        for chunk in &self.chunks {
            chunk.place.validate(version, inline)?;
        }
        let ends = self.chunks.iter().map(|chunk| chunk.last);
        let ends = ends.chain(self.tail.first().map(Entry::version));
        if !ends.is_sorted_by(|a, b| a < b) {
            return Err(Error::corrupt(
                "parts of the list of retained checkpoints are not in ascending order",
            ));
        }
        if self.tail.first().is_some_and(|first| first.version() < self.oldest) || self.oldest > version {
            return Err(Error::corrupt("checkpoints are named that are no longer retained"));
        }
        Ok(())
    }

    /// As it stands in manifest `version`.
    pub(super) fn write(&self, version: Version, out: &mut Writer) -> Result<()> {
        out.back(self.oldest.0, version.0);
        out.count(self.chunks.len());
        for Chunk { place, level, last } in &self.chunks {
            place.write(version, out)?;
            out.byte(*level);
            out.back(last.0, version.0);
        }
        write_entries(&self.tail, out);
        Ok(())
    }

    pub(super) fn read(version: Version, input: &mut Reader<'_>) -> Result<Self> {
        let oldest = Version(input.back(version.0)?);
        let chunks = input.list(|input| {
            let place = Carried::read(version, input)?;
            Ok(Chunk { place, level: input.byte()?, last: Version(input.back(version.0)?) })
        })?;
        Ok(Self { oldest, chunks, tail: read_entries(input)? })
    }
}

/// Whether what cannot be read will not be read another time.
pub(super) fn is_lasting(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::MissingObject | ErrorKind::UnsupportedVersion)
}
