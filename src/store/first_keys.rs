//! A bounded read of the first keys of a key group.

use crate::error::Result;

use super::scan::Scan;

/// This many bytes of a key tell roughly when a group's turn comes, because the key of a timer
/// begins with its time.
pub(super) const SHORT: usize = 64;

/// The first keys of a group from some key on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FirstKeys {
    pub(crate) keys: Vec<Vec<u8>>,
    /// The first key that was not read. None: there are no more.
    pub(crate) next: Option<Vec<u8>>,
}

/// Limits of a read. It ends at whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) keys: usize,
    pub(crate) bytes: usize,
}

impl FirstKeys {
    /// Takes keys up to the limits of `batch`, but at least one, and notes where the next one is.
    pub(super) fn take(scan: &mut Scan, batch: Batch) -> Result<Self> {
        scan.without_values();
        let (mut read, mut left) = (Self::default(), batch.bytes);
        for entry in scan {
            let (key, _) = entry?;
            if read.keys.len() == batch.keys || (left == 0 && !read.keys.is_empty()) {
                read.next = Some(key);
                break;
            }
            left = left.saturating_sub(key.len());
            read.keys.push(key);
        }
        Ok(read)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.keys.iter().map(Vec::len).sum()
    }

    /// Keeps nothing but roughly where the first key is.
    #[must_use]
    pub(crate) fn about(self) -> Self {
        let mut next = self.keys.into_iter().next().or(self.next);
        if let Some(next) = &mut next {
            next.truncate(SHORT);
        }
        Self { keys: Vec::new(), next }
    }
}
