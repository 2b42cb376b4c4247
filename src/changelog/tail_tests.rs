//! The tail's rules, one by one.

use std::sync::Arc;

use super::joined::Moved;
use super::receipt::ReceiptDelta;
use super::tail::{Action, Flush, Retired, Tail};
use crate::budget::Budget;
use crate::delta::Sealed;
use crate::ids::{CheckpointId, DeltaSeq, Nonce};
use crate::ids::{Epoch, SubtaskIndex, Version};
use crate::manifest::{BaseRef, DeltaRef};
use crate::remote::DataKind;
use crate::remote::ObjectName;

const LIMIT: u64 = 100;
const INSTANCE: Nonce = Nonce([7; 16]);

fn id(number: u64) -> CheckpointId {
    CheckpointId { epoch: Epoch(1), number }
}

fn object(n: u64) -> ObjectName {
    ObjectName::data(Epoch(1), SubtaskIndex(0), INSTANCE, DataKind::Delta, n)
}

fn delta(seq: u64, object: ObjectName) -> DeltaRef {
    let seq = DeltaSeq(seq);
    DeltaRef { object, offset: 0, length: 10, crc32c: 0, first: seq, last: seq, entries: 1 }
}

fn base(seq: u64) -> BaseRef {
    BaseRef {
        object: object(1000 + seq),
        offset: 0,
        length: 1,
        crc32c: 0,
        seq: DeltaSeq(seq),
        state_bytes: 1,
        files: vec![object(2000 + seq)],
    }
}

/// A tail whose barriers carry nothing but the checkpoint's id.
struct Fixture {
    tail: Tail<CheckpointId>,
    budget: Arc<Budget>,
    packing: Arc<Budget>,
}

/// Deltas that lie each in the object named, which is large.
fn large(deltas: Vec<DeltaRef>) -> Moved {
    Moved { deltas, runs: Vec::new(), small: false }
}

impl Fixture {
    fn new() -> Self {
        let packing = Budget::new(1000);
        let tail = Tail::new(LIMIT, Vec::new(), None, Vec::new()).keeping(Arc::clone(&packing));
        Self { tail, budget: Budget::new(1 << 20), packing }
    }

    fn sealed(&mut self, seq: u64, bytes: usize) {
        let sealed = Sealed { bytes: vec![0; bytes].into(), crc32c: 0, entries: 1 };
        let share = Arc::new(self.budget.take(bytes as u64));
        self.tail.sealed(DeltaSeq(seq), sealed, share);
    }

    fn held(&mut self, seq: u64, bytes: usize) {
        self.tail.frozen(DeltaSeq(seq));
        self.sealed(seq, bytes);
    }

    fn advance(&mut self, flush: Flush) -> Option<Action<CheckpointId>> {
        self.tail.advance(flush, |id| *id)
    }

    /// The deltas that have to be uploaded now.
    fn uploads(&mut self, flush: Flush) -> Vec<u64> {
        match self.advance(flush) {
            Some(Action::Upload(uploads)) => uploads.iter().map(|upload| upload.last.0).collect(),
            None => Vec::new(),
            Some(Action::Ready { .. }) => panic!("no barrier is ready"),
        }
    }

    /// The deltas of the receipt, with whether each is inline, and the base's number.
    fn ready(&mut self) -> (Vec<(u64, bool)>, Option<u64>) {
        let Some(Action::Ready { deltas, base, .. }) = self.advance(Flush::AboveLimit) else {
            panic!("the barrier is not ready");
        };
        let deltas = deltas.iter().map(|delta| match delta {
            ReceiptDelta::Stored(delta) => (delta.last.0, false),
            ReceiptDelta::Inline { seq, .. } => (seq.0, true),
        });
        (deltas.collect(), base.map(|base| base.seq.0))
    }
}

#[test]
fn a_small_tail_waits_for_the_barrier_and_travels_inline() {
    let mut f = Fixture::new();
    f.held(1, 40);
    assert!(f.advance(Flush::AboveLimit).is_none());
    f.tail.frozen(DeltaSeq(2));
    f.tail.barrier(DeltaSeq(2), id(1));
    assert!(f.advance(Flush::AboveLimit).is_none(), "delta 2 is not sealed yet");
    f.sealed(2, 40);
    assert_eq!(f.ready(), (vec![(1, true), (2, true)], None));
    assert_eq!(f.budget.held(), 80);
    let carrier = ObjectName::manifest(Version(9));
    f.tail.committed(id(1), vec![delta(1, carrier.clone()), delta(2, carrier)]);
    assert_eq!(f.budget.held(), 0, "what is durable no longer counts");
    assert!(f.tail.durable().all(|(_, bytes)| bytes.is_some()), "kept for packing");
    assert_eq!(f.packing.held(), 80, "and counts there");
}

#[test]
fn above_the_limit_nothing_waits_for_a_barrier() {
    let mut f = Fixture::new();
    f.held(1, 60);
    f.held(2, 60);
    assert_eq!(f.uploads(Flush::AboveLimit), [1, 2]);
    assert!(f.advance(Flush::AboveLimit).is_none(), "once is enough");
    f.tail.barrier(DeltaSeq(2), id(1));
    assert!(f.advance(Flush::AboveLimit).is_none(), "not durable yet");
    f.tail.moved(large(vec![delta(1, object(1)), delta(2, object(1))]));
    assert_eq!(f.ready(), (vec![(1, false), (2, false)], None));
}

#[test]
fn a_large_tail_at_the_barrier_is_uploaded_first() {
    let mut f = Fixture::new();
    f.tail.frozen(DeltaSeq(1));
    f.tail.barrier(DeltaSeq(1), id(1));
    f.sealed(1, 200);
    assert_eq!(f.uploads(Flush::AboveLimit), [1]);
    f.tail.moved(large(vec![delta(1, object(1))]));
    assert_eq!(f.ready(), (vec![(1, false)], None));
}

#[test]
fn i6_an_aborted_tail_is_uploaded_and_belongs_to_the_next_checkpoint() {
    let mut f = Fixture::new();
    f.held(1, 40);
    f.tail.barrier(DeltaSeq(1), id(1));
    f.ready();
    assert!(f.tail.is_flushed());
    assert_eq!(f.tail.aborted(id(1), |id| *id), None);
    assert!(!f.tail.is_flushed());
    assert_eq!(f.uploads(Flush::All), [1]);
    f.tail.moved(large(vec![delta(1, object(1))]));
    f.tail.barrier(DeltaSeq(1), id(2));
    assert_eq!(f.ready(), (vec![(1, false)], None));
}

#[test]
fn an_aborted_barrier_waits_no_longer() {
    let mut f = Fixture::new();
    f.tail.frozen(DeltaSeq(1));
    f.tail.barrier(DeltaSeq(1), id(1));
    assert_eq!(f.tail.aborted(id(1), |id| *id), Some(id(1)));
    f.sealed(1, 10);
    assert!(f.advance(Flush::AboveLimit).is_none());
}

#[test]
fn i1_a_base_newer_than_a_waiting_cut_is_not_used_for_it() {
    let mut f = Fixture::new();
    f.held(1, 10);
    f.tail.frozen(DeltaSeq(2));
    f.tail.barrier(DeltaSeq(2), id(1));
    f.tail.frozen(DeltaSeq(3));
    f.tail.materialized(base(3));
    f.sealed(2, 10);
    assert_eq!(f.ready(), (vec![(1, true), (2, true)], None), "base 3 has more than the cut at 2");
    f.tail.barrier(DeltaSeq(3), id(2));
    assert_eq!(f.ready(), (vec![], Some(3)), "for the next cut it stands for all");
    assert_eq!(f.tail.bytes_since_base(), 0);
}

#[test]
fn what_nothing_refers_to_is_handed_out_once() {
    let mut f = Fixture::new();
    f.held(1, 10);
    f.tail.moved(large(vec![delta(1, object(1))]));
    f.tail.materialized(base(1));
    f.advance(Flush::AboveLimit);
    assert_eq!(f.tail.take_retired(INSTANCE).own, [object(1)]);
    f.tail.materialized(base(2));
    f.advance(Flush::AboveLimit);
    let mut retired = f.tail.take_retired(INSTANCE).own;
    retired.sort();
    assert_eq!(retired, [object(1001), object(2001)]);
    f.tail.moved(large(vec![delta(1, object(9))]));
    assert_eq!(f.tail.take_retired(INSTANCE).own, [object(9)], "came after its base");
    f.tail.moved(large(vec![delta(2, object(10))]));
    let others = f.tail.take_retired(Nonce([1; 16]));
    assert_eq!(others, Retired { own: Vec::new(), shared: vec![object(10)] }, "of another instance");
    f.tail.committed(id(1), vec![delta(2, ObjectName::manifest(Version(3)))]);
    assert_eq!(f.tail.take_retired(INSTANCE), Retired::default(), "commits drop manifests");
}

#[test]
fn i3_late_word_of_a_commit_does_not_count_once_a_later_checkpoint_was_offered_the_delta() {
    let mut f = Fixture::new();
    f.held(1, 40);
    for number in [1, 2] {
        f.tail.barrier(DeltaSeq(1), id(number));
        assert_eq!(f.ready(), (vec![(1, true)], None));
    }
    // Checkpoint 2 was committed as well, so nothing needs the manifest of checkpoint 1.
    f.tail.committed(id(1), vec![delta(1, ObjectName::manifest(Version(9)))]);
    f.tail.barrier(DeltaSeq(1), id(3));
    assert_eq!(f.ready(), (vec![(1, true)], None), "nothing refers to manifest 9");
    f.tail.committed(id(3), vec![delta(1, ObjectName::manifest(Version(11)))]);
    f.tail.barrier(DeltaSeq(1), id(4));
    assert_eq!(f.ready(), (vec![(1, false)], None));
}

#[test]
fn memory_that_is_short_does_not_wait_for_a_barrier_in_front() {
    let mut f = Fixture::new();
    f.tail.frozen(DeltaSeq(1));
    f.tail.barrier(DeltaSeq(1), id(1));
    f.held(2, 10);
    assert!(f.advance(Flush::AboveLimit).is_none());
    assert_eq!(f.uploads(Flush::All), [2]);
}

#[test]
fn i6_what_comes_after_a_waiting_barrier_goes_up_above_the_limit() {
    let mut f = Fixture::new();
    f.held(1, 200);
    f.tail.barrier(DeltaSeq(1), id(1));
    assert_eq!(f.uploads(Flush::AboveLimit), [1], "what the barrier waits for goes first");
    f.held(2, 60);
    assert!(f.advance(Flush::AboveLimit).is_none(), "small enough for the next manifest");
    f.held(3, 60);
    assert_eq!(f.uploads(Flush::AboveLimit), [2, 3]);
    f.tail.moved(large(vec![delta(1, object(1))]));
    assert_eq!(f.ready(), (vec![(1, false)], None));
}

#[test]
fn i6_bytes_count_for_as_long_as_their_upload_holds_them() {
    let mut f = Fixture::new();
    f.held(1, 200);
    let Some(Action::Upload(uploads)) = f.advance(Flush::AboveLimit) else { panic!("it is above the limit") };
    // A base overtakes it.
    f.tail.materialized(base(1));
    f.advance(Flush::AboveLimit);
    assert_eq!(f.budget.held(), 200, "the upload goes on");
    drop(uploads);
    assert_eq!(f.budget.held(), 0);
}

#[test]
fn what_will_be_packed_is_kept_as_long_as_there_is_room() {
    let mut f = Fixture::new();
    let kept = |f: &Fixture| f.tail.durable().map(|(_, bytes)| bytes.is_some()).collect::<Vec<_>>();
    let small = |deltas| Moved { small: true, ..large(deltas) };
    for seq in 1..=4 {
        f.held(seq, 400);
        assert_eq!(f.uploads(Flush::AboveLimit), [seq]);
        f.tail.moved(small(vec![delta(seq, object(seq))]));
    }
    // The third fills it, and more is not asked for.
    assert_eq!((kept(&f), f.packing.held()), (vec![true, true, true, false], 1200));
    assert_eq!(f.budget.held(), 0);
    // A small pack will be packed again, a large one will not.
    f.tail.moved(small((1..=2).map(|seq| delta(seq, object(100))).collect()));
    assert_eq!((kept(&f), f.packing.held()), (vec![true, true, true, false], 1200));
    f.tail.moved(large((1..=4).map(|seq| delta(seq, object(101))).collect()));
    assert_eq!((kept(&f), f.packing.held()), (vec![false; 4], 0));
}

/// Deltas 1 to 6, of which 2 to 5 lie in a pack, as one run.
fn packed() -> Fixture {
    let mut f = Fixture::new();
    for seq in 1..=6 {
        f.held(seq, 10);
        f.tail.moved(large(vec![delta(seq, object(seq))]));
    }
    let pack = |seq| delta(seq, object(100));
    let run = DeltaRef { last: DeltaSeq(5), length: 40, entries: 4, ..pack(2) };
    f.tail.moved(Moved { deltas: (2..=5).map(pack).collect(), runs: vec![run], small: false });
    f
}

/// First and last delta of each reference of the next receipt.
fn named(f: &mut Fixture, checkpoint: u64, seq: u64) -> Vec<(u64, u64)> {
    f.tail.barrier(DeltaSeq(seq), id(checkpoint));
    let Some(Action::Ready { deltas, .. }) = f.advance(Flush::AboveLimit) else {
        panic!("the barrier is not ready");
    };
    let named = deltas.iter().map(|delta| match delta {
        ReceiptDelta::Stored(delta) => (delta.first.0, delta.last.0),
        ReceiptDelta::Inline { seq, .. } => (seq.0, seq.0),
    });
    named.collect()
}

#[test]
fn i5_one_reference_stands_for_a_run() {
    let mut f = packed();
    assert_eq!(named(&mut f, 1, 6), [(1, 1), (2, 5), (6, 6)]);
    // A cut in the midst of it has the beginning alone.
    assert_eq!(named(&mut f, 2, 4), [(1, 1), (2, 2), (3, 3), (4, 4)]);
    // A larger run takes its place.
    let pack = |seq| delta(seq, object(101));
    let run = DeltaRef { last: DeltaSeq(6), ..pack(1) };
    f.tail.moved(Moved { deltas: (1..=6).map(pack).collect(), runs: vec![run], small: false });
    assert_eq!(named(&mut f, 3, 6), [(1, 6)]);
    assert!(f.tail.take_retired(INSTANCE).own.contains(&object(100)));
}

#[test]
fn i1_a_run_that_a_base_has_the_beginning_of_is_one_no_more() {
    let mut f = packed();
    f.tail.materialized(base(3));
    assert_eq!(named(&mut f, 1, 6), [(4, 4), (5, 5), (6, 6)]);
    let mut f = packed();
    f.tail.materialized(base(1));
    assert_eq!(named(&mut f, 1, 6), [(2, 5), (6, 6)], "all of it is after the base");
}

#[test]
fn i1_a_run_of_which_a_part_has_moved_is_one_no_more() {
    let mut f = packed();
    f.tail.moved(Moved { deltas: vec![delta(4, object(102))], runs: Vec::new(), small: false });
    assert_eq!(named(&mut f, 1, 6), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)]);
}

#[test]
fn a_newer_base_of_the_same_delta_takes_the_place_of_the_old_one() {
    let mut fixture = Fixture::new();
    fixture.tail.materialized(base(4));
    assert_eq!(fixture.advance(Flush::AboveLimit).map(|_| ()), None);
    // What both have is no garbage.
    let kept = object(3000);
    let with_kept = |base: BaseRef| BaseRef { files: [base.files, vec![kept.clone()]].concat(), ..base };
    let newer = BaseRef { seq: DeltaSeq(4), ..base(5) };
    fixture.tail.materialized(with_kept(base(4)));
    fixture.tail.materialized(with_kept(newer.clone()));
    fixture.tail.barrier(DeltaSeq(4), id(1));
    assert_eq!(fixture.tail.base_seq(), Some(DeltaSeq(4)));
    let Some(Action::Ready { base: Some(taken), .. }) = fixture.advance(Flush::AboveLimit) else {
        panic!("the barrier is not ready");
    };
    assert_eq!(taken.object, newer.object);
    let retired = fixture.tail.take_retired(INSTANCE).own;
    assert!(retired.contains(&base(4).object) && retired.contains(&object(2004)), "{retired:?}");
    assert!(!retired.contains(&kept) && !retired.contains(&object(2005)), "{retired:?}");
}

#[test]
fn what_was_cut_ahead_of_a_barrier_leaves_room_for_as_much_again() {
    let mut f = Fixture::new();
    f.held(1, 60);
    assert!(f.advance(Flush::AboveLimit).is_none(), "nothing more is expected");
    f.tail.hurry(DeltaSeq(1));
    assert_eq!(f.uploads(Flush::AboveLimit), [1]);
    f.held(2, 50);
    f.tail.hurry(DeltaSeq(2));
    assert!(f.advance(Flush::AboveLimit).is_none(), "both fit");
    f.tail.moved(large(vec![delta(1, object(1))]));
    f.held(3, 50);
    f.tail.barrier(DeltaSeq(3), id(1));
    assert_eq!(f.ready(), (vec![(1, false), (2, true), (3, true)], None));
}

#[test]
fn what_was_cut_ahead_of_a_barrier_and_sealed_after_it_travels_inline() {
    let mut f = Fixture::new();
    f.tail.frozen(DeltaSeq(1));
    f.tail.hurry(DeltaSeq(1));
    f.tail.frozen(DeltaSeq(2));
    f.tail.barrier(DeltaSeq(2), id(1));
    f.sealed(1, 60);
    assert!(f.advance(Flush::AboveLimit).is_none(), "delta 2 is not sealed yet");
    f.sealed(2, 40);
    assert_eq!(f.ready(), (vec![(1, true), (2, true)], None), "one request instead of two");
}

#[test]
fn what_comes_after_the_barrier_of_an_early_cut_waits_for_the_next_as_usual() {
    let mut f = Fixture::new();
    f.held(1, 120);
    assert_eq!(f.uploads(Flush::AboveLimit), [1]);
    f.held(2, 40);
    f.tail.hurry(DeltaSeq(2));
    f.tail.barrier(DeltaSeq(2), id(1));
    f.held(3, 60);
    assert!(f.advance(Flush::AboveLimit).is_none(), "delta 3 was not cut ahead of a barrier");
    f.tail.moved(large(vec![delta(1, object(1))]));
    assert_eq!(f.ready(), (vec![(1, false), (2, true)], None));
}
