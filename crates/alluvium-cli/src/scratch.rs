//! Local directories of a run that go with it, however it ends.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clap::Args;

use crate::failure::{Result, io};

/// What the name of each such directory begins with.
const PREFIX: &str = "alluvium-";
/// A file in each of them that its process keeps locked: what is not locked was left by one that was killed.
const LOCK: &str = ".alluvium-in-use";

/// What a signal has to remove.
static PATHS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn paths() -> std::sync::MutexGuard<'static, BTreeSet<PathBuf>> {
    PATHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all temporary files of this process. For its end in the middle of something.
pub(crate) fn remove_all() {
    for path in &*paths() {
        // What can't be removed stays. The process is ending, and has no caller to tell.
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
}

/// A path that goes if a signal ends the process before this is dropped.
#[derive(Debug)]
pub(crate) struct Doomed(PathBuf);

impl Doomed {
    pub(crate) fn new(path: &Path) -> Self {
        paths().insert(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        paths().remove(&self.0);
    }
}

/// Where temporary local files go.
#[derive(Debug, Clone, Args)]
pub(crate) struct TempDirArgs {
    /// Where a directory for local files is made, and removed at the end [default: the system's place for
    /// temporary files]
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
}

impl TempDirArgs {
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.temp_dir.as_deref()
    }
}

/// Local directories of a run: below a given one, or temporary.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Removed at the end.
    temporary: tempfile::TempDir,
    _doomed: Doomed,
    /// Locked. None where the file system has no locks.
    _lock: Option<File>,
}

impl Scratch {
    /// A new directory, removed at the end, below `parent` or where the system keeps such. Those that killed processes
    /// have left there are removed as well.
    pub(crate) fn new(parent: Option<&Path>) -> Result<Self> {
        let system = std::env::temp_dir();
        if let Some(parent) = parent {
            std::fs::create_dir_all(parent).map_err(io(format!("create {}", parent.display())))?;
        }
        let parent = parent.unwrap_or(&system);
        remove_abandoned(parent);
        let mut builder = tempfile::Builder::new();
        let temporary = builder
            .prefix(PREFIX)
            .tempdir_in(parent)
            .map_err(io(format!("create a directory in {}", parent.display())))?;
        let (doomed, lock) = (Doomed::new(temporary.path()), lock(temporary.path()));
        Ok(Self { temporary, _doomed: doomed, _lock: lock })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }
}

/// What tells this machine, since its start, from others that share a file system: locks may not reach so far.
fn machine() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

/// Locks a directory. The file has its name only once it is locked, so that none is found unlocked before.
fn lock(dir: &Path) -> Option<File> {
    let early = dir.join(".alluvium-new");
    let mut file = File::create(&early).ok()?;
    file.write_all(machine()?.as_bytes()).ok()?;
    file.try_lock().ok()?;
    std::fs::rename(early, dir.join(LOCK)).ok()?;
    Some(file)
}

/// Removes the directories that killed processes have left in `parent`: those that are named and marked as ours, and
/// that no process holds.
fn remove_abandoned(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Not where a link leads.
        if !named || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if is_abandoned(&entry.path().join(LOCK)) {
            // Another user's can't be removed.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether this machine has made a lock, and no process holds it any more.
fn is_abandoned(lock: &Path) -> bool {
    // To open another kind of file could block.
    let is_file = std::fs::symlink_metadata(lock).is_ok_and(|metadata| metadata.is_file());
    let ours = || std::fs::read_to_string(lock).is_ok_and(|text| Some(text) == machine());
    is_file && ours() && File::open(lock).is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_has_left_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let running = Scratch::new(Some(dir.path())).unwrap();
        let killed = dir.path().join("alluvium-killed");
        for (name, file) in [("alluvium-killed", LOCK), ("alluvium-notes", "letter"), ("other", LOCK)] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join(file), machine().unwrap()).unwrap();
        }
        let elsewhere = dir.path().join("alluvium-of-another-machine");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join(LOCK), "another").unwrap();
        let next = Scratch::new(Some(dir.path())).unwrap();
        assert!(!killed.exists());
        assert!(dir.path().join("alluvium-notes").exists() && dir.path().join("other").exists());
        assert!(running.path("").exists() && next.path("").exists());
        drop((running, next));
        assert!(elsewhere.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
