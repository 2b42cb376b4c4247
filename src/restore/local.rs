//! Files of earlier store instances on this machine, which a restart need not download. They are
//! found by size, and trusted only after their whole content was read (I4). Files that are not
//! needed are deleted before anything is fetched; otherwise a disk full of them would have no room.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::materialize::{BaseFile, FileId};

/// How deep below an instance's directory a table may lie.
const MAX_DEPTH: usize = 3;

/// Files of the wanted size that are read at most before one is downloaded instead. Sizes clash where a table
/// was rewritten many times, and each candidate is read in full.
const MAX_CANDIDATES: usize = 4;

/// SST files below some directories, by size.
#[derive(Debug, Default)]
pub(crate) struct LocalFiles {
    by_size: HashMap<u64, Vec<PathBuf>>,
    dirs: Vec<PathBuf>,
}

impl LocalFiles {
    /// Lists the SST files below `dirs`. Blocks. Directories that cannot be read are passed over, and their files are
    /// downloaded instead.
    pub(crate) fn scan(dirs: &[PathBuf]) -> Self {
        let mut files = Self { dirs: dirs.to_owned(), ..Self::default() };
        dirs.iter().for_each(|dir| files.scan_dir(dir, MAX_DEPTH));
        files
    }

    fn scan_dir(&mut self, dir: &Path, depth: usize) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, metadata) = (entry.path(), entry.metadata());
            match metadata {
                Ok(metadata) if metadata.is_dir() && depth > 1 => self.scan_dir(&path, depth - 1),
                // Only SST files never change under their name; links to others would be dangerous.
                Ok(metadata) if metadata.is_file() && path.extension().is_some_and(|end| end == "sst") => {
                    self.by_size.entry(metadata.len()).or_default().push(path);
                }
                _ => {}
            }
        }
    }

    /// Deletes the files that [`LocalFiles::take_over`] could not use, given that it is asked for
    /// files of these sizes only. Blocks. A file that cannot be deleted stays; if its room is
    /// needed, the download reports that.
    pub(crate) fn keep_only(&self, sizes: &HashSet<u64>) {
        let needed: HashSet<_> = sizes.iter().filter_map(|size| self.by_size.get(size)).flatten().collect();
        let mut open = self.dirs.clone();
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => open.push(path),
                    Ok(_) if !needed.contains(&path) => {
                        if let Err(error) = fs::remove_file(&path) {
                            tracing::debug!(%error, path = %path.display(), "an old file stays for now");
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Puts `file` to `target` if its content is here; blocks.
    pub(crate) fn take_over(&self, file: &BaseFile, target: &Path) -> Result<bool> {
        let Some(candidates) = self.by_size.get(&file.id.size) else { return Ok(false) };
        // A file of the same name is the most likely one, so it is tried first. Its content decides.
        let same_name = |path: &&PathBuf| path.file_name().is_some_and(|name| *name == *file.name);
        let (likely, others): (Vec<_>, Vec<_>) = candidates.iter().partition(same_name);
        for candidate in likely.into_iter().chain(others).take(MAX_CANDIDATES) {
            // Link first, read afterwards: then the file that was read is the file that is kept.
            if fs::hard_link(candidate, target).is_err() && fs::copy(candidate, target).is_err() {
                // The file is gone, or the target is on another disk without room. The download
                // reports more.
                let _ = fs::remove_file(target);
                continue;
            }
            if FileId::of_file(target).is_ok_and(|id| id == file.id) {
                return Ok(true);
            }
            fs::remove_file(target).map_err(|error| {
                crate::error::Error::disk("remove a file that does not match", target, error)
            })?;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::materialize::FileLocation;

    fn wanted(name: &str, content: &[u8]) -> BaseFile {
        BaseFile {
            name: name.to_owned(),
            id: FileId::of_bytes(content),
            location: FileLocation::Embedded(Bytes::new()),
        }
    }

    #[test]
    fn content_counts_and_the_name_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("00000-abc/table");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("000007.sst"), b"wrong").unwrap();
        fs::write(old.join("000009.sst"), b"right").unwrap();
        fs::write(old.join("MANIFEST-000001"), b"other").unwrap();
        let files = LocalFiles::scan(&[dir.path().to_owned(), dir.path().join("absent")]);
        let target = dir.path().join("000007.sst");
        assert!(files.take_over(&wanted("000007.sst", b"right"), &target).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"right");
        fs::remove_file(&target).unwrap();

        assert!(!files.take_over(&wanted("000007.sst", b"tight"), &target).unwrap());
        assert!(!files.take_over(&wanted("MANIFEST-000001", b"other"), &target).unwrap());
        assert!(!files.take_over(&wanted("000007.sst", b"longer"), &target).unwrap());
        assert!(!target.exists(), "nothing is left of a file that did not match");
        assert_eq!(fs::read(old.join("000007.sst")).unwrap(), b"wrong", "the old instance is untouched");
    }

    #[test]
    fn what_is_not_needed_makes_room_and_what_may_be_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (dir.path().join("00000-abc"), dir.path().join("other"));
        let deep = ours.join("table-sources/0");
        for dir in [&deep, &ours.join("table"), &other] {
            fs::create_dir_all(dir).unwrap();
            for (name, content) in [("000007.sst", "right"), ("000008.sst", "longer"), ("LOG", "right")] {
                fs::write(dir.join(name), content).unwrap();
            }
        }
        fs::hard_link(deep.join("000008.sst"), dir.path().join("link")).unwrap();
        let files = LocalFiles::scan(std::slice::from_ref(&ours));
        files.keep_only(&HashSet::from([5]));
        let left = |dir: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(left(&deep), ["000007.sst"]);
        assert_eq!(left(&ours.join("table")), ["000007.sst"]);
        assert_eq!(left(&other).len(), 3, "somebody else's");
        assert!(files.take_over(&wanted("000009.sst", b"right"), &dir.path().join("new.sst")).unwrap());
    }

    #[test]
    fn a_file_that_vanished_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("000001.sst");
        fs::write(&old, b"x").unwrap();
        let files = LocalFiles::scan(&[dir.path().to_owned()]);
        fs::remove_file(&old).unwrap();
        assert!(!files.take_over(&wanted("000001.sst", b"x"), &dir.path().join("new.sst")).unwrap());
    }
}
