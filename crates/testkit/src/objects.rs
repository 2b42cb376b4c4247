//! Looking at a job's objects behind its back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::faults::block_on;

/// All objects of a store below `prefix` with their bytes, by name relative to it.
pub fn objects_of(store: &Arc<dyn ObjectStore>, prefix: &str) -> BTreeMap<String, Bytes> {
    let (store, root) = (Arc::clone(store), Path::from(prefix));
    block_on(async move {
        let listed: Vec<_> = store.list(Some(&root)).try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for meta in listed {
            let found = match store.get(&meta.location).await {
                // A job may be collecting its garbage meanwhile.
                Err(object_store::Error::NotFound { .. }) => continue,
                found => found.unwrap(),
            };
            let bytes = found.bytes().await.unwrap();
            let name = meta.location.to_string();
            let name = name.strip_prefix(prefix).unwrap_or(&name).trim_start_matches('/').to_owned();
            objects.insert(name, bytes);
        }
        objects
    })
}

/// Names of all objects below `prefix`, relative to it.
pub fn names_of(store: &Arc<dyn ObjectStore>, prefix: &str) -> Vec<String> {
    let (store, root) = (Arc::clone(store), Path::from(prefix));
    block_on(async move {
        let listed: Vec<_> = store.list(Some(&root)).try_collect().await.unwrap();
        let relative =
            |name: String| name.strip_prefix(prefix).unwrap_or(&name).trim_start_matches('/').to_owned();
        let mut names: Vec<_> = listed.into_iter().map(|meta| relative(meta.location.to_string())).collect();
        names.sort();
        names
    })
}

/// A whole directory in memory: relative path to bytes.
pub fn files_below(dir: &FilePath) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Writes a directory that [`files_below`] read.
pub fn write_files(dir: &FilePath, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A store in memory with these objects below `prefix`.
pub fn store_with(objects: &BTreeMap<String, Bytes>, prefix: &str) -> Arc<dyn ObjectStore> {
    let store = Arc::new(InMemory::new());
    let filled = Arc::clone(&store);
    block_on(async move {
        for (name, bytes) in objects {
            let path = Path::from(format!("{prefix}/{name}"));
            filled.put(&path, bytes.clone().into()).await.unwrap();
        }
    });
    store
}
