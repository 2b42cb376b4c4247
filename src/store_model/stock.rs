//! What lies in the store: what it bills.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use object_store::path::Path;

use crate::intercept::{Op, Request};

#[derive(Debug, Default)]
pub(super) struct Stock(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    objects: HashMap<Path, u64>,
    bytes: u64,
    peak: u64,
}

impl Stock {
    /// Counts what a request has changed. Deletions are counted object by object, by
    /// [`Self::delete`].
    pub(super) fn applied(&self, request: &Request) {
        match (request.op, &request.from) {
            (Op::Put | Op::Complete, _) => self.put(request.path.clone(), request.bytes),
            (Op::Copy, Some(from)) => self.copy(from, &request.path),
            _ => {}
        }
    }

    pub(super) fn put(&self, location: Path, bytes: u64) {
        let mut counts = self.counts();
        let before = counts.objects.insert(location, bytes).unwrap_or(0);
        counts.bytes = counts.bytes - before + bytes;
        counts.peak = counts.peak.max(counts.bytes);
    }

    pub(super) fn copy(&self, from: &Path, to: &Path) {
        let bytes = self.counts().objects.get(from).copied();
        if let Some(bytes) = bytes {
            self.put(to.clone(), bytes);
        }
    }

    pub(super) fn delete(&self, location: &Path) {
        let mut counts = self.counts();
        let bytes = counts.objects.remove(location).unwrap_or(0);
        counts.bytes -= bytes;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.counts().bytes
    }

    pub(super) fn peak(&self) -> u64 {
        self.counts().peak
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
