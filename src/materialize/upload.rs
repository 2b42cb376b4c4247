//! A materialization run: upload what the store lacks, then one index object that names everything.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::known::Stamp;
use super::parallel::{blocking, run_all};
use super::{BaseFile, BaseIndex, FileId, FileLocation, Known, NameSource};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::DeltaSeq;
use crate::key_group::KeyGroupRange;
use crate::manifest::BaseRef;
use crate::remote::{BaseTraffic, DataKind, ObjectName, Remote};
use crate::table::TableFiles;

/// Files other than SSTs up to this size travel in the index, which saves a request for each at every base
/// and every restore. RocksDB's own MANIFEST is the only
/// one of any size, and it is kept to about 4 MiB.
const EMBED_LIMIT: usize = 8 << 20;

/// Uploads the snapshots of one store instance.
#[derive(Debug)]
pub(crate) struct Uploader {
    pub(crate) remote: Arc<Remote>,
    pub(crate) names: Arc<NameSource>,
    /// None: it waits for nothing.
    pub(crate) traffic: Option<Arc<BaseTraffic>>,
    /// Files under way at a time.
    pub(crate) parallel: usize,
    /// Parts of one file under way at a time.
    pub(crate) parts: usize,
    /// Transfers that may share the link with one of its own: it has that many times its own time.
    pub(crate) sharers: u32,
    /// Where the store itself may copy files from. None: nowhere.
    pub(crate) copies: Option<CopySource>,
}

/// Files that another job keeps in the same store.
#[derive(Debug)]
pub(crate) struct CopySource {
    /// The other job's place.
    pub(crate) remote: Arc<Remote>,
    /// Its objects by what they hold.
    pub(crate) objects: HashMap<FileId, ObjectName>,
}

/// A snapshot whose files are all in the object store.
#[derive(Debug, Clone)]
pub(crate) struct Uploaded {
    pub(crate) index: BaseIndex,
    /// The index as stored. It is an object of its own, or is carried inline by a manifest.
    pub(crate) encoded: Bytes,
    /// Name of that object.
    pub(crate) object: ObjectName,
    /// Bytes of the files that had to be sent, without the index.
    pub(crate) new_bytes: u64,
    pub(crate) new_files: usize,
    /// Bytes of the largest of them.
    pub(crate) largest: u64,
    pub(crate) reused_bytes: u64,
    pub(crate) reused_files: usize,
}

/// A file of the snapshot directory.
#[derive(Debug)]
struct LocalFile {
    name: String,
    path: PathBuf,
    stamp: Stamp,
    size: u64,
    /// Read already, unless it is an SST: it may go into the index.
    content: Option<Bytes>,
}

impl Uploader {
    /// Brings the snapshot `files`, which stands at `seq`, into the store, but for its index.
    ///
    /// May be dropped or fail at any point and be called again: what was sent is in `known` and is
    /// not sent twice. One run per subtask at a time. After it has found a file to be damaged, it
    /// fails for good, see [`Known::damage`].
    pub(crate) async fn upload(
        &self,
        files: &TableFiles,
        range: KeyGroupRange,
        seq: DeltaSeq,
        merge_operator: &str,
        known: &Known,
    ) -> Result<Uploaded> {
        known.damage().map_or(Ok(()), Err)?;
        let snapshot = Arc::new(files.clone());
        let files = {
            let snapshot = Arc::clone(&snapshot);
            blocking(move || list(&snapshot.dir)).await?
        };
        // Collected first: a lazy `map` would make the future too particular for `tokio::spawn`.
        let work: Vec<_> = files.into_iter().map(|file| self.store(file, &snapshot, known)).collect();
        let stored = run_all(work, self.parallel).await?;

        let sum = |sent: bool| {
            let files = stored.iter().filter(move |file| file.sent == Some(sent));
            files.fold((0, 0), |(bytes, count), file| (bytes + file.file.id.size, count + 1))
        };
        let ((new_bytes, new_files), (reused_bytes, reused_files)) = (sum(true), sum(false));
        let new = stored.iter().filter(|file| file.sent == Some(true));
        let largest = new.map(|file| file.file.id.size).max().unwrap_or(0);
        let mut files: Vec<_> = stored.into_iter().map(|stored| stored.file).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let index = BaseIndex {
            epoch: self.names.epoch(),
            subtask: self.names.subtask(),
            range,
            seq,
            merge_operator: merge_operator.to_owned(),
            files,
        };
        known.settle(&index);
        let encoded = index.encode();
        let object = self.names.next(DataKind::Base);
        Ok(Uploaded { index, encoded, object, new_bytes, new_files, largest, reused_bytes, reused_files })
    }

    /// Makes the base usable: writes its index as an object of its own, which the caller has told
    /// [`Known::begun`] of.
    pub(crate) async fn publish(&self, uploaded: &Uploaded) -> Result<BaseRef> {
        self.remote.put_data(&uploaded.object, uploaded.encoded.clone()).await?;
        Ok(uploaded.index.reference(uploaded.object.clone(), 0, &uploaded.encoded))
    }

    /// Sees to it that the store has one file, or that the index embeds it.
    async fn store(&self, file: LocalFile, snapshot: &TableFiles, known: &Known) -> Result<StoredFile> {
        let id = match &file.content {
            None => identify(&file, snapshot, known).await?,
            Some(content) => {
                snapshot.check_other(&file.name, content).map_err(|error| known.damaged(error))?;
                FileId::of_bytes(content)
            }
        };
        if let Some(content) = file.content.filter(|content| content.len() <= EMBED_LIMIT) {
            let file = BaseFile { name: file.name, id, location: FileLocation::Embedded(content) };
            return Ok(StoredFile { file, sent: None });
        }
        if let Some(object) = known.object(&id) {
            return Ok(StoredFile::object(file.name, id, object, false));
        }
        if let Some(object) = self.copy(&id, known).await {
            return Ok(StoredFile::object(file.name, id, object, false));
        }
        let object = self.names.next(DataKind::Sst);
        // Noted before the first byte goes: a run that is dropped may leave the object behind, and then it has to be
        // found to be deleted.
        known.begun(object.clone());
        let traffic = self.traffic.as_deref();
        let sent =
            self.remote.put_file(&object, &file.path, file.size, traffic, self.parts, self.sharers).await?;
        if *sent.as_bytes() != id.hash {
            // What was sent is not what was identified and found intact, maybe in an earlier run:
            // the disk has given other bytes.
            return Err(known.damaged(snapshot.damaged(&file.name)));
        }
        if !known.uploaded(id, object.clone()) {
            let message = "another run has taken the place of this one";
            return Err(Error::new(ErrorKind::Aborted, message).object(object));
        }
        Ok(StoredFile::object(file.name, id, object, true))
    }
}

impl Uploader {
    /// Has the store copy a file from another job's place. None if that has not got it, or the copy
    /// failed: then it is sent.
    async fn copy(&self, id: &FileId, known: &Known) -> Option<ObjectName> {
        let copies = self.copies.as_ref()?;
        let from = copies.objects.get(id)?;
        let object = self.names.next(DataKind::Sst);
        known.begun(object.clone());
        match self.remote.copy_data(&copies.remote, from, &object, id.size).await {
            Ok(()) => known.uploaded(*id, object.clone()).then_some(object),
            Err(error) => {
                tracing::warn!(%error, %from, "a file could not be copied within the store and is sent instead");
                None
            }
        }
    }
}

/// A file of the new base. `sent` says whether it was sent or the store had it; None if it is
/// embedded.
struct StoredFile {
    file: BaseFile,
    sent: Option<bool>,
}

impl StoredFile {
    fn object(name: String, id: FileId, object: ObjectName, sent: bool) -> Self {
        Self { file: BaseFile { name, id, location: FileLocation::Object(object) }, sent: Some(sent) }
    }
}

/// Tells a file by its content. A file that is in no base yet is compared with what was written to
/// it (I4); what is in one was checked when it came from there, and a base refers to the object.
async fn identify(file: &LocalFile, snapshot: &TableFiles, known: &Known) -> Result<FileId> {
    if let Some(id) = known.recall(&file.name, file.stamp) {
        return Ok(id);
    }
    let path = file.path.clone();
    let (id, crc32c) = blocking(move || FileId::with_crc32c(&path)).await?;
    let intact = id.size == file.size && snapshot.is_intact(&file.name, crc32c);
    if !intact && known.object(&id).is_none() {
        return Err(known.damaged(snapshot.damaged(&file.name)));
    }
    known.remember(&file.name, file.stamp, id);
    Ok(id)
}

fn is_sst(name: &str) -> bool {
    name.ends_with(".sst")
}

/// The files of a snapshot directory, the largest first, so that they don't come last and alone.
fn list(dir: &Path) -> Result<Vec<LocalFile>> {
    let fail = |error| Error::disk("list the files of a snapshot", dir, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        let metadata =
            entry.metadata().map_err(|error| Error::disk("inspect a file of a snapshot", &path, error))?;
        let name = entry.file_name().into_string().ok().filter(|_| metadata.is_file()).ok_or_else(|| {
            Error::internal("a snapshot holds something other than RocksDB's files").object(path.display())
        })?;
        let content = if is_sst(&name) {
            None
        } else {
            let content = std::fs::read(&path);
            Some(content.map_err(|error| Error::disk("read a file of a snapshot", &path, error))?.into())
        };
        files.push(LocalFile { name, path, stamp: Stamp::of(&metadata), size: metadata.len(), content });
    }
    files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    Ok(files)
}
