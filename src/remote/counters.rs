//! Requests to the object store, counted where they are sent.

use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Requests to the object store and their bytes, retries included: the numbers that the store
/// bills.
///
/// Subtract two readings to get what happened between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct RemoteCounters {
    /// Requests that write: creates, parts of large uploads, and the start and end of each such
    /// upload.
    pub puts: u64,
    /// Bytes sent.
    pub put_bytes: u64,
    /// Requests that read an object or a part of it.
    pub gets: u64,
    /// Bytes received.
    pub get_bytes: u64,
    /// Listings. A store may serve a long one in several pages, which are not counted apart.
    pub lists: u64,
    /// Objects whose deletion was asked for. A store may take many in one request.
    pub deletes: u64,
    /// Requests that repeated one that had failed.
    pub retries: u64,
    /// Requests that failed or got no answer in time. "Not found" and "exists already" are answers.
    pub failures: u64,
}

impl Sub for RemoteCounters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            puts: self.puts.saturating_sub(earlier.puts),
            put_bytes: self.put_bytes.saturating_sub(earlier.put_bytes),
            gets: self.gets.saturating_sub(earlier.gets),
            get_bytes: self.get_bytes.saturating_sub(earlier.get_bytes),
            lists: self.lists.saturating_sub(earlier.lists),
            deletes: self.deletes.saturating_sub(earlier.deletes),
            retries: self.retries.saturating_sub(earlier.retries),
            failures: self.failures.saturating_sub(earlier.failures),
        }
    }
}

/// The running counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    puts: Counter,
    put_bytes: Counter,
    gets: Counter,
    get_bytes: Counter,
    lists: Counter,
    deletes: Counter,
    retries: Counter,
    failures: Counter,
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(super) fn put(&self, bytes: usize) {
        self.puts.add(1);
        self.put_bytes.add(bytes as u64);
    }

    pub(super) fn get(&self) {
        self.gets.add(1);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.get_bytes.add(bytes);
    }

    pub(super) fn list(&self) {
        self.lists.add(1);
    }

    pub(super) fn delete(&self, objects: usize) {
        self.deletes.add(objects as u64);
    }

    pub(super) fn retry(&self) {
        self.retries.add(1);
    }

    pub(super) fn failure(&self) {
        self.failures.add(1);
    }

    pub(super) fn read(&self) -> RemoteCounters {
        RemoteCounters {
            puts: self.puts.get(),
            put_bytes: self.put_bytes.get(),
            gets: self.gets.get(),
            get_bytes: self.get_bytes.get(),
            lists: self.lists.get(),
            deletes: self.deletes.get(),
            retries: self.retries.get(),
            failures: self.failures.get(),
        }
    }
}
