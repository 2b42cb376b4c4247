//! State that is not keyed, dealt to the subtasks that an operator has now. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::StateId;
use crate::manifest::{Elements, OperatorPart, Spread};

/// What a subtask restores of its operator's state that is not keyed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dealt {
    /// What it begins with, ascending by state.
    pub(crate) own: Arc<[Elements]>,
    /// What all subtasks had, in their order; ascending by state.
    pub(crate) all: Arc<[Elements]>,
}

/// What all subtasks of an operator had. Of a state that each has in full, one has it here.
pub(crate) fn gather(part: &OperatorPart<'_>) -> Arc<[Elements]> {
    let mut all = BTreeMap::<StateId, Elements>::new();
    for elements in part.subtasks.iter().flat_map(|record| record.elements.iter()) {
        match all.get_mut(&elements.state) {
            None => _ = all.insert(elements.state, elements.clone()),
            Some(there) if there.spread == Spread::Deal => there.items.extend_from_slice(&elements.items),
            Some(_) => {}
        }
    }
    all.into_values().collect()
}

/// The share of subtask `number` of `parallelism` in what [`gather`] found. At an unchanged number of
/// subtasks each keeps what it had. Otherwise they get as many elements each, in the order of the
/// subtasks that had them, and the first ones get one more where it does not come out even.
pub(super) fn deal(part: &OperatorPart<'_>, all: &Arc<[Elements]>, number: u32, parallelism: u32) -> Dealt {
    let unchanged = part.subtasks.len() == parallelism as usize;
    let before = part.subtasks.get(number as usize).filter(|_| unchanged);
    let own = all.iter().filter_map(|elements| {
        let items = match (elements.spread, before) {
            (Spread::Copy, _) => elements.items.clone(),
            (Spread::Deal, Some(before)) => {
                let kept = before.elements.iter().find(|kept| kept.state == elements.state);
                kept.map(|kept| kept.items.clone()).unwrap_or_default()
            }
            (Spread::Deal, None) => share(&elements.items, number as usize, parallelism as usize).to_vec(),
        };
        (!items.is_empty()).then_some(Elements { items, ..*elements })
    });
    Dealt { own: own.collect(), all: Arc::clone(all) }
}

/// Share `number` of `of`.
fn share<T>(items: &[T], number: usize, of: usize) -> &[T] {
    let of = of.max(1);
    let (each, more) = (items.len() / of, items.len() % of);
    let start = number * each + number.min(more);
    let end = start + each + usize::from(number < more);
    items.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::SubtaskIndex;
    use crate::key_group::MaxParallelism;
    use crate::manifest::SubtaskRecord;
    use crate::manifest::samples::{range, subtask};

    fn elements(state: u32, spread: Spread, items: &[u8]) -> Elements {
        let items = items.iter().map(|item| Bytes::from(vec![*item])).collect();
        Elements { state: StateId(state), spread, items }
    }

    /// Subtasks with these lists of state 1, the first with state 2 for all.
    fn records(lists: &[&[u8]]) -> Vec<SubtaskRecord> {
        let record = |(number, items): (u32, &&[u8])| {
            let mut elements: Vec<_> =
                (!items.is_empty()).then(|| elements(1, Spread::Deal, items)).into_iter().collect();
            if number == 0 {
                elements.push(self::elements(2, Spread::Copy, b"r"));
            }
            let at = number as u16;
            let (subtask_index, elements) = (SubtaskIndex(number), elements.into());
            SubtaskRecord {
                subtask: subtask_index,
                range: range(at, at),
                elements,
                ..subtask(None, Vec::new())
            }
        };
        (0..).zip(lists).map(record).collect()
    }

    fn dealt(lists: &[&[u8]], parallelism: u32) -> Vec<Vec<u8>> {
        let (records, id) = (records(lists), crate::ids::OperatorId::UNNAMED);
        let part = OperatorPart { id, max_parallelism: MaxParallelism::default(), subtasks: &records };
        let all = gather(&part);
        let all_of = |dealt: &[Elements], state: u32| {
            let of = dealt.iter().filter(|elements| elements.state == StateId(state));
            of.flat_map(|elements| &elements.items).map(|item| item[0]).collect::<Vec<_>>()
        };
        let of = |number| {
            let dealt = deal(&part, &all, number, parallelism);
            assert_eq!(all_of(&dealt.own, 2), b"r", "everybody has the rules");
            assert_eq!(all_of(&dealt.all, 1), lists.concat());
            assert!(dealt.own.is_sorted_by_key(|elements| elements.state));
            all_of(&dealt.own, 1)
        };
        (0..parallelism).map(of).collect()
    }

    #[test]
    fn at_an_unchanged_number_of_subtasks_each_keeps_its_own() {
        assert_eq!(dealt(&[b"abcd", b"", b"e"], 3), [b"abcd".to_vec(), vec![], b"e".to_vec()]);
    }

    #[test]
    fn i9_every_element_is_dealt_once_and_evenly() {
        assert_eq!(dealt(&[b"abcd", b"", b"e"], 2), [b"abc".to_vec(), b"de".to_vec()]);
        assert_eq!(dealt(&[b"ab"], 4), [b"a".to_vec(), b"b".to_vec(), vec![], vec![]]);
        for parallelism in 1..9 {
            let shares = dealt(&[b"abc", b"defg", b"h"], parallelism);
            assert_eq!(shares.concat(), b"abcdefgh");
            let sizes = shares.iter().map(Vec::len);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1 || parallelism == 3);
        }
    }
}
