//! How many bytes of answers are still in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use object_store::{GetResult, GetResultPayload};

/// Bytes that were read and are still in memory.
#[derive(Debug, Default)]
pub(super) struct HeldBytes {
    now: AtomicU64,
    most: AtomicU64,
}

/// A part of an answer, which counts until it is dropped.
struct Chunk {
    bytes: Bytes,
    held: Arc<HeldBytes>,
}

impl HeldBytes {
    /// The bytes now, and the most since the last call.
    pub(super) fn take(&self) -> (u64, u64) {
        let now = self.now.load(Ordering::SeqCst);
        (now, self.most.swap(now, Ordering::SeqCst))
    }

    /// Counts the body of `answer`. A local file is read by the caller, and is not counted.
    pub(super) fn watch(self: &Arc<Self>, mut answer: GetResult) -> GetResult {
        answer.payload = match answer.payload {
            GetResultPayload::Stream(chunks) => {
                let held = Arc::clone(self);
                let chunks = chunks.map(move |chunk| chunk.map(|bytes| held.chunk(bytes)));
                GetResultPayload::Stream(chunks.boxed())
            }
            file => file,
        };
        answer
    }

    fn chunk(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let len = bytes.len() as u64;
        let now = self.now.fetch_add(len, Ordering::SeqCst) + len;
        self.most.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Chunk { bytes, held: Arc::clone(self) })
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.held.now.fetch_sub(self.bytes.len() as u64, Ordering::SeqCst);
    }
}
