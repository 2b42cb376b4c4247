//! Files that a killed process was writing into a local store.
//!
//! A local store writes an object beside its place, as `<name>#<n>`, and renames it when it is
//! complete. If the process is killed in between, that file stays, and no listing shows it. Its
//! name tells whether it may still be needed: nothing that an earlier attempt writes can be
//! committed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::ObjectName;
use crate::ids::Epoch;

/// Whether a file staged under this name is useless once the attempt `epoch` has opened.
fn is_void(name: &ObjectName, epoch: Epoch) -> bool {
    match name {
        ObjectName::Data { epoch: owner, .. } | ObjectName::Opened(owner) => *owner < epoch,
        // The attempt's own record is there, so a create of this version or of one below fails, or
        // fills a hole.
        ObjectName::Manifest(version) => version.0 <= epoch.0,
        ObjectName::Probe(wanted, _) => wanted.0 != 0 && wanted.0 <= epoch.0,
        // A reader or a user may be at it.
        ObjectName::Pin(_) | ObjectName::Savepoint(..) => false,
    }
}

/// The name that a staged file is to have, if it is one of ours.
fn staged(file: &Path, root: &Path) -> Option<ObjectName> {
    let relative = file.strip_prefix(root).ok()?.to_str()?;
    let (name, number) = relative.rsplit_once('#')?;
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if numbered { ObjectName::parse(&name.replace(std::path::MAIN_SEPARATOR, "/")) } else { None }
}

/// What is staged in a local store: files, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Removes the files that attempts before `epoch` have left staged in the job at `root`. Returns
/// their number.
pub(crate) fn remove_staged(root: &Path, epoch: Epoch) -> usize {
    let mut removed = 0;
    each_staged(root, |path, name| {
        removed += usize::from(is_void(&name, epoch) && fs::remove_file(path).is_ok());
    });
    removed
}

/// What is staged in the job at `root`, by a process that was killed or by one that is writing it
/// now.
pub(crate) fn count_staged(root: &Path) -> Staged {
    let mut staged = Staged::default();
    each_staged(root, |path, _| {
        // It may have been renamed meanwhile.
        if let Ok(metadata) = fs::metadata(path) {
            staged.files += 1;
            staged.bytes += metadata.len();
        }
    });
    staged
}

fn each_staged(root: &Path, mut found: impl FnMut(&Path, ObjectName)) {
    let mut open: Vec<PathBuf> = ObjectName::FOLDERS.iter().map(|folder| root.join(folder)).collect();
    while let Some(dir) = open.pop() {
        // What is not there, or cannot be read, is no reason to do more or less.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(path),
                Ok(kind) if kind.is_file() && has_mark(&path) => {
                    if let Some(name) = staged(&path, root) {
                        found(&path, name);
                    }
                }
                _ => {}
            }
        }
    }
}

fn has_mark(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.contains('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Nonce, SubtaskIndex, Version};
    use crate::remote::{DataKind, Generation};

    #[test]
    fn what_earlier_attempts_have_staged_goes_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let data = |epoch| ObjectName::data(Epoch(epoch), SubtaskIndex(0), Nonce([1; 16]), DataKind::Sst, 1);
        let write = |name: String| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            path
        };
        let void = [data(4), ObjectName::manifest(Version(3)), ObjectName::manifest(Version(5))];
        let gone = void.map(|name| write(format!("{name}#1")));
        let kept = [
            write(data(4).to_string()),
            write(format!("{}#1", data(5))),
            write(format!("{}#2", ObjectName::manifest(Version(6)))),
            write(format!("{}#1", ObjectName::pin(Nonce([1; 16])))),
            write(format!("{}#1", ObjectName::savepoint(&"a".parse().unwrap(), Generation(0)))),
            write("data/notes#1".to_owned()),
            write("elsewhere/x#1".to_owned()),
            write(format!("{}#x", data(4))),
        ];
        let all = count_staged(root.path());
        assert_eq!(all, Staged { files: 7, bytes: 7 }, "and whole objects and foreign files are not");
        assert_eq!(remove_staged(root.path(), Epoch(5)), 3);
        assert_eq!(count_staged(root.path()).files, 4);
        assert_eq!(count_staged(&root.path().join("absent")), Staged::default());
        assert!(gone.iter().all(|path| !path.exists()));
        assert!(kept.iter().all(|path| path.exists()));
    }
}
