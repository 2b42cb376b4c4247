//! The tail against a simple model, with events in any order that the task may see.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeBounds;
use std::sync::Arc;

use proptest::prelude::*;

use super::joined::{Moved, Upload};
use super::receipt::ReceiptDelta;
use super::tail::{Action, Flush, Tail};
use crate::budget::Budget;
use crate::delta::Sealed;
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, SubtaskIndex, Version};
use crate::manifest::{BaseRef, DeltaRef};
use crate::remote::{DataKind, ObjectName};

const LIMIT: u64 = 100;

/// Numbers choose one of what is there.
#[derive(Debug, Clone)]
enum Step {
    Freeze,
    Seal {
        which: usize,
        bytes: usize,
    },
    Hurry,
    Barrier,
    /// An upload has ended.
    Arrive {
        which: usize,
        small: bool,
    },
    Commit(usize),
    Abort(usize),
    /// A base of all but the newest deltas.
    Base(u64),
    /// Memory is short, or the job drains.
    Flush,
}

fn any_step() -> impl Strategy<Value = Step> {
    let which = 0..8_usize;
    prop_oneof![
        4 => Just(Step::Freeze),
        4 => (which.clone(), 1..130_usize).prop_map(|(which, bytes)| Step::Seal { which, bytes }),
        2 => Just(Step::Hurry),
        3 => Just(Step::Barrier),
        2 => (which.clone(), any::<bool>()).prop_map(|(which, small)| Step::Arrive { which, small }),
        2 => which.clone().prop_map(Step::Commit),
        1 => which.prop_map(Step::Abort),
        1 => (0..4_u64).prop_map(Step::Base),
        1 => Just(Step::Flush),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Sealing,
    Held(u64),
    Offered(u64, u64),
    Uploading,
    Durable,
}

struct Both {
    tail: Tail<CheckpointId>,
    budget: Arc<Budget>,
    /// Those that no base covers.
    deltas: BTreeMap<u64, Place>,
    last: u64,
    hurried: u64,
    /// The last delta before each cut, and the checkpoint.
    barriers: VecDeque<(u64, u64)>,
    checkpoints: u64,
    needs_base: bool,
    base: Option<u64>,
    next_base: Option<u64>,
    flush: bool,
    uploads: Vec<Vec<Upload>>,
    /// The deltas that receipts have offered to checkpoints that are not decided.
    receipts: BTreeMap<u64, Vec<u64>>,
}

fn id(number: u64) -> CheckpointId {
    CheckpointId { epoch: Epoch(1), number }
}

fn object(n: u64) -> ObjectName {
    ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce::default(), DataKind::Delta, n)
}

fn delta(seq: u64, object: ObjectName) -> DeltaRef {
    let seq = DeltaSeq(seq);
    DeltaRef { object, offset: 0, length: 1, crc32c: 0, first: seq, last: seq, entries: 1 }
}

impl Both {
    fn new(needs_base: bool) -> Self {
        let tail = Tail::new(LIMIT, Vec::new(), None, Vec::new());
        Self {
            tail: if needs_base { tail.needing_base() } else { tail },
            budget: Budget::new(1 << 20),
            deltas: BTreeMap::new(),
            last: 0,
            hurried: 0,
            barriers: VecDeque::new(),
            checkpoints: 0,
            needs_base,
            base: None,
            next_base: None,
            flush: false,
            uploads: Vec::new(),
            receipts: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Freeze => {
                self.last += 1;
                self.tail.frozen(DeltaSeq(self.last));
                self.deltas.insert(self.last, Place::Sealing);
            }
            Step::Seal { which, bytes } => {
                let sealing: Vec<_> = self.all(|place| place == Place::Sealing).collect();
                if let Some(seq) = sealing.get(which % sealing.len().max(1)) {
                    self.seal(*seq, bytes);
                }
            }
            Step::Hurry => {
                self.hurried = self.last;
                self.tail.hurry(DeltaSeq(self.last));
            }
            // One is under way, and the cut for another may be late.
            Step::Barrier if self.barriers.len() + self.receipts.len() < 2 => {
                self.checkpoints += 1;
                self.barriers.push_back((self.last, self.checkpoints));
                self.tail.barrier(DeltaSeq(self.last), id(self.checkpoints));
            }
            Step::Barrier => {}
            Step::Arrive { which, small } => {
                if !self.uploads.is_empty() {
                    self.arrive(which % self.uploads.len(), small);
                }
            }
            Step::Commit(which) => {
                if let Some(number) = self.receipts.keys().copied().nth(which) {
                    self.commit(number);
                }
            }
            Step::Abort(which) => {
                let waiting = self.barriers.iter().map(|(_, number)| *number);
                if let Some(number) = self.receipts.keys().copied().chain(waiting).nth(which) {
                    self.abort(number);
                }
            }
            Step::Base(before) => {
                let newest = self.next_base.or(self.base);
                let seq = self.last.saturating_sub(before).max(newest.unwrap_or(0));
                // The first base of a table that came from elsewhere stands where the store began.
                self.materialize(if self.needs_base && newest.is_none() { 0 } else { seq });
            }
            Step::Flush => self.flush = true,
        }
        self.settle();
    }

    fn all(&self, which: impl Fn(Place) -> bool) -> impl Iterator<Item = u64> {
        self.deltas.iter().filter(move |(_, place)| which(**place)).map(|(seq, _)| *seq)
    }

    fn seal(&mut self, seq: u64, bytes: usize) {
        let sealed = Sealed { bytes: vec![0; bytes].into(), crc32c: 0, entries: 1 };
        self.tail.sealed(DeltaSeq(seq), sealed, Arc::new(self.budget.take(bytes as u64)));
        self.deltas.insert(seq, Place::Held(bytes as u64));
    }

    fn arrive(&mut self, which: usize, small: bool) {
        let arrived = self.uploads.remove(which);
        let numbers: Vec<_> = arrived.iter().map(|upload| upload.last.0).collect();
        let object = object(numbers[0]);
        let deltas = numbers.iter().map(|seq| delta(*seq, object.clone())).collect();
        self.tail.moved(Moved { deltas, runs: Vec::new(), small });
        self.durable(&numbers);
    }

    fn commit(&mut self, number: u64) {
        let mut carried = self.receipts.remove(&number).unwrap();
        let carrier = ObjectName::manifest(Version(number));
        let refs = carried.iter().map(|seq| delta(*seq, carrier.clone())).collect();
        self.tail.committed(id(number), refs);
        // A later checkpoint may have been offered them since.
        let offered = |place: &Place| matches!(place, Place::Offered(to, _) if *to == number);
        carried.retain(|seq| self.deltas.get(seq).is_some_and(offered));
        self.durable(&carried);
    }

    fn durable(&mut self, numbers: &[u64]) {
        // A base may have overtaken them.
        numbers.iter().for_each(|seq| _ = self.deltas.get_mut(seq).map(|place| *place = Place::Durable));
    }

    fn abort(&mut self, number: u64) {
        self.receipts.remove(&number);
        let waited = self.barriers.iter().any(|(_, waiting)| *waiting == number);
        self.barriers.retain(|(_, waiting)| *waiting != number);
        for place in self.deltas.values_mut() {
            match *place {
                Place::Offered(to, bytes) if to == number => *place = Place::Held(bytes),
                _ => {}
            }
        }
        let context = self.tail.aborted(id(number), |id| *id);
        assert_eq!(context, waited.then_some(id(number)));
        self.flush = true;
    }

    fn materialize(&mut self, seq: u64) {
        self.next_base = Some(seq);
        self.tail.materialized(BaseRef {
            object: object(1000 + seq),
            offset: 0,
            length: 1,
            crc32c: 0,
            seq: DeltaSeq(seq),
            state_bytes: 1,
            files: Vec::new(),
        });
    }

    /// Does what the tail asks for, as the task does after each event.
    fn settle(&mut self) {
        let flush = if self.flush { Flush::All } else { Flush::AboveLimit };
        for _ in 0..100 {
            self.adopt();
            match self.tail.advance(flush, |id| *id) {
                Some(Action::Upload(uploads)) => self.upload(uploads, flush),
                Some(Action::Ready { context, seq, base, deltas, .. }) => {
                    self.ready(context, seq, base.map(|base| base.seq.0), &deltas);
                }
                None => {
                    self.check(flush);
                    self.flush &= !self.tail.is_flushed();
                    return;
                }
            }
        }
        panic!("there is no end of what has to be done");
    }

    fn adopt(&mut self) {
        let blocked = |base: u64| self.barriers.front().is_some_and(|(seq, _)| *seq < base);
        if let Some(base) = self.next_base.take_if(|base| !blocked(*base)) {
            self.base = Some(base);
            self.deltas.retain(|seq, _| *seq > base);
        }
    }

    /// The held deltas of a range, and their bytes.
    fn held(&self, range: impl RangeBounds<u64>) -> (Vec<u64>, u64) {
        let held = self.deltas.range(range).filter_map(|(seq, place)| match place {
            Place::Held(bytes) => Some((*seq, *bytes)),
            _ => None,
        });
        let (numbers, bytes): (Vec<_>, Vec<_>) = held.unzip();
        (numbers, bytes.iter().sum())
    }

    /// Held bytes that may wait for a barrier that is not there yet.
    fn may_wait(&self, held: &[u64], flush: Flush) -> u64 {
        match flush {
            Flush::All => 0,
            Flush::AboveLimit if held.iter().any(|seq| *seq <= self.hurried) => LIMIT / 2,
            Flush::AboveLimit => LIMIT,
        }
    }

    fn upload(&mut self, uploads: Vec<Upload>, flush: Flush) {
        let numbers: Vec<_> = uploads.iter().map(|upload| upload.last.0).collect();
        let front = self.barriers.front().map(|(seq, _)| *seq);
        let (held, bytes) = match front.filter(|seq| numbers[0] <= *seq) {
            Some(seq) => self.held(..=seq),
            None => self.held(front.map_or(0, |seq| seq + 1)..),
        };
        assert_eq!(numbers, held, "all of them at once");
        let waits = front.is_some_and(|seq| numbers[0] <= seq);
        let most = if waits { LIMIT } else { self.may_wait(&held, flush) };
        assert!(bytes > most, "{bytes} bytes could wait");
        held.iter().for_each(|seq| _ = self.deltas.insert(*seq, Place::Uploading));
        self.uploads.push(uploads);
    }

    fn ready(&mut self, context: CheckpointId, seq: DeltaSeq, base: Option<u64>, deltas: &[ReceiptDelta]) {
        let (cut, number) = self.barriers.pop_front().unwrap();
        assert_eq!((context, seq, base), (id(number), DeltaSeq(cut), self.base));
        let named = deltas.iter().map(|delta| match delta {
            ReceiptDelta::Stored(delta) => (delta.last.0, false),
            ReceiptDelta::Inline { seq, .. } => (seq.0, true),
        });
        let named: Vec<_> = named.collect();
        let expected = self.deltas.range(..=cut).map(|(seq, place)| (*seq, *place != Place::Durable));
        assert_eq!(named, expected.collect::<Vec<_>>(), "all since the base, up to the cut");
        assert!(self.held(..=cut).1 <= LIMIT, "too much for the manifest");
        let inline = named.iter().filter(|(_, inline)| *inline).map(|(seq, _)| *seq);
        for seq in inline.clone() {
            let place = self.deltas[&seq];
            let (Place::Held(bytes) | Place::Offered(_, bytes)) = place else { panic!("{seq} is {place:?}") };
            self.deltas.insert(seq, Place::Offered(number, bytes));
        }
        self.receipts.insert(number, inline.collect());
    }

    /// Nothing is left to do.
    fn check(&self, flush: Flush) {
        let ahead = match self.barriers.front() {
            Some((seq, _)) => {
                let any = |place| self.deltas.range(..=seq).any(|(_, there)| *there == place);
                let stands = !self.needs_base || self.base.is_some();
                assert!(
                    any(Place::Sealing) || any(Place::Uploading) || !stands,
                    "the barrier waits for nothing: {:?}",
                    self.deltas
                );
                assert!(any(Place::Sealing) || self.held(..=*seq).1 <= LIMIT, "too much for the manifest");
                seq + 1
            }
            None => 0,
        };
        let (held, bytes) = self.held(ahead..);
        assert!(bytes <= self.may_wait(&held, flush), "{bytes} bytes wait for a barrier");
        let is_flushed = self.all(|place| matches!(place, Place::Sealing | Place::Held(_))).next().is_none();
        assert_eq!(self.tail.is_flushed(), is_flushed);
    }

    /// All that is under way comes to its end, and no checkpoint is committed any more.
    fn end(mut self) {
        if self.needs_base && self.next_base.or(self.base).is_none() {
            self.materialize(0);
        }
        for seq in self.all(|place| place == Place::Sealing).collect::<Vec<_>>() {
            self.seal(seq, 10);
        }
        self.settle();
        self.arrive_all();
        assert!(self.barriers.is_empty(), "{:?}", self.barriers);
        while let Some(number) = self.receipts.keys().next().copied() {
            self.abort(number);
        }
        self.flush = true;
        self.settle();
        self.arrive_all();
        assert_eq!(self.all(|place| place != Place::Durable).next(), None);
        assert!(self.tail.is_idle() && self.tail.is_flushed() && !self.flush);
        assert_eq!(self.budget.held(), 0, "what is durable no longer counts");
    }

    fn arrive_all(&mut self) {
        while !self.uploads.is_empty() {
            self.arrive(0, false);
            self.settle();
        }
    }
}

proptest! {
    #[test]
    fn i6_no_delta_and_no_barrier_waits_for_ever(
        needs_base in any::<bool>(),
        steps in proptest::collection::vec(any_step(), 1..120),
    ) {
        let mut both = Both::new(needs_base);
        for step in &steps {
            both.step(step);
        }
        both.end();
    }
}
