//! What the object store is known to have already, for one subtask's table.
//!
//! Which objects a base may refer to is critical (I3). Garbage collection deletes an object once a
//! commit has made it unreachable, so an object that was known long ago may be gone. The rule here
//! needs no word from the committer: *a base is built only from files of the base before it, and
//! from files that this instance has uploaded since.* Let base n be pending and n+1 under way. If n
//! is never committed, the files that n took over from n−1 live because n−1 is still the newest
//! committed base, and the others live because they are unreferenced objects of the current epoch.
//! If n is committed, all its files live until its successor is committed. In both cases n+1 refers
//! to nothing that is dead.
//!
//! The same rule tells what is garbage: an object of this instance that a finished run did not use
//! is never referred to again (a *stray*), unless by a base that a checkpoint or the tail of the
//! changelog already names. Strays go to garbage collection like all retired objects: after a later
//! commit, and only if nothing retained or pinned reaches them. In changelog mode the tail retires
//! the objects of a published base, because it knows when the next base has replaced it
//! ([`Known::published`]). In native mode each base is named by one checkpoint, and is decided
//! before the next run begins.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::Metadata;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{BaseIndex, FileId, FileLocation};
use crate::error::Error;
use crate::ids::DeltaSeq;
use crate::remote::ObjectName;

/// Objects that the next base may refer to, by the content they hold, and a memo of the content of
/// local files. Belongs to one open database; shared by reference, so that what an upload has
/// achieved is kept even when the rest of it fails or is given up.
#[derive(Debug, Default)]
pub(crate) struct Known {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: HashMap<FileId, ObjectName>,
    /// Names that this instance has given to uploads, and that are neither strays nor the tail's.
    own: BTreeSet<ObjectName>,
    /// See the [module](self).
    strays: Vec<ObjectName>,
    /// Where the base stands that `objects` is of.
    settled: DeltaSeq,
    /// Only valid within this database: it never gives the same file number twice while it is open,
    /// and a restored one starts with a memo of its own.
    memo: HashMap<String, (Stamp, FileId)>,
    /// The first local file that was found to be damaged.
    damage: Option<Error>,
}

/// What the file system says of a file; a belt beside the braces of the memo's lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl Known {
    /// What is known after a restore from `base`.
    pub(crate) fn from_base(base: &BaseIndex) -> Self {
        let known = Self::default();
        known.settle(base);
        known
    }

    /// Adds the files of another base that the next checkpoint refers to as well.
    pub(crate) fn also(&self, base: &BaseIndex) {
        let mut inner = self.lock();
        for file in &base.files {
            if let FileLocation::Object(object) = &file.location {
                inner.objects.entry(file.id).or_insert_with(|| object.clone());
            }
        }
    }

    /// The object that holds this content, if one may be referred to.
    pub(crate) fn object(&self, id: &FileId) -> Option<ObjectName> {
        self.lock().objects.get(id).cloned()
    }

    /// Forgets where contents lie, and returns it: nothing may be referred to any more. What local
    /// files hold is still known.
    pub(crate) fn detach(&self) -> HashMap<FileId, ObjectName> {
        std::mem::take(&mut self.lock().objects)
    }

    /// Number of objects that may be referred to.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().objects.len()
    }

    /// Notes that this instance is about to upload an object of this name. From here on it may
    /// exist.
    pub(crate) fn begun(&self, object: ObjectName) {
        self.lock().own.insert(object);
    }

    /// Notes that `object` was uploaded with this content by this instance. The first one stays:
    /// an earlier upload may be referred to already. False if another run has ended meanwhile: the
    /// object is a stray then, and must not be referred to.
    pub(crate) fn uploaded(&self, id: FileId, object: ObjectName) -> bool {
        let mut inner = self.lock();
        let ours = inner.own.contains(&object);
        if ours {
            inner.objects.entry(id).or_insert(object);
        }
        ours
    }

    /// `base` is durable as object `index`, and is the tail's to retire.
    pub(crate) fn published(&self, base: &BaseIndex, index: &ObjectName) {
        let mut inner = self.lock();
        inner.own.remove(index);
        for object in base.objects() {
            inner.own.remove(&object);
        }
    }

    /// Hands over the strays since the last call.
    pub(crate) fn take_strays(&self) -> Vec<ObjectName> {
        std::mem::take(&mut self.lock().strays)
    }

    /// Ends a run: from now on only files of `base` may be referred to, and what is uploaded later.
    ///
    /// A base older than the last has no say: it comes from a run that was given up long ago.
    pub(crate) fn settle(&self, base: &BaseIndex) {
        let mut inner = self.lock();
        if base.seq < inner.settled {
            return;
        }
        inner.settled = base.seq;
        // A content that comes back later is uploaded again: its old object may have been collected.
        inner.objects.clear();
        for file in &base.files {
            if let FileLocation::Object(object) = &file.location {
                inner.objects.insert(file.id, object.clone());
            }
        }
        let named: HashSet<_> = base.objects().into_iter().collect();
        let own = std::mem::take(&mut inner.own);
        let (own, strays): (Vec<_>, Vec<_>) = own.into_iter().partition(|object| named.contains(object));
        inner.own = own.into_iter().collect();
        inner.strays.extend(strays);
        // The memo follows the files, or it would grow with each compaction.
        let names: HashSet<_> = base.files.iter().map(|file| file.name.as_str()).collect();
        inner.memo.retain(|name, _| names.contains(name.as_str()));
    }

    /// The content of the local file `name`, if it was read before and has not changed.
    pub(crate) fn recall(&self, name: &str, stamp: Stamp) -> Option<FileId> {
        self.lock().memo.get(name).filter(|(known, _)| *known == stamp).map(|(_, id)| *id)
    }

    /// Notes the content of an SST file: those never change once written.
    pub(crate) fn remember(&self, name: &str, stamp: Stamp, id: FileId) {
        self.lock().memo.insert(name.to_owned(), (stamp, id));
    }

    /// Notes that the local files are damaged, and returns what is to be said of it. No base may be
    /// built from this database any more, not even from those files that are intact: it would
    /// replace the base and the deltas that can still rebuild the state.
    pub(crate) fn damaged(&self, error: Error) -> Error {
        self.lock().damage.get_or_insert(error).clone()
    }

    /// What was noted by [`Known::damaged`].
    pub(crate) fn damage(&self) -> Option<Error> {
        self.lock().damage.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one call on a map: a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::BaseFile;
    use super::*;
    use crate::ids::{Epoch, Nonce, SubtaskIndex};
    use crate::key_group::{KeyGroup, KeyGroupRange};
    use crate::remote::DataKind;

    fn object(n: u64) -> ObjectName {
        ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce([1; 16]), DataKind::Sst, n)
    }

    fn id(n: u64) -> FileId {
        FileId::of_bytes(&n.to_le_bytes())
    }

    fn base(files: &[u64]) -> BaseIndex {
        let file = |n: &u64| BaseFile {
            name: format!("{n:06}.sst"),
            id: id(*n),
            location: FileLocation::Object(object(*n)),
        };
        BaseIndex {
            epoch: Epoch(1),
            subtask: SubtaskIndex(0),
            range: KeyGroupRange { first: KeyGroup(0), last: KeyGroup(1) },
            seq: DeltaSeq(1),
            merge_operator: String::new(),
            files: files.iter().map(file).collect(),
        }
    }

    /// Content `n` goes up as an object.
    fn upload(known: &Known, n: u64, to: u64) {
        known.begun(object(to));
        assert!(known.uploaded(id(n), object(to)));
    }

    #[test]
    fn i3_what_the_next_base_does_without_is_a_stray_and_is_not_referred_to_again() {
        let known = Known::from_base(&base(&[1]));
        // A run that failed: one file is there, one may be.
        upload(&known, 2, 2);
        upload(&known, 3, 3);
        known.begun(object(4));
        assert_eq!(known.take_strays(), [], "the next run may use them");
        known.settle(&BaseIndex { seq: DeltaSeq(2), ..base(&[3, 5]) });
        assert_eq!(known.take_strays(), [object(2), object(4)], "file 1 is not of this instance");
        assert_eq!(known.take_strays(), [], "handed over once");
        assert_eq!(known.object(&id(2)), None);
        assert!(!known.uploaded(id(4), object(4)), "it came after its run was over");
        assert_eq!(known.object(&id(4)), None);
    }

    #[test]
    fn i3_a_published_bases_files_are_left_to_the_tail() {
        let known = Known::default();
        upload(&known, 1, 1);
        upload(&known, 2, 2);
        let first = base(&[1, 2]);
        known.settle(&first);
        known.begun(object(100));
        known.published(&first, &object(100));
        // A second base that comes to nothing, and a third.
        upload(&known, 3, 3);
        known.settle(&BaseIndex { seq: DeltaSeq(2), ..base(&[2, 3]) });
        known.begun(object(101));
        known.settle(&BaseIndex { seq: DeltaSeq(3), ..base(&[2]) });
        assert_eq!(known.take_strays(), [object(3), object(101)], "1, 2 and 100 are in a base that counts");
    }

    #[test]
    fn i3_a_file_that_left_the_base_is_never_referred_to_again() {
        let known = Known::from_base(&base(&[1, 2]));
        upload(&known, 3, 3);
        assert_eq!(known.object(&id(1)), Some(object(1)));
        // The next base no longer has 1: once it is committed, object 1 may be collected.
        known.settle(&base(&[2, 3]));
        assert_eq!(known.object(&id(1)), None);
        assert_eq!(known.object(&id(2)), Some(object(2)));
        assert_eq!(known.object(&id(3)), Some(object(3)));
    }

    #[test]
    fn a_run_that_ends_late_does_not_bring_old_files_back() {
        let known = Known::from_base(&base(&[1]));
        known.settle(&BaseIndex { seq: DeltaSeq(3), ..base(&[3]) });
        known.settle(&BaseIndex { seq: DeltaSeq(2), ..base(&[1]) });
        assert_eq!(known.object(&id(1)), None);
        assert_eq!(known.object(&id(3)), Some(object(3)));
    }

    #[test]
    fn what_a_failed_run_has_uploaded_is_not_sent_again() {
        let known = Known::from_base(&base(&[1]));
        upload(&known, 2, 2);
        upload(&known, 2, 99);
        assert_eq!(known.object(&id(2)), Some(object(2)), "the first upload stays");
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn the_memo_holds_for_the_same_file_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        std::fs::write(&path, b"old").unwrap();
        let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
        let known = Known::default();
        known.remember("000001.sst", stamp, id(1));
        assert_eq!(known.recall("000001.sst", stamp), Some(id(1)));
        assert_eq!(known.recall("000002.sst", stamp), None);
        std::fs::write(&path, b"other").unwrap();
        assert_eq!(known.recall("000001.sst", Stamp::of(&std::fs::metadata(&path).unwrap())), None);
        known.settle(&base(&[2]));
        assert_eq!(known.recall("000001.sst", stamp), None, "files that are gone are forgotten");
    }
}
