//! A job's local directory, locked by one process, with one directory for each store instance.
//! Those are a cache; the truth is in the object store. Anything else in the directory is not
//! Alluvium's and is left alone.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Nonce, SubtaskIndex};

const LOCK: &str = "LOCK";
const INSTANCES: &str = "instances";

/// The directory, locked until dropped.
#[derive(Debug)]
pub(crate) struct LocalDir {
    path: PathBuf,
    lock: File,
}

impl Drop for LocalDir {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that another thread has just forked has it open until it
        // starts its program, and the lock with it.
        let _ = self.lock.unlock();
    }
}

impl LocalDir {
    /// Creates the directory if it is absent, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path.join(INSTANCES))
            .map_err(|error| Error::disk("create the job's local directory", path, error))?;
        // A lock of the system goes with its process, so a crash leaves none behind.
        let lock = path.join(LOCK);
        let file = File::options()
            .create(true)
            // Nothing is written into it. Truncating would only touch a file that another process has locked.
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(|error| Error::disk("open the lock file", &lock, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock: file }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::Locked, "another process uses the job's local directory")
                    .object(path.display())
                    .advise("stop it, or give this one a directory of its own"))
            }
            Err(TryLockError::Error(error)) => Err(Error::disk("lock the lock file", &lock, error)),
        }
    }

    /// Where a store instance keeps its files.
    pub(crate) fn instance(&self, subtask: SubtaskIndex, instance: Nonce) -> PathBuf {
        self.path.join(INSTANCES).join(name(subtask, instance))
    }

    /// The directories of earlier instances. A restore may take over their files, and they are removed then. Only
    /// directories that are named as [`LocalDir::instance`] names them, and no links.
    pub(crate) fn earlier(&self) -> Result<Vec<PathBuf>> {
        let dir = self.path.join(INSTANCES);
        let fail = |error| Error::disk("list the job's local directory", &dir, error);
        let entries = fs::read_dir(&dir).map_err(fail)?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let ours = entry.file_name().to_str().is_some_and(is_instance);
            if ours && entry.file_type().map_err(fail)?.is_dir() {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }
}

/// What an instance's directory is called.
fn name(subtask: SubtaskIndex, instance: Nonce) -> String {
    format!("{:05}-{instance}", subtask.0)
}

/// Whether [`name`] gives this name to some instance.
fn is_instance(name: &str) -> bool {
    let Some((subtask, nonce)) = name.split_once('-') else { return false };
    let digits = subtask.len() >= 5 && subtask.bytes().all(|byte| byte.is_ascii_digit());
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits && nonce.len() == 32 && nonce.bytes().all(hex)
}

/// Removes directories of instances, as far as they exist. A failure is logged, and does not keep the job from
/// starting.
pub(crate) fn remove<'a>(dirs: impl IntoIterator<Item = &'a PathBuf>) {
    for dir in dirs {
        if let Err(error) = fs::remove_dir_all(dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, dir = %dir.display(), "an old local directory stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = LocalDir::open(dir.path()).unwrap();
        let error = LocalDir::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
        // As a child process would have it for a moment.
        let inherited = first.lock.try_clone().unwrap();
        drop(first);
        LocalDir::open(dir.path()).unwrap();
        drop(inherited);
    }

    #[test]
    fn only_directories_that_are_named_as_ours_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalDir::open(dir.path()).unwrap();
        let instances = dir.path().join(INSTANCES);
        let ours = name(SubtaskIndex(32_767), Nonce([0xaf; 16]));
        fs::create_dir(instances.join(&ours)).unwrap();
        for foreign in ["backup", "00001", "00001-", "00001-AF", "00000-0123", "lost+found"] {
            fs::create_dir(instances.join(foreign)).unwrap();
            fs::write(instances.join(foreign).join("file"), b"mine").unwrap();
        }
        fs::write(instances.join("notes.txt"), b"mine").unwrap();
        // A file of our name, and a link to a directory that is elsewhere.
        fs::write(instances.join(name(SubtaskIndex(1), Nonce([1; 16]))), b"mine").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path(), instances.join(name(SubtaskIndex(2), Nonce([2; 16]))))
            .unwrap();
        assert_eq!(local.earlier().unwrap(), [instances.join(ours)]);
    }

    #[test]
    fn earlier_instances_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalDir::open(dir.path()).unwrap();
        assert!(local.earlier().unwrap().is_empty());
        let instance = local.instance(SubtaskIndex(3), Nonce([1; 16]));
        fs::create_dir(&instance).unwrap();
        assert_eq!(local.earlier().unwrap(), vec![instance.clone()]);
        remove([&instance]);
        assert!(local.earlier().unwrap().is_empty());
    }
}
