//! Sealing: a frozen delta is sorted, compressed and checksummed beside the task.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::budget::BudgetShare;
use crate::delta::{self, DeltaHeader, Sealed};
use crate::ids::DeltaSeq;
use crate::materialize::blocking;
use crate::store::event::Event;
use crate::store::layer::ChargedLayer;

use super::StoreTask;

impl StoreTask {
    /// A delta was frozen: it is sealed at once, because its memory is freed only then.
    pub(super) fn frozen(&mut self, held: ChargedLayer, sealed_share: BudgetShare) {
        let seq = held.layer.seq;
        debug_assert!(seq > self.frozen, "deltas come in their order");
        self.parts.tail.frozen(seq);
        self.frozen = seq;
        self.sealing.insert(seq);
        self.seal(held, sealed_share);
    }

    /// Encodes a frozen delta beside the task.
    pub(super) fn seal(&self, held: ChargedLayer, share: BudgetShare) {
        let names = &self.parts.uploader.names;
        let header = DeltaHeader {
            epoch: names.epoch(),
            subtask: names.subtask(),
            range: self.parts.range,
            first: held.layer.seq,
            last: held.layer.seq,
        };
        let (events, shared) = (self.events.clone(), Arc::clone(&self.parts.shared));
        let expiries = Arc::clone(&self.parts.expiries);
        let seal = move |held: &ChargedLayer| {
            // The clock is read once for each delta: all entries are judged by one time.
            let mut now = expiries.now();
            delta::seal(&held.layer.delta, &header, |key, entry| now.live(key, entry))
        };
        tokio::spawn(async move {
            // The whole of it goes there and back: a closure that names `layer` alone would capture
            // that alone, and the delta would count no longer while it is still being encoded.
            let encode = move || Ok((seal(&held), held));
            match blocking(encode).await {
                Ok((sealed, held)) => {
                    events.send(Event::Sealed { seq: held.layer.seq, sealed, share });
                }
                Err(error) => shared.fail(error),
            }
        });
    }

    /// A delta is encoded. Its share of the budget was an estimate, which the exact one replaces.
    pub(super) fn sealed(&mut self, seq: DeltaSeq, sealed: Sealed, share: BudgetShare) {
        let shared = &self.parts.shared;
        let bytes = sealed.bytes.len() as u64;
        shared.deltas_sealed.fetch_add(1, Ordering::Relaxed);
        shared.sealed_bytes.fetch_add(bytes, Ordering::Relaxed);
        let exact = shared.budget.take(bytes);
        drop(share);
        self.sealing.remove(&seq);
        self.parts.tail.sealed(seq, sealed, Arc::new(exact));
    }
}
