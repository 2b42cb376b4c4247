//! State that every subtask of an operator has in full: a checkpoint has it once, and only if all have
//! the same. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::changelog::Receipt;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{StateId, SubtaskIndex};
use crate::manifest::{Elements, Spread};

/// The subtasks whose copies a checkpoint leaves out.
#[derive(Debug, Default)]
pub(super) struct Copies(BTreeSet<SubtaskIndex>);

impl Copies {
    /// Compares the copies of one operator's subtasks, and keeps one: that of the first which has not
    /// finished, because a finished one may have missed the last changes.
    ///
    /// # Errors
    /// `Incompatible` if two that have not finished differ.
    pub(super) fn add(
        &mut self,
        receipts: &[&Receipt],
        finished: impl Fn(SubtaskIndex) -> bool,
    ) -> Result<()> {
        let mut running = receipts.iter().filter(|receipt| !finished(receipt.subtask));
        let Some(keeper) = running.next().or(receipts.first()) else { return Ok(()) };
        for other in running {
            if let Some(state) = difference(&keeper.elements, &other.elements) {
                return Err(differ(keeper, other, state));
            }
        }
        let others = receipts.iter().map(|receipt| receipt.subtask);
        self.0.extend(others.filter(|subtask| *subtask != keeper.subtask));
        Ok(())
    }

    /// What the checkpoint has of a subtask.
    pub(super) fn elements_of(&self, receipt: &Receipt) -> Arc<[Elements]> {
        let is_copy = |elements: &Elements| elements.spread == Spread::Copy;
        if !self.0.contains(&receipt.subtask) || !receipt.elements.iter().any(is_copy) {
            return Arc::clone(&receipt.elements);
        }
        receipt.elements.iter().filter(|elements| !is_copy(elements)).cloned().collect()
    }
}

/// A state whose copies are not the same.
fn difference(one: &[Elements], other: &[Elements]) -> Option<StateId> {
    let copies = |list: &'_ [Elements]| {
        list.iter().filter(|elements| elements.spread == Spread::Copy).cloned().collect::<Vec<_>>()
    };
    let (one, other) = (copies(one), copies(other));
    let lacks = |list: &[Elements], elements: &Elements| !list.contains(elements);
    let first = one.iter().find(|elements| lacks(&other, elements));
    first.or_else(|| other.iter().find(|elements| lacks(&one, elements))).map(|elements| elements.state)
}

fn differ(one: &Receipt, other: &Receipt, state: StateId) -> Error {
    let name = |receipt: &Receipt| {
        receipt.states.iter().find(|info| info.id == state).map(|info| format!("state {:?}", info.name))
    };
    let message =
        format!("subtasks {} and {} have different entries of a broadcast state", one.subtask, other.subtask);
    Error::new(ErrorKind::Incompatible, message)
        .object(name(one).or_else(|| name(other)).unwrap_or_else(|| format!("state {state}")))
        .advise("have all subtasks change it in the same way before the barrier")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::changelog::ReceiptCost;
    use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce};
    use crate::key_group::{KeyGroup, KeyGroupRange};

    fn elements(state: u32, spread: Spread, item: &'static str) -> Elements {
        Elements { state: StateId(state), spread, items: vec![Bytes::from_static(item.as_bytes())] }
    }

    fn receipt(subtask: u32, elements: Vec<Elements>) -> Receipt {
        Receipt {
            checkpoint: CheckpointId { epoch: Epoch(1), number: 1 },
            subtask: SubtaskIndex(subtask),
            range: KeyGroupRange { first: KeyGroup(0), last: KeyGroup(0) },
            instance: Nonce::default(),
            seq: DeltaSeq(0),
            origins: Vec::new(),
            base: None,
            deltas: Vec::new(),
            metadata: Vec::new(),
            elements: elements.into(),
            states: [].into(),
            cost: ReceiptCost::default(),
        }
    }

    /// With a share of its own, and this copy.
    fn with(subtask: u32, copy: &'static str) -> Receipt {
        receipt(subtask, vec![elements(1, Spread::Deal, "own"), elements(2, Spread::Copy, copy)])
    }

    fn kept(receipts: &[Receipt], finished: &[u32]) -> Result<Vec<usize>> {
        let mut copies = Copies::default();
        let finished = |subtask: SubtaskIndex| finished.contains(&subtask.0);
        copies.add(&receipts.iter().collect::<Vec<_>>(), finished)?;
        Ok(receipts.iter().map(|receipt| copies.elements_of(receipt).len()).collect())
    }

    #[test]
    fn one_copy_is_kept_and_everybodys_own() {
        assert_eq!(kept(&[with(3, "a"), with(4, "a"), with(5, "a")], &[]).unwrap(), [2, 1, 1]);
        assert_eq!(kept(&[receipt(3, vec![]), receipt(4, vec![])], &[]).unwrap(), [0, 0]);
    }

    #[test]
    fn a_finished_subtask_is_not_asked_while_another_runs() {
        assert_eq!(kept(&[with(0, "old"), with(1, "new"), with(2, "new")], &[0]).unwrap(), [1, 2, 1]);
        assert_eq!(kept(&[with(0, "old"), with(1, "older")], &[0, 1]).unwrap(), [2, 1]);
    }

    #[test]
    fn i1_copies_that_differ_are_refused() {
        for receipts in [
            [with(0, "a"), with(1, "b")],
            [with(0, "a"), receipt(1, Vec::new())],
            [receipt(0, Vec::new()), with(1, "a")],
        ] {
            let error = kept(&receipts, &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible);
            assert!(error.to_string().contains("subtasks 0 and 1"), "{error}");
        }
    }
}
