//! RocksDB's status texts become typed errors here and nowhere else.

use std::path::Path;

use crate::error::{Error, ErrorKind};

const CACHE_ADVICE: &str = "delete this directory and open the job again: it is a cache of the object store";

/// A failure of RocksDB while doing `what` on the table in `dir`.
pub(super) fn map<S>(what: &str, dir: &Path, source: S) -> Error
where
    S: AsRef<str> + std::error::Error + Send + Sync + 'static,
{
    let (kind, advice) = classify(source.as_ref());
    let error = Error::new(kind, format!("cannot {what}")).object(dir.display()).source(source);
    match advice {
        Some(advice) => error.advise(advice),
        None => error,
    }
}

/// RocksDB hands a status to C as text, `<code>: <detail>`; its sub-code (no space, …) is only in
/// the detail.
fn classify(status: &str) -> (ErrorKind, Option<&'static str>) {
    let has = |part: &str| status.contains(part);
    if has("No space left on device") || has("Space limit reached") || has("Disk quota exceeded") {
        return (ErrorKind::Disk, Some("free disk space and open the job again"));
    }
    if status.starts_with("IO error") && (has("lock hold by current process") || has("While lock file")) {
        return (ErrorKind::Locked, Some("close the store or process that uses this directory"));
    }
    match status.split(':').next().unwrap_or_default() {
        "Corruption" => (ErrorKind::Corrupt, Some(CACHE_ADVICE)),
        "IO error" if has("Too many open files") => {
            (ErrorKind::Disk, Some("raise the limit of open files (ulimit -n)"))
        }
        "IO error" => (ErrorKind::Disk, Some("check the disk and the permissions of this directory")),
        "Shutdown in progress" => (ErrorKind::Closed, None),
        _ => (ErrorKind::Internal, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_rocksdb_are_understood() {
        for (status, kind) in [
            ("IO error: No space left on device: While appending to file: /d/1.sst: x", ErrorKind::Disk),
            ("IO error: While lock file: /d/LOCK: Resource temporarily unavailable", ErrorKind::Locked),
            (
                "IO error: lock hold by current process, acquire time 1 acquiring thread 2: /d/LOCK: No locks available",
                ErrorKind::Locked,
            ),
            ("IO error: While open a file for random read: /d/1.sst: Too many open files", ErrorKind::Disk),
            ("Corruption: block checksum mismatch: stored = 1, computed = 2", ErrorKind::Corrupt),
            ("Shutdown in progress: ", ErrorKind::Closed),
            ("Not implemented: x", ErrorKind::Internal),
            ("", ErrorKind::Internal),
        ] {
            assert_eq!(classify(status).0, kind, "{status}");
        }
    }
}
