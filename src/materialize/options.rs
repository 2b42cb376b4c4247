//! Options of the background that takes bases. Every setter's documentation ends in its default.

use std::time::Duration;

/// When the background takes a new base, and how fast it may upload.
///
/// ```
/// use std::time::Duration;
///
/// use alluvium::{JobOptions, MaterializationOptions, OpenMode};
///
/// let bases = MaterializationOptions::new()
///     .interval(Duration::from_secs(300))
///     .bytes_per_second(50_000_000);
/// let options = JobOptions::new("/var/lib/job", OpenMode::CreateOrOpen).materialization(bases);
/// ```
#[derive(Debug, Clone)]
pub struct MaterializationOptions {
    pub(crate) interval: Option<Duration>,
    pub(crate) changelog_bytes: Option<u64>,
    pub(crate) bytes_per_second: Option<u64>,
}

impl MaterializationOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            interval: Some(Duration::from_secs(600)),
            changelog_bytes: Some(1 << 30),
            bytes_per_second: None,
        }
    }

    /// No base but by [`Job::materialize`](crate::Job::materialize), and then at full speed. The
    /// changelog, and with it the time that a restore takes, grows until that is called.
    pub fn on_demand() -> Self {
        Self { interval: None, changelog_bytes: None, bytes_per_second: None }
    }

    /// Time between two bases of a subtask. Subtasks begin at different times within the first
    /// interval, so that they do not all upload at once. None: never by time. Default 10 minutes.
    #[must_use]
    pub fn interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.interval = interval.into();
        self
    }

    /// A subtask takes a new base once its changelog since the last one exceeds this many bytes.
    /// None: never by size. Default 1 GiB.
    #[must_use]
    pub fn changelog_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.changelog_bytes = bytes.into();
        self
    }

    /// Upload rate of the bases of all subtasks together, in bytes per second. None: unlimited.
    /// Default None.
    #[must_use]
    pub fn bytes_per_second(mut self, rate: impl Into<Option<u64>>) -> Self {
        self.bytes_per_second = rate.into();
        self
    }
}

impl Default for MaterializationOptions {
    fn default() -> Self {
        Self::new()
    }
}
