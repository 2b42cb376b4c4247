//! Decides what goes into the next object: a pure state machine. It is a group commit over all
//! subtasks: with room on the link, waiting deltas go at once, and while requests are on their way,
//! more deltas gather.
//!
//! Deltas that a barrier waits for, or that belong to an early cut whose barrier is near, are
//! *hurried*, and go first and alone. The others go when they justify a request of their own, or
//! when nothing else is on its way.
//!
//! Stores are cut at about the same time, and their deltas are sealed one after the other. Waiting
//! deltas are therefore held for the deltas that were being sealed when they came, unless they are
//! enough for an object already. Deltas that stores begin to seal later do not prolong that.

use std::collections::{BTreeMap, VecDeque};

use crate::changelog::{LARGE, Portion, Upload};
use crate::ids::{DeltaSeq, SubtaskIndex};

/// Delta objects on their way at a time. On a slow link more of them would only take the time from
/// each other until none arrives before its deadline.
pub(crate) const PARALLEL_DELTAS: u32 = 8;
/// Of these, the ones that are reserved for hurried deltas.
const RESERVED: usize = 1;
/// Largest object that is made of several deltas: a request that fails starts over with all of it.
pub(crate) const MAX_OBJECT: u64 = 8 << 20;
/// From this size on, deltas are not held for more.
const ENOUGH: u64 = LARGE;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Gather {
    stores: BTreeMap<SubtaskIndex, Queue>,
    /// Objects on their way.
    sending: usize,
    /// Offers so far, to order the stores.
    offers: u64,
    /// The last delta that each store has under way to being sealed.
    sealing: BTreeMap<SubtaskIndex, DeltaSeq>,
    /// The same as it was when the first of the waiting deltas came. They are held for these.
    held_for: BTreeMap<SubtaskIndex, DeltaSeq>,
}

/// The waiting deltas of one store, oldest first.
#[derive(Debug, Default)]
struct Queue {
    deltas: VecDeque<(u64, Upload)>,
    /// The last delta that is hurried.
    hurried: DeltaSeq,
    /// The last delta that a barrier waits for.
    barrier: DeltaSeq,
}

impl Queue {
    fn next(&self, hurried: bool) -> Option<&(u64, Upload)> {
        self.deltas.front().filter(|(_, upload)| !hurried || upload.first <= self.hurried)
    }

    fn weight(&self, hurried: bool) -> u64 {
        let chosen = self.deltas.iter().take_while(|(_, upload)| !hurried || upload.first <= self.hurried);
        chosen.map(|(_, upload)| upload.weight()).sum()
    }
}

impl Gather {
    /// A store has sealed deltas to be uploaded, in this order.
    pub(super) fn offer(&mut self, subtask: SubtaskIndex, deltas: Vec<Upload>) {
        // Noted once, for the first that waits. Otherwise stores that seal one after the other would hold it
        // for ever.
        if self.is_empty() {
            self.held_for = self.sealing.clone();
        }
        self.offers += 1;
        let queue = self.stores.entry(subtask).or_default();
        queue.deltas.extend(deltas.into_iter().map(|upload| (self.offers, upload)));
    }

    /// All deltas of the store up to `through`, offered or to come, are hurried.
    pub(super) fn hurry(&mut self, subtask: SubtaskIndex, through: DeltaSeq) {
        let queue = self.stores.entry(subtask).or_default();
        queue.hurried = queue.hurried.max(through);
    }

    /// As [`Gather::hurry`], because a barrier waits for them.
    pub(super) fn barrier(&mut self, subtask: SubtaskIndex, through: DeltaSeq) {
        self.hurry(subtask, through);
        let queue = self.stores.entry(subtask).or_default();
        queue.barrier = queue.barrier.max(through);
    }

    /// The store has the deltas from the first to the last of `under_way` to seal, and has offered
    /// what it will offer of those before.
    pub(super) fn sealing(&mut self, subtask: SubtaskIndex, under_way: Option<(DeltaSeq, DeltaSeq)>) {
        match under_way {
            Some((_, last)) => self.sealing.insert(subtask, last),
            None => self.sealing.remove(&subtask),
        };
        // A store may seal one delta after the other without a pause.
        let awaited = |held_for: &DeltaSeq| under_way.is_some_and(|(first, _)| first <= *held_for);
        if !self.held_for.get(&subtask).is_some_and(awaited) {
            self.held_for.remove(&subtask);
        }
    }

    /// Whether a barrier waits, or has waited, for the store's delta.
    pub(super) fn barrier_waits(&self, subtask: SubtaskIndex, delta: DeltaSeq) -> bool {
        self.stores.get(&subtask).is_some_and(|queue| delta <= queue.barrier)
    }

    /// The deltas to send now as one object, ordered by subtask. Call again until it returns None.
    pub(super) fn next(&mut self) -> Option<Vec<Portion>> {
        if self.sending >= PARALLEL_DELTAS as usize {
            return None;
        }
        let weight = |hurried| self.stores.values().map(|queue| queue.weight(hurried)).sum::<u64>();
        let (hurried, weight) = match weight(true) {
            0 => (false, weight(false)),
            weight => (true, weight),
        };
        let most = PARALLEL_DELTAS as usize - if hurried { 0 } else { RESERVED };
        let room = most.checked_sub(self.sending).filter(|room| *room > 0)?;
        let at_once = self.held_for.is_empty() && (hurried || self.sending == 0);
        // Too little for a request of its own while others are on their way: more gathers meanwhile.
        if weight == 0 || (weight < ENOUGH && !at_once) {
            return None;
        }
        // Several objects at a time complete sooner than one, if each justifies its request.
        let objects = (weight / ENOUGH).clamp(1, room as u64);
        let aim = weight.div_ceil(objects).min(MAX_OBJECT);
        self.sending += 1;
        Some(self.take(hurried, aim))
    }

    /// An object is there, or was given up.
    pub(super) fn sent(&mut self) {
        debug_assert!(self.sending > 0, "an object arrived that was not on its way");
        self.sending = self.sending.saturating_sub(1);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.stores.values().all(|queue| queue.deltas.is_empty())
    }

    /// Whether nothing waits, nor is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.sending == 0 && self.is_empty()
    }

    /// Deltas of some `aim` bytes: those of the store that came first, then of the next. At least
    /// one.
    fn take(&mut self, hurried: bool, aim: u64) -> Vec<Portion> {
        let waiting = |(subtask, queue): (&SubtaskIndex, &Queue)| Some((queue.next(hurried)?.0, *subtask));
        let mut order: Vec<_> = self.stores.iter().filter_map(waiting).collect();
        order.sort_unstable();
        let mut bytes = 0;
        let mut portions = Vec::new();
        for (_, subtask) in order {
            let mut deltas = Vec::new();
            let Some(queue) = self.stores.get_mut(&subtask) else { continue };
            while let Some((_, next)) = queue.next(hurried) {
                let with_it = bytes + next.weight();
                if bytes >= aim || (bytes > 0 && with_it > MAX_OBJECT) {
                    break;
                }
                bytes = with_it;
                deltas.extend(queue.deltas.pop_front().map(|(_, upload)| upload));
            }
            if deltas.is_empty() {
                break;
            }
            portions.push(Portion { subtask, deltas });
        }
        if self.is_empty() {
            self.held_for.clear();
        }
        // Parts of a subtask that are packed or restored then lie side by side.
        portions.sort_by_key(|portion| portion.subtask);
        portions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;

    fn upload(seq: u64, bytes: usize) -> Upload {
        let seq = DeltaSeq(seq);
        Upload { first: seq, last: seq, bytes: vec![0; bytes].into(), crc32c: 0, entries: 1, _hold: None }
    }

    fn offer(gather: &mut Gather, subtask: u32, seq: u64, bytes: usize) {
        gather.offer(SubtaskIndex(subtask), vec![upload(seq, bytes)]);
    }

    /// The deltas of each object that goes now, as subtask and number.
    fn sent(gather: &mut Gather) -> Vec<Vec<(u32, u64)>> {
        std::iter::from_fn(|| gather.next())
            .map(|portions| {
                let all = portions.iter().flat_map(|portion| {
                    portion.deltas.iter().map(|upload| (portion.subtask.0, upload.last.0))
                });
                all.collect()
            })
            .collect()
    }

    #[test]
    fn what_waits_goes_at_once_and_what_comes_meanwhile_gathers() {
        let mut gather = Gather::default();
        offer(&mut gather, 3, 1, 10);
        assert_eq!(sent(&mut gather), [[(3, 1)]]);
        for subtask in [2, 0, 1] {
            offer(&mut gather, subtask, 1, 20 * KIB);
        }
        assert_eq!(sent(&mut gather), [[(0, 0); 0]; 0], "nobody waits for it");
        gather.sent();
        assert_eq!(sent(&mut gather), [[(0, 1), (1, 1), (2, 1)]]);
        gather.sent();
        assert!(gather.is_idle());
    }

    #[test]
    fn a_barrier_of_many_subtasks_takes_few_objects_at_the_same_time() {
        for (subtasks, bytes, objects) in [(256, 20 * KIB, 2), (64, 20 * KIB, 1), (256, 250 * KIB, 8)] {
            let mut gather = Gather::default();
            for subtask in 0..subtasks {
                gather.barrier(SubtaskIndex(subtask), DeltaSeq(1));
                offer(&mut gather, subtask, 1, bytes);
            }
            let sent = sent(&mut gather);
            assert_eq!(sent.len(), objects, "{subtasks} × {bytes}");
            assert_eq!(sent.iter().flatten().count(), subtasks as usize);
            assert!(sent.iter().all(|deltas| deltas.len() * bytes <= MAX_OBJECT as usize));
            assert!(gather.is_empty());
        }
    }

    #[test]
    fn what_is_hurried_goes_first_and_beside_what_is_on_its_way() {
        let mut gather = Gather::default();
        offer(&mut gather, 0, 1, 10);
        assert_eq!(sent(&mut gather), [[(0, 1)]]);
        offer(&mut gather, 1, 1, 10);
        offer(&mut gather, 2, 5, 10);
        offer(&mut gather, 2, 6, 10);
        gather.hurry(SubtaskIndex(2), DeltaSeq(5));
        assert_eq!(sent(&mut gather), [[(2, 5)]], "the others' bytes would make it slower");
        gather.barrier(SubtaskIndex(1), DeltaSeq(1));
        assert_eq!(sent(&mut gather), [[(1, 1)]]);
        // Also what comes after it was said.
        gather.barrier(SubtaskIndex(3), DeltaSeq(9));
        offer(&mut gather, 3, 9, 10);
        assert_eq!(sent(&mut gather), [[(3, 9)]]);
        assert!(!gather.is_empty(), "nobody waits for the rest");
        assert!(gather.barrier_waits(SubtaskIndex(3), DeltaSeq(9)));
        assert!(!gather.barrier_waits(SubtaskIndex(3), DeltaSeq(10)));
        assert!(!gather.barrier_waits(SubtaskIndex(2), DeltaSeq(5)), "somebody else does");
    }

    #[test]
    fn what_is_enough_for_a_request_does_not_wait() {
        let mut gather = Gather::default();
        offer(&mut gather, 0, 1, 10);
        assert_eq!(sent(&mut gather).len(), 1);
        offer(&mut gather, 0, 2, MIB);
        assert!(sent(&mut gather).is_empty());
        offer(&mut gather, 1, 1, MIB);
        assert_eq!(sent(&mut gather), [[(0, 2), (1, 1)]]);
        // Large ones go side by side rather than one after the other.
        for subtask in 0..4 {
            offer(&mut gather, subtask, 3, 4 * MIB);
        }
        assert_eq!(sent(&mut gather), [[(0, 3)], [(1, 3)], [(2, 3)], [(3, 3)]]);
    }

    #[test]
    fn what_waits_is_held_for_those_who_are_sealing() {
        let mut gather = Gather::default();
        for subtask in 0..3 {
            gather.sealing(SubtaskIndex(subtask), Some((DeltaSeq(1), DeltaSeq(1))));
            gather.barrier(SubtaskIndex(subtask), DeltaSeq(1));
        }
        offer(&mut gather, 0, 1, 10);
        gather.sealing(SubtaskIndex(0), None);
        assert!(sent(&mut gather).is_empty());
        // One that begins later does not prolong it.
        gather.sealing(SubtaskIndex(7), Some((DeltaSeq(1), DeltaSeq(1))));
        offer(&mut gather, 1, 1, 10);
        gather.sealing(SubtaskIndex(1), None);
        assert!(sent(&mut gather).is_empty());
        // This one had little, which goes with the manifest.
        gather.sealing(SubtaskIndex(2), None);
        assert_eq!(sent(&mut gather), [[(0, 1), (1, 1)]]);
        gather.barrier(SubtaskIndex(2), DeltaSeq(2));
        offer(&mut gather, 2, 2, 3 * MIB);
        assert_eq!(sent(&mut gather), [[(2, 2)]], "enough as it is");
    }

    #[test]
    fn a_store_that_never_stops_sealing_holds_nothing_up() {
        let mut gather = Gather::default();
        let sealing = |gather: &mut Gather, first, last| {
            gather.sealing(SubtaskIndex(0), Some((DeltaSeq(first), DeltaSeq(last))));
        };
        sealing(&mut gather, 1, 2);
        gather.barrier(SubtaskIndex(1), DeltaSeq(1));
        offer(&mut gather, 1, 1, 10);
        sealing(&mut gather, 2, 3);
        assert!(sent(&mut gather).is_empty(), "delta 2 was being sealed already");
        sealing(&mut gather, 3, 4);
        assert_eq!(sent(&mut gather), [[(1, 1)]]);
    }

    #[test]
    fn i6_no_more_are_on_their_way_than_the_link_takes() {
        let mut gather = Gather::default();
        for seq in 1..=20 {
            offer(&mut gather, 0, seq, 8 * MIB);
        }
        assert_eq!(sent(&mut gather).len(), 7, "one is left to what is hurried");
        gather.hurry(SubtaskIndex(0), DeltaSeq(20));
        assert_eq!(sent(&mut gather), [[(0, 8)]]);
        for seq in 9..=20 {
            gather.sent();
            assert_eq!(sent(&mut gather), [[(0, seq)]]);
        }
        assert!(gather.is_empty());
    }

    #[test]
    fn an_object_is_bounded_however_much_waits() {
        let mut gather = Gather::default();
        let mut seq = 0;
        let deltas = [3 * MIB, 3 * MIB, 3 * MIB, 20 * MIB, 10].map(|bytes| {
            seq += 1;
            upload(seq, bytes)
        });
        // No room but for one.
        gather.sending = PARALLEL_DELTAS as usize - RESERVED - 1;
        gather.offer(SubtaskIndex(0), deltas.into());
        let mut one = || {
            let sent = sent(&mut gather);
            gather.sent();
            sent
        };
        assert_eq!(one(), [[(0, 1), (0, 2)]], "as many as fit");
        assert_eq!(one(), [[(0, 3)]], "never out of order");
        assert_eq!(one(), [[(0, 4)]], "one delta alone, whatever its size");
        assert_eq!(one(), [[(0, 0); 0]; 0], "little, while others are on their way");
    }
}
