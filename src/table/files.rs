//! [`TableFiles`]: the files of a table as of one delta, with the checksums that RocksDB gave them.
//!
//! RocksDB computes a file's checksum from the bytes in its memory while it writes them, and keeps
//! it in its MANIFEST. A file that is read back later can therefore be compared with what was
//! written (I4). A base that is built from files without that comparison would carry the rot of a
//! disk into the object store, in place of the deltas that could still rebuild the state.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rocksdb::DB;

use super::error;
use super::ffi::{self, StorageFile};
use super::log_format;
use super::rocks::Table;
use crate::error::{Error, Result};

/// A directory of links to a table's files, made by [`Table::checkpoint`].
#[derive(Debug, Clone)]
pub(crate) struct TableFiles {
    pub(crate) dir: PathBuf,
    /// Where the table itself lies: what a person is told of.
    table: PathBuf,
    /// CRC32C of the whole of each SST file as it was written.
    checksums: HashMap<String, u32>,
}

impl TableFiles {
    /// Whether the SST file `name` was written with this checksum. One that RocksDB knows no
    /// checksum of is not intact as far as anybody can tell.
    pub(crate) fn is_intact(&self, name: &str, crc32c: u32) -> bool {
        self.checksums.get(name) == Some(&crc32c)
    }

    /// Checks a file other than an SST by its own content, where it is one that a restore reads.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn check_other(&self, name: &str, content: &[u8]) -> Result<()> {
        let intact = if name.starts_with("MANIFEST-") {
            log_format::is_intact(content)
        } else if name == "CURRENT" {
            let named = content.strip_suffix(b"\n").and_then(|named| std::str::from_utf8(named).ok());
            named.is_some_and(|named| named.starts_with("MANIFEST-") && self.dir.join(named).is_file())
        } else {
            true
        };
        if intact { Ok(()) } else { Err(self.damaged(name)) }
    }

    /// The error for a file whose content is not what was written.
    pub(crate) fn damaged(&self, name: &str) -> Error {
        Error::corrupt("a file of the local table is not what was written to it")
            .object(self.table.join(name).display())
            .advise(
                "check the disk, and open the job again: its state is then restored from the last checkpoint, \
                 whose base and deltas are untouched",
            )
    }

    /// The files in `dir` as they are now, taken for what was written.
    #[cfg(test)]
    pub(crate) fn of_dir(dir: &Path) -> Self {
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let checksums = files.map(|file| {
            let crc32c = crc32c::crc32c(&fs::read(file.path()).unwrap());
            (file.file_name().into_string().unwrap(), crc32c)
        });
        Self { dir: dir.to_owned(), table: dir.to_owned(), checksums: checksums.collect() }
    }
}

impl Table {
    /// Hard-links a consistent copy of everything written so far into `into`, which must not exist;
    /// its parent is created. Writes nothing but what the memtable holds.
    ///
    /// Does not wait where level 0 is crowded: who can wait asks [`Table::is_crowded`] first.
    pub(crate) fn checkpoint(&self, into: &Path) -> Result<TableFiles> {
        if let Some(parent) = into.parent() {
            fs::create_dir_all(parent)
                .map_err(|source| Error::disk("create the directory of a checkpoint", parent, source))?;
        }
        // The log is off, so what is in the memtable is in no file yet.
        if !self.memtable_is_empty()? {
            ffi::flush_at_once(&self.db)
                .map_err(|source| error::map("flush the table", &self.dir, source))?;
        }
        fs::create_dir(into)
            .map_err(|source| Error::disk("create a checkpoint of the table", into, source))?;
        let linked = self.link_files(into);
        if linked.is_err() {
            // The failure is what counts. What stays behind is removed with the instance's
            // directory.
            let _ = fs::remove_dir_all(into);
        }
        linked
    }

    fn link_files(&self, into: &Path) -> Result<TableFiles> {
        let _keep = KeepFiles::of(&self.db)
            .map_err(|source| error::map("keep the files of the table", &self.dir, source))?;
        let files = ffi::storage_files(&self.db)
            .map_err(|source| error::map("list the files of the table", &self.dir, source))?;
        let mut checksums = HashMap::new();
        for file in files {
            let target = into.join(&file.name);
            bring(&file, &target)
                .map_err(|source| Error::disk("link a file of the table", &target, source))?;
            if let Some(crc32c) = file.crc32c {
                checksums.insert(file.name, crc32c);
            }
        }
        Ok(TableFiles { dir: into.to_owned(), table: self.dir.clone(), checksums })
    }
}

/// Makes `target` what `file` is at this moment.
fn bring(file: &StorageFile, target: &Path) -> io::Result<()> {
    if let Some(content) = &file.content {
        return fs::write(target, content);
    }
    let from = file.dir.join(&file.name);
    if !file.grows {
        // Not every file system has links.
        return fs::hard_link(&from, target).or_else(|_| fs::copy(&from, target).map(drop));
    }
    let copied = io::copy(&mut File::open(&from)?.take(file.bytes), &mut File::create_new(target)?)?;
    if copied != file.bytes {
        let text = format!("{} has {copied} bytes where {} are expected", from.display(), file.bytes);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(())
}

/// While this lives, RocksDB deletes no file.
struct KeepFiles<'a>(&'a DB);

impl<'a> KeepFiles<'a> {
    fn of(db: &'a DB) -> Result<Self, rocksdb::Error> {
        db.disable_file_deletions().map(|()| Self(db))
    }
}

impl Drop for KeepFiles<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.enable_file_deletions() {
            // It costs space until the table is opened anew.
            tracing::warn!(%error, "RocksDB does not go on deleting files");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::Entry;
    use crate::error::ErrorKind;
    use crate::ids::DeltaSeq;
    use crate::key_group::{KeyGroup, KeyGroupRange};
    use crate::table::TableResources;

    const RANGE: KeyGroupRange = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(3) };

    fn table(dir: &Path) -> Table {
        Table::create(&dir.join("table"), RANGE, &TableResources::new(8 << 20, 1)).unwrap()
    }

    fn apply(table: &Table, seq: u64) {
        let mut key = Vec::new();
        crate::key::encode_into(&mut key, KeyGroup(1), crate::ids::StateId::of("state"), &seq.to_be_bytes());
        let value = seq.to_be_bytes().repeat(1000);
        table.apply(DeltaSeq(seq), [], [(key.as_slice(), Entry::Put(&value))]).unwrap();
    }

    fn ssts(files: &TableFiles) -> Vec<String> {
        let names = fs::read_dir(&files.dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".sst")).collect()
    }

    #[test]
    fn i4_every_file_that_rocksdb_writes_has_its_checksum_from_before_it_was_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        apply(&table, 1);
        table.flush().unwrap();
        apply(&table, 2);
        // By a flush, by a compaction, and after the table was opened again.
        let flushed = table.checkpoint(&dir.path().join("flushed")).unwrap();
        assert_eq!(ssts(&flushed).len(), 2);
        table.compact_all().unwrap();
        let compacted = table.checkpoint(&dir.path().join("compacted")).unwrap();
        drop(table);
        let again = Table::open(&flushed.dir, RANGE, &TableResources::new(8 << 20, 1)).unwrap();
        apply(&again, 3);
        let again = again.checkpoint(&dir.path().join("again")).unwrap();
        assert_eq!((ssts(&compacted).len(), ssts(&again).len()), (1, 3));
        for files in [&compacted, &again] {
            for name in ssts(files) {
                let mut bytes = fs::read(files.dir.join(&name)).unwrap();
                assert!(files.is_intact(&name, crc32c::crc32c(&bytes)), "{name}");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
                assert!(!files.is_intact(&name, crc32c::crc32c(&bytes)), "{name}");
            }
        }
        assert!(!compacted.is_intact("999999.sst", 0), "of an unknown file nothing is known");
    }

    #[test]
    fn i4_a_flipped_bit_in_the_manifest_or_in_what_names_it_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        apply(&table, 1);
        let files = table.checkpoint(&dir.path().join("copy")).unwrap();
        let names = fs::read_dir(&files.dir).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        let mut seen = 0;
        for name in names.iter().filter(|name| name.starts_with("MANIFEST-") || *name == "CURRENT") {
            let content = fs::read(files.dir.join(name)).unwrap();
            files.check_other(name, &content).unwrap();
            for at in 0..content.len() {
                let mut flipped = content.clone();
                flipped[at] ^= 1;
                let error = files.check_other(name, &flipped).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(error.to_string().contains(&format!("table/{name}")), "{error}");
                seen += 1;
            }
        }
        assert!(seen > 100, "{seen}");
    }
}
