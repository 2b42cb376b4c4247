//! Names for the objects that one store instance writes.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::{Epoch, Nonce, SubtaskIndex};
use crate::remote::{DataKind, ObjectName};

/// Hands out object names that are never given again: they carry the epoch, the subtask, the
/// instance's nonce and a counter. Shared by everything that uploads for one store instance.
#[derive(Debug)]
pub(crate) struct NameSource {
    epoch: Epoch,
    subtask: SubtaskIndex,
    instance: Nonce,
    next: AtomicU64,
}

impl NameSource {
    pub(crate) fn new(epoch: Epoch, subtask: SubtaskIndex, instance: Nonce) -> Self {
        Self { epoch, subtask, instance, next: AtomicU64::new(0) }
    }

    pub(crate) fn next(&self, kind: DataKind) -> ObjectName {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        ObjectName::data(self.epoch, self.subtask, self.instance, kind, n)
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn subtask(&self) -> SubtaskIndex {
        self.subtask
    }

    pub(crate) fn instance(&self) -> Nonce {
        self.instance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_given_twice() {
        let names = NameSource::new(Epoch(2), SubtaskIndex(1), Nonce([3; 16]));
        let (first, second) = (names.next(DataKind::Sst), names.next(DataKind::Sst));
        assert_ne!(first, second);
        assert!(first.to_string().starts_with("data/00000000000000000002/00001/0303"), "{first}");
        assert!(second.to_string().ends_with("/0000000001.sst"), "{second}");
    }
}
