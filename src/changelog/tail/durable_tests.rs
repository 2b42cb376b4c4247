//! The durable deltas against a model that walks over all of them each time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::durable::Durable;
use crate::changelog::{Moved, Portion, Upload, lay_out};
use crate::ids::{DeltaSeq, Epoch, Nonce, SubtaskIndex};
use crate::manifest::DeltaRef;
use crate::remote::{DataKind, ObjectName};

const SUBTASK: SubtaskIndex = SubtaskIndex(0);

fn object(n: u64) -> ObjectName {
    ObjectName::data(Epoch(1), SUBTASK, Nonce::default(), DataKind::Pack, n)
}

#[derive(Debug, Clone)]
enum Step {
    /// The next delta; one that was restored may stand for several.
    Put {
        wide: u64,
        length: u64,
    },
    /// Packs so many pieces from here on, one of them left out. It is delivered at once or later.
    Pack {
        from: usize,
        count: usize,
        without: Option<usize>,
        later: bool,
    },
    /// Delivers one of those that are on their way.
    Deliver(usize),
    /// A base of up to so many deltas before the newest.
    Rebase(u64),
    Adopt,
}

fn any_step() -> impl Strategy<Value = Step> {
    let without = proptest::option::weighted(0.2, 0..6_usize);
    prop_oneof![
        4 => (1..4_u64, 1..100_u64).prop_map(|(wide, length)| Step::Put { wide, length }),
        3 => (0..40_usize, 1..12_usize, without, any::<bool>())
            .prop_map(|(from, count, without, later)| Step::Pack { from, count, without, later }),
        2 => (0..4_usize).prop_map(Step::Deliver),
        1 => (0..20_u64).prop_map(Step::Rebase),
        1 => Just(Step::Adopt),
    ]
}

#[derive(Default)]
struct Model {
    pieces: BTreeMap<DeltaSeq, DeltaRef>,
    runs: Vec<DeltaRef>,
    base: DeltaSeq,
}

impl Model {
    /// Returns the objects that a reference to is dropped.
    fn moved(&mut self, moved: &Moved) -> BTreeSet<ObjectName> {
        let mut left = BTreeSet::new();
        for delta in &moved.deltas {
            match self.pieces.get_mut(&delta.last) {
                Some(piece) => left.insert(std::mem::replace(piece, delta.clone()).object),
                None => left.insert(delta.object.clone()),
            };
        }
        for run in &moved.runs {
            self.runs.retain(|old| old.last < run.first || old.first > run.last);
            self.runs.push(run.clone());
        }
        left
    }

    fn adopt(&mut self) -> BTreeSet<ObjectName> {
        self.runs.retain(|run| run.first > self.base);
        let kept = self.pieces.split_off(&self.base.next());
        std::mem::replace(&mut self.pieces, kept).into_values().map(|delta| delta.object).collect()
    }

    fn named(&self, last: DeltaSeq) -> Vec<DeltaRef> {
        let pieces: Vec<_> = self.pieces.range(..=last).map(|(_, delta)| delta).collect();
        let (mut rest, mut named) = (pieces.as_slice(), Vec::new());
        while let Some((first, others)) = rest.split_first() {
            let run = self.runs.iter().find(|run| run.first == first.first);
            let count = run.map_or(0, |run| rest.iter().take_while(|delta| run.has(delta)).count());
            let whole = run.filter(|run| count > 0 && rest[count - 1].last == run.last);
            named.push(whole.unwrap_or(first).clone());
            rest = if whole.is_some() { &rest[count..] } else { others };
        }
        named
    }

    fn bytes(&self) -> u64 {
        self.pieces.range(self.base.next()..).map(|(_, delta)| delta.length).sum()
    }
}

/// Both side by side.
#[derive(Default)]
struct Both {
    durable: Durable,
    model: Model,
    newest: DeltaSeq,
    objects: u64,
    on_the_way: Vec<Moved>,
}

impl Both {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put { wide, length } => {
                let (first, last) = (self.newest.next(), DeltaSeq(self.newest.0 + wide));
                self.newest = last;
                self.objects += 1;
                let object = object(self.objects);
                let delta = DeltaRef { object, offset: 0, length, crc32c: 0, first, last, entries: 1 };
                self.durable.put(delta.clone(), None);
                self.model.pieces.insert(last, delta);
            }
            Step::Pack { from, count, without, later } => {
                let pieces = self.model.pieces.values().skip(from).take(count).enumerate();
                let pieces = pieces.filter(|(at, _)| Some(*at) != without).map(|(_, delta)| delta);
                let deltas: Vec<_> = pieces.map(upload).collect();
                self.objects += 1;
                let portions = [Portion { subtask: SUBTASK, deltas }];
                let mut moved = lay_out(&portions, &object(self.objects));
                self.on_the_way.extend(moved.pop().map(|(_, moved)| moved));
                if !later {
                    self.deliver(self.on_the_way.len() - 1);
                }
            }
            Step::Deliver(at) if at < self.on_the_way.len() => self.deliver(at),
            Step::Deliver(_) => {}
            Step::Rebase(before) => {
                let base = DeltaSeq(self.newest.0.saturating_sub(before)).max(self.model.base);
                self.model.base = base;
                self.durable.rebase(base);
            }
            Step::Adopt => {
                let left: BTreeSet<_> = self.durable.drop_through(self.model.base).into_iter().collect();
                assert_eq!(left, self.model.adopt());
            }
        }
    }

    fn deliver(&mut self, at: usize) {
        let moved = self.on_the_way.remove(at);
        let expected = self.model.moved(&moved);
        let relocate = |delta| self.durable.relocate(delta, true).unwrap_or_else(|delta| delta.object);
        let left: BTreeSet<_> = moved.deltas.into_iter().map(relocate).collect();
        assert_eq!(left, expected);
        moved.runs.into_iter().for_each(|run| self.durable.add_run(run));
    }

    fn check(&self) {
        let (durable, model) = (&self.durable, &self.model);
        for last in [self.newest.0, self.newest.0.saturating_sub(1), self.newest.0 / 2].map(DeltaSeq) {
            assert_eq!(durable.named(last), model.named(last), "up to {last}");
        }
        assert_eq!(durable.bytes(), model.bytes());
        for n in 1..=self.objects {
            let there = model.pieces.values().any(|delta| delta.object == object(n));
            assert_eq!(durable.is_in(&object(n)), there, "object {n}");
        }
        let pieces = durable.pieces_of(&durable.named(self.newest)).into_iter().map(|(delta, _)| delta);
        assert!(pieces.eq(model.pieces.values().cloned()));
    }
}

fn upload(delta: &DeltaRef) -> Upload {
    let DeltaRef { first, last, length, entries, .. } = *delta;
    let bytes = vec![last.0 as u8; length as usize];
    Upload { first, last, crc32c: crc32c::crc32c(&bytes), bytes: bytes.into(), entries, _hold: None }
}

proptest! {
    #[test]
    fn i1_durable_deltas_are_named_as_by_one_that_looks_at_all_of_them(
        steps in proptest::collection::vec(any_step(), 1..80),
    ) {
        let mut both = Both::default();
        for step in &steps {
            both.step(step);
            both.check();
        }
    }
}

#[test]
fn lengths_that_no_object_has_do_not_overflow() {
    let delta = |seq| DeltaRef {
        object: object(seq),
        offset: 0,
        length: u64::MAX,
        crc32c: 0,
        first: DeltaSeq(seq),
        last: DeltaSeq(seq),
        entries: 1,
    };
    let mut durable = Durable::new(DeltaSeq(0), vec![delta(1), delta(2), delta(u64::MAX)]);
    assert_eq!(durable.bytes(), u64::MAX);
    assert_eq!(durable.named(DeltaSeq(u64::MAX)).len(), 3);
    let backwards = DeltaRef { first: DeltaSeq(2), ..delta(1) };
    durable.add_run(backwards.clone());
    assert_eq!(durable.pieces_of(&[backwards]), []);
    durable.rebase(DeltaSeq(2));
    assert_eq!(durable.drop_through(DeltaSeq(2)), [object(1), object(2)]);
    assert_eq!(durable.bytes(), u64::MAX);
    durable.drop_through(DeltaSeq(u64::MAX));
    assert_eq!(durable.bytes(), 0);
}
