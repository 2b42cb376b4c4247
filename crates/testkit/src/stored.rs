//! A job on a disk: its objects in one directory, behind a store whose faults a test decides, and its
//! local files beside it.

use std::path::PathBuf;
use std::sync::Arc;

use alluvium::admin::{Inspection, inspect};
use alluvium::{Error, Job, JobOptions, OpenMode, Opened};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tempfile::TempDir;

use crate::drive::quiet;
use crate::faults::FaultStore;
use crate::objects::files_below;

/// Both directories, and the store.
#[derive(Debug)]
pub struct StoredJob {
    pub dir: TempDir,
    pub store: Arc<FaultStore>,
}

impl StoredJob {
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let store = FaultStore::new(LocalFileSystem::new_with_prefix(dir.path().join("store")).unwrap());
        Self { dir, store }
    }

    /// The directory of its objects.
    pub fn objects(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// For openers that are to meet no faults.
    pub fn url(&self) -> String {
        self.objects().to_str().unwrap().to_owned()
    }

    /// The names of its objects, ascending.
    pub fn names(&self) -> Vec<String> {
        files_below(&self.objects()).into_keys().collect()
    }

    /// Two subtasks that do nothing by themselves, with their local files in the directory of this name.
    pub fn options_in(&self, local: &str) -> JobOptions {
        quiet(&self.dir.path().join(local), OpenMode::CreateOrOpen).subtasks(2)
    }

    pub fn try_open(&self, options: JobOptions) -> Result<Opened, Error> {
        Job::open((Arc::clone(&self.store) as Arc<dyn ObjectStore>, ""), options)
    }

    pub fn open(&self, options: JobOptions) -> Opened {
        self.try_open(options).unwrap()
    }

    pub fn inspect(&self) -> Inspection {
        inspect(self.url()).unwrap()
    }
}
