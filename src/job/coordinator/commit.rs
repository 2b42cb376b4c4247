//! Commits a checkpoint whose receipts are complete.

use std::collections::BTreeMap;

use super::copies::Copies;
use super::{Coordinator, Pending};
use crate::changelog::{Receipt, ReceiptBase, ReceiptDelta};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{StateId, SubtaskIndex};
use crate::manifest::{
    BaseRef, CheckpointRecord, CommitDraft, DeltaRef, Inline, JoinedStates, StateInfo, StateLists, States,
    SubtaskRecord,
};
use crate::remote::ObjectName;

impl Coordinator {
    pub(super) async fn commit(&mut self) {
        let Some(mut pending) = self.state.pending.take() else { return };
        let aborted = |message: String| {
            Err(Error::new(ErrorKind::Aborted, message)
                .advise("whether it counts is found out by the next commit"))
        };
        let result = match self.draft(&mut pending) {
            // Either limit drops the commit where it stands. That loses nothing: the chain has noted the
            // nonce, and the next commit reads what became of it.
            Ok(draft) => tokio::select! {
                result = tokio::time::timeout_at(pending.deadline, self.chain.commit(draft)) => {
                    let timeout = self.schedule.timeout;
                    result.unwrap_or_else(|_| aborted(format!("no verdict on the commit within {timeout:?}")))
                }
                () = self.closing.notified() => {
                    self.state.closing = true;
                    aborted("the job was closed during the commit".into())
                }
            },
            Err(error) => {
                // Subtasks that disagree about a state will not agree later, so no checkpoint can be committed.
                self.attempt.fail(error.clone());
                Err(error)
            }
        };
        match result {
            Ok(committed) => self.succeed(pending, &committed),
            Err(error) => {
                // The failed commit may have read that an earlier one, in doubt until now, is there.
                let adopted = self.chain.take_adopted();
                self.adopt(&adopted);
                // Back again, so that `give_up` tells its stores and its caller.
                self.state.pending = Some(pending);
                if self.chain.stopped().is_some() {
                    self.attempt.fail(error.clone());
                }
                self.fail(&error);
            }
        }
    }

    /// Makes the checkpoint's record from the receipts. Inline bytes go into the manifest, and the
    /// record refers to them.
    fn draft(&mut self, pending: &mut Pending) -> Result<CommitDraft> {
        // A checkpoint without one of its subtasks would restore to less than the state at its cut (I1).
        assert!(pending.receipts.keys().eq(self.subtasks.keys()), "a receipt of every subtask");
        let carrier = ObjectName::manifest(self.chain.next_version());
        let states = self.describe(&pending.receipts)?;
        let copies = self.copies(&pending.receipts)?;
        let mut inline = Inline::new();
        let subtasks =
            pending.receipts.values().map(|receipt| subtask_record(receipt, &copies, &carrier, &mut inline));
        let record = CheckpointRecord {
            id: pending.trigger.id,
            mode: self.mode,
            unix_millis: self.remote.env().clock.unix_millis(),
            subtasks: subtasks.collect(),
            metadata: std::mem::take(&mut pending.trigger.metadata),
            operators: self.operators.clone(),
            states: States::new(states),
        };
        Ok(CommitDraft { record, inline, keep: self.retain_count() })
    }

    /// Looks through state that every subtask of an operator has in full.
    fn copies(&self, receipts: &BTreeMap<SubtaskIndex, Receipt>) -> Result<Copies> {
        // Rare. Without it there is nothing to compare.
        if receipts.values().all(|receipt| receipt.elements.is_empty()) {
            return Ok(Copies::default());
        }
        let finished = |subtask| self.subtasks.get(&subtask).is_some_and(|subtask| subtask.finished);
        let mut copies = Copies::default();
        let receipts: Vec<_> = receipts.values().collect();
        let mut rest = &receipts[..];
        for count in self.runs(receipts.len()) {
            let (own, others) = rest.split_at(count.min(rest.len()));
            rest = others;
            copies.add(own, finished)?;
        }
        Ok(copies)
    }

    /// How many subtasks each operator has.
    fn runs(&self, all: usize) -> Vec<usize> {
        match self.operators.as_slice() {
            [] => vec![all],
            named => named.iter().map(|operator| operator.subtasks as usize).collect(),
        }
    }

    /// The states of each operator: what its subtasks say of them, taken together.
    fn describe(&mut self, receipts: &BTreeMap<SubtaskIndex, Receipt>) -> Result<StateLists> {
        let receipts: Vec<_> = receipts.values().collect();
        let mut rest = &receipts[..];
        let counts = self.runs(receipts.len());
        self.state.described.resize_with(counts.len(), JoinedStates::default);
        let lists = self.state.described.iter_mut().zip(counts).map(|(described, count)| {
            let (own, others) = rest.split_at(count.min(rest.len()));
            rest = others;
            let parts = own.iter().map(|receipt| &receipt.states);
            described.of_all(parts).map_err(|error| clash(own, error))
        });
        Ok(StateLists::new(lists.collect::<Result<_>>()?))
    }
}

/// A subtask's record in the manifest `carrier`. The receipt's inline bytes are added to `inline`.
fn subtask_record(
    receipt: &Receipt,
    copies: &Copies,
    carrier: &ObjectName,
    inline: &mut Inline,
) -> SubtaskRecord {
    let deltas = receipt.deltas.iter().map(|delta| delta_ref(delta, carrier, inline)).collect();
    let base = receipt.base.clone().map(|base| base_ref(base, carrier, inline));
    SubtaskRecord {
        subtask: receipt.subtask,
        range: receipt.range,
        origins: receipt.origins.clone(),
        base,
        deltas,
        seq: receipt.seq,
        metadata: receipt.metadata.clone(),
        elements: copies.elements_of(receipt),
        instance: receipt.instance,
    }
}

fn delta_ref(delta: &ReceiptDelta, carrier: &ObjectName, inline: &mut Inline) -> DeltaRef {
    match delta {
        ReceiptDelta::Stored(delta) => delta.clone(),
        ReceiptDelta::Inline { seq, entries, crc32c, bytes } => DeltaRef {
            object: carrier.clone(),
            offset: inline.push(bytes.clone()),
            length: bytes.len() as u64,
            crc32c: *crc32c,
            first: *seq,
            last: *seq,
            entries: *entries,
        },
    }
}

fn base_ref(base: ReceiptBase, carrier: &ObjectName, inline: &mut Inline) -> BaseRef {
    match base {
        ReceiptBase::Stored(base) => base,
        ReceiptBase::Inline { index, mut reference } => {
            reference.object = carrier.clone();
            reference.offset = inline.push(index);
            reference
        }
    }
}

/// Two subtasks have registered one state differently, so no checkpoint can hold both. Names the
/// two.
fn clash(receipts: &[&Receipt], cause: Error) -> Error {
    let mut known = BTreeMap::<StateId, (SubtaskIndex, StateInfo)>::new();
    let all =
        receipts.iter().flat_map(|receipt| receipt.states.iter().map(move |state| (receipt.subtask, state)));
    for (subtask, state) in all {
        let (first, joined) = known.entry(state.id).or_insert_with(|| (subtask, state.clone()));
        if let Err(cause) = joined.join(state) {
            let message =
                format!("subtasks {first} and {subtask} use a state in ways that do not go together");
            return Error::new(cause.kind(), message)
                .object(format!("state {:?}", state.name))
                .source(cause)
                .advise(
                    "no checkpoint of this attempt can be complete: mend the program, and open the job again",
                );
        }
    }
    cause
}
