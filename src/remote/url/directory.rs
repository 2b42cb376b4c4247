//! A directory as an object store.

use std::path::Path as FilePath;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;

use super::StoreAndRoot;
use crate::error::{Error, ErrorKind, Result};

pub(super) fn open_dir(dir: &FilePath, create_dir: bool) -> Result<StoreAndRoot> {
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            return Err(Error::invalid("the store is a file, not a directory")
                .object(dir.display())
                .advise("give a directory of its own to each job"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !create_dir {
                return Err(Error::new(ErrorKind::NotFound, "the directory of the store does not exist")
                    .object(dir.display())
                    .advise("check the path"));
            }
            create(dir)?;
        }
        Err(error) => return Err(Error::disk("open the directory", dir, error)),
    }
    let store = LocalFileSystem::new_with_prefix(dir).map_err(|error| {
        Error::new(ErrorKind::Disk, "cannot open the directory of the store")
            .object(dir.display())
            .source(error)
    })?;
    // Synced, because a commit must survive a power cut. Empty folders are removed, as in a cloud
    // store.
    Ok((Arc::new(store.with_fsync(true).with_automatic_cleanup(true)), Path::ROOT))
}

/// Creates a directory and those above it, and makes their entries durable.
fn create(dir: &FilePath) -> Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent
        && !parent.exists()
    {
        create(parent)?;
    }
    match std::fs::create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(error) => return Err(Error::disk("create the directory", dir, error)),
    }
    let parent = parent.unwrap_or(FilePath::new("."));
    #[cfg(unix)]
    std::fs::File::open(parent)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::disk("sync the directory", parent, error))?;
    #[cfg(not(unix))]
    let _ = parent;
    Ok(())
}
