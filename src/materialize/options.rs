//! Options of the background that takes bases.

use std::time::Duration;

/// When the background takes a new base, and how fast it may upload.
#[derive(Debug, Clone)]
pub struct MaterializationOptions {
    /// Time between two bases of a subtask; the first of each subtask is offset by its share, so
    /// that they don't all start at once. None: never by time. Default 10 minutes.
    pub interval: Option<Duration>,
    /// A new base once the changelog since the last one exceeds this many bytes. Default 1 GiB.
    pub changelog_bytes: Option<u64>,
    /// Upload rate of all subtasks together in bytes per second. None: unlimited. Default None.
    pub bytes_per_second: Option<u64>,
}

impl Default for MaterializationOptions {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(600)),
            changelog_bytes: Some(1 << 30),
            bytes_per_second: None,
        }
    }
}
