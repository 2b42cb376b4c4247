//! Local directories of a run that go with it.

use std::path::PathBuf;

use crate::failure::{Result, io};

/// Local directories of a run: below a given one, or temporary.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Removed at the end.
    temporary: tempfile::TempDir,
}

impl Scratch {
    /// A new directory, removed at the end, below `parent` or where the system keeps such.
    pub(crate) fn new(parent: Option<&std::path::Path>) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("alluvium-");
        let temporary = match parent {
            None => builder.tempdir().map_err(io("create a temporary directory"))?,
            Some(parent) => {
                std::fs::create_dir_all(parent).map_err(io(format!("create {}", parent.display())))?;
                builder
                    .tempdir_in(parent)
                    .map_err(io(format!("create a directory in {}", parent.display())))?
            }
        };
        Ok(Self { temporary })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }
}
