//! Bytes that travel in a manifest: deltas, and parts that later manifests refer to.

use std::ops::Range;

use bytes::Bytes;

/// Deltas, and what is said for later manifests, that travel in a manifest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inline {
    parts: Vec<Bytes>,
    len: u64,
}

impl Inline {
    /// Where inline bytes begin: right after the header, so that their offsets are known before the body.
    pub(super) const START: u64 = 28;

    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes` and returns their offset in the manifest.
    pub(crate) fn push(&mut self, bytes: Bytes) -> u64 {
        let offset = Self::START + self.len;
        self.len += bytes.len() as u64;
        self.parts.push(bytes);
        offset
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter()
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Where they lie in the manifest.
    pub(super) fn range(&self) -> Range<u64> {
        Self::START..Self::START + self.len
    }
}
