//! What is due, what is left alone, and what it comes to over a long changelog.

use super::super::joined::{Moved, Portion, Upload, lay_out};
use super::*;
use crate::ids::{DeltaSeq, Epoch, Nonce, Version};
use crate::remote::DataKind;

/// Nothing is packed because it weighs much.
const ANY: u64 = u64::MAX;

fn delta(object: ObjectName, length: u64) -> DeltaRef {
    DeltaRef { object, offset: 0, length, crc32c: 0, first: DeltaSeq(1), last: DeltaSeq(1), entries: 1 }
}

fn manifest(version: u64) -> DeltaRef {
    delta(ObjectName::manifest(Version(version)), 1000)
}

fn object(n: u64, length: u64) -> DeltaRef {
    object_of(0, n, length)
}

fn name_of(subtask: u32, n: u64) -> ObjectName {
    ObjectName::data(Epoch(1), SubtaskIndex(subtask), Nonce::default(), DataKind::Delta, n)
}

fn object_of(subtask: u32, n: u64, length: u64) -> DeltaRef {
    DeltaRef { first: DeltaSeq(n), last: DeltaSeq(n), ..delta(name_of(subtask, n), length) }
}

/// As all of one subtask.
fn due_of(deltas: &[DeltaRef], carried: u64) -> Vec<Pack> {
    due(deltas.iter().map(|delta| (SubtaskIndex(0), delta)), carried, &Sizes::default())
}

/// The objects of each pack.
fn names(packs: &[Pack]) -> Vec<BTreeSet<ObjectName>> {
    packs.iter().map(|pack| pack.iter().map(|(_, delta)| delta.object.clone()).collect()).collect()
}

fn sizes(packs: &[Pack]) -> Vec<usize> {
    names(packs).iter().map(BTreeSet::len).collect()
}

/// Packs whatever is due; returns how many packs were written.
fn pack_all(deltas: &mut Vec<DeltaRef>, next: &mut u64) -> usize {
    let mut written = 0;
    loop {
        let due = due_of(deltas, ANY);
        if due.is_empty() {
            return written;
        }
        for names in names(&due) {
            let (packed, rest): (Vec<_>, Vec<_>) =
                deltas.drain(..).partition(|delta| names.contains(&delta.object));
            *deltas = rest;
            *next += 1;
            let bytes = packed.iter().map(|delta| delta.length).sum();
            assert!(bytes <= MAX_PACK, "{bytes} bytes in memory at a time");
            deltas.push(object(*next, bytes));
            written += 1;
        }
    }
}

#[test]
fn manifests_are_packed_when_more_than_sixteen_carry() {
    let mut deltas: Vec<_> = (1..=16).map(manifest).collect();
    // Two deltas in one manifest are one carrier.
    deltas.push(manifest(16));
    assert_eq!(due_of(&deltas, ANY), Vec::<Pack>::new());
    deltas.push(manifest(17));
    assert_eq!(sizes(&due_of(&deltas, ANY)), [17]);
}

#[test]
fn i6_a_few_manifests_that_carry_much_are_packed_before_memory_is_full() {
    let carried = |version| DeltaRef { length: 1 << 20, ..manifest(version) };
    let deltas: Vec<_> = (1..=4).map(carried).collect();
    assert_eq!(sizes(&due_of(&deltas, 4 << 20)), [4]);
    assert_eq!(sizes(&due_of(&deltas, 5 << 20)), [0; 0]);
    assert_eq!(sizes(&due_of(&deltas[1..], 1)), [0; 0], "not at every checkpoint");
}

#[test]
fn small_objects_are_packed_by_size_class_and_large_ones_never() {
    let mut deltas: Vec<_> = (0..7).map(|n| object(n, 100_000)).collect();
    deltas.extend((100..120).map(|n| object(n, LARGE)));
    deltas.extend((200..207).map(|n| object(n, 500_000)));
    assert_eq!(due_of(&deltas, ANY), Vec::<Pack>::new());
    deltas.push(object(7, 200_000));
    assert_eq!(sizes(&due_of(&deltas, ANY)), [15], "of both classes: what they make up is large");
    let few: Vec<_> =
        (0..8).map(|n| object(n, 100_000)).chain((20..22).map(|n| object(n, 500_000))).collect();
    assert_eq!(sizes(&due_of(&few, ANY)), [8], "of one class: it will be packed again");
    // A few of them are enough for an object that is large.
    let deltas: Vec<_> = (0..4).map(|n| object(n, 1 << 20)).collect();
    assert_eq!(sizes(&due_of(&deltas, ANY)), [4]);
    assert_eq!(sizes(&due_of(&deltas[1..], ANY)), [0; 0]);
}

#[test]
fn what_one_pack_holds_is_bounded_and_the_oldest_come_first() {
    let carried = |version| DeltaRef { length: 6 << 20, first: DeltaSeq(version), ..manifest(version) };
    let deltas: Vec<_> = (1..=17).map(carried).collect();
    let packs = due_of(&deltas, ANY);
    assert_eq!(sizes(&packs), [2, 2, 2, 2, 2, 2, 2, 2, 1], "12 MiB each");
    let first: BTreeSet<_> = [1, 2].map(|version| ObjectName::manifest(Version(version))).into();
    assert_eq!(names(&packs)[0], first);

    let mut deltas: Vec<_> = (0..9).map(|n| object(n, LARGE - 1)).collect();
    deltas.reverse();
    let packs = due_of(&deltas, ANY);
    assert_eq!(sizes(&packs), [8], "a pack of one alone would gain nothing");
    assert!(!names(&packs)[0].contains(&deltas[0].object));
}

#[test]
fn i8_objects_stay_few_however_long_the_changelog() {
    let (mut deltas, mut next) = (Vec::new(), 1_000_000);
    for n in 0..5000 {
        deltas.push(object(n, 130_000));
        pack_all(&mut deltas, &mut next);
        let small = deltas.iter().filter(|delta| delta.length < LARGE).count();
        assert!(small <= 7 * 3, "{small} small objects after {n} deltas");
    }
}

#[test]
fn i8_many_subtasks_do_not_pack_at_every_checkpoint() {
    for subtasks in [2, 8, 64, 200] {
        let (mut deltas, mut next, mut runs) = (Vec::new(), 1_000_000, 0);
        for n in 0..400 {
            deltas.extend((0..subtasks).map(|subtask| object_of(subtask, n, 130_000)));
            runs += usize::from(pack_all(&mut deltas, &mut next) > 0);
            let small = deltas.iter().filter(|delta| delta.length < LARGE).count();
            let most = 8.max(subtasks as usize * PER_SUBTASK) + 2 * 7;
            assert!(small < most, "{small} small objects of {subtasks} subtasks after {n} checkpoints");
        }
        assert!(runs <= 400 / PER_SUBTASK, "{runs} runs for 400 checkpoints of {subtasks} subtasks");
    }
}

/// The changelogs of many subtasks whose deltas are joined as they are written, and packed.
struct Many {
    /// What a checkpoint names of each subtask, oldest first.
    named: Vec<Vec<DeltaRef>>,
    sizes: Sizes,
    objects: u64,
    written: u64,
}

impl Many {
    fn new(subtasks: usize) -> Self {
        Self { named: vec![Vec::new(); subtasks], sizes: Sizes::default(), objects: 0, written: 0 }
    }

    fn write(&mut self, portions: &[Portion]) -> Vec<(SubtaskIndex, Moved)> {
        self.objects += 1;
        let moved = lay_out(portions, &name_of(0, self.objects));
        self.written += moved.iter().flat_map(|(_, moved)| &moved.deltas).map(|d| d.length).sum::<u64>();
        moved
    }

    /// A checkpoint at which every subtask adds a delta of `length`.
    fn checkpoint(&mut self, seq: u64, length: usize) {
        let seq = DeltaSeq(seq);
        let bytes = bytes::Bytes::from(vec![0; length]);
        let upload =
            || Upload { first: seq, last: seq, bytes: bytes.clone(), crc32c: 0, entries: 1, _hold: None };
        let all: Vec<_> = (0..self.named.len() as u32).map(SubtaskIndex).collect();
        // In objects of 2 MiB at least, where there is that much.
        let objects = (all.len() * length / LARGE as usize).max(1);
        for subtasks in all.chunks(all.len().div_ceil(objects)) {
            let portion = |subtask: &SubtaskIndex| Portion { subtask: *subtask, deltas: vec![upload()] };
            let portions: Vec<_> = subtasks.iter().map(portion).collect();
            for (subtask, moved) in self.write(&portions) {
                self.named[subtask.0 as usize].extend(moved.deltas);
            }
        }
    }

    /// Packs what is due; how many packs that were.
    fn pack(&mut self) -> usize {
        self.sizes.named(self.named.iter().flatten());
        let named = (0..).map(SubtaskIndex).zip(&self.named);
        let named = named.flat_map(|(subtask, deltas)| deltas.iter().map(move |d| (subtask, d)));
        let packs = due(named, ANY, &self.sizes);
        for pack in &packs {
            let mut portions = Vec::<Portion>::new();
            for (subtask, delta) in pack {
                let DeltaRef { first, last, crc32c, entries, .. } = *delta;
                let bytes = vec![0; delta.length as usize].into();
                let upload = Upload { first, last, bytes, crc32c, entries, _hold: None };
                match portions.last_mut().filter(|portion| portion.subtask == *subtask) {
                    Some(portion) => portion.deltas.push(upload),
                    None => portions.push(Portion { subtask: *subtask, deltas: vec![upload] }),
                }
            }
            for (subtask, moved) in self.write(&portions) {
                let named = &mut self.named[subtask.0 as usize];
                for delta in moved.deltas {
                    let old = named.iter_mut().find(|old| old.first == delta.first).unwrap();
                    assert_eq!(old.last, delta.last);
                    *old = delta;
                }
                for run in moved.runs {
                    named.retain(|old| old.last < run.first || old.first > run.last);
                    let at = named.partition_point(|old| old.last < run.first);
                    named.insert(at, run);
                }
            }
        }
        packs.len()
    }

    /// The subtask takes a base of all that it has.
    fn base(&mut self, subtask: usize) {
        self.named[subtask].clear();
    }

    fn references(&self) -> usize {
        self.named.iter().map(Vec::len).sum()
    }

    fn objects(&self) -> usize {
        self.named.iter().flatten().map(|delta| &delta.object).collect::<BTreeSet<_>>().len()
    }
}

#[test]
fn i5_references_of_many_subtasks_do_not_add_up() {
    for (subtasks, length) in [(64_usize, 90_000_usize), (256, 20_000), (64, 40_000), (16, 200_000)] {
        let mut many = Many::new(subtasks);
        let mut runs = 0;
        for seq in 1..=200 {
            many.checkpoint(seq, length);
            let mut packs = 0;
            for round in 0.. {
                assert!(round < 3, "packing does not come to an end");
                match many.pack() {
                    0 => break,
                    more => packs += more,
                }
            }
            runs += usize::from(packs > 0);
            let bytes = seq * (subtasks * length) as u64;
            let most = subtasks * (FRAGMENTS + 4) + (bytes / WHOLE) as usize;
            let references = many.references();
            assert!(references <= most, "{references} references after {seq}, {subtasks} × {length}");
            let most = (bytes / LARGE) as usize + 2 * 7 + seq as usize;
            assert!(many.objects() <= most, "{} objects of {most}", many.objects());
        }
        let bytes = 200 * (subtasks * length) as u64;
        assert!(many.written < bytes * 3, "{} bytes written for {bytes}", many.written);
        assert!(runs <= 200 / FRAGMENTS + 1, "{runs} runs of {subtasks} × {length}");
        let contiguous = |deltas: &Vec<DeltaRef>| {
            deltas.windows(2).all(|pair| pair[0].last.next() == pair[1].first) && deltas[0].first.0 == 1
        };
        assert!(many.named.iter().all(contiguous));
    }
}

#[test]
fn what_bases_of_other_subtasks_have_left_of_an_object_is_rewritten_late_or_never() {
    for (subtasks, length, rewritten) in
        [(2_usize, 1_500_000_usize, 0.0), (4, 700_000, 0.0), (16, 300_000, 0.5)]
    {
        let mut many = Many::new(subtasks);
        for seq in 1..=240 {
            many.checkpoint(seq, length);
            // Each in its turn, one every fifteen checkpoints.
            if seq % 15 == 0 {
                many.base(seq as usize / 15 % subtasks);
            }
            many.pack();
            let live: u64 = many.named.iter().flatten().map(|delta| delta.length).sum();
            let most = (live * REST / LARGE) as usize + 2 * 7 + 15;
            assert!(many.objects() <= most, "{} objects of {most} after {seq}", many.objects());
        }
        let bytes = (240 * subtasks * length) as f64;
        let more = many.written as f64 / bytes - 1.0;
        assert!(more <= rewritten, "{more:.2} of the changelog of {subtasks} subtasks was rewritten");
    }
}

#[test]
fn sizes_follow_what_checkpoints_name() {
    let whole = [object_of(0, 1, LARGE), object_of(1, 2, 100)];
    let mut sizes = Sizes::default();
    sizes.named(&whole);
    let half = DeltaRef { length: LARGE / 2, ..whole[0].clone() };
    sizes.named([&half]);
    assert_eq!(sizes.0, HashMap::from([(half.object.clone(), LARGE)]), "the most; the other is gone");
    let last = DeltaRef { offset: LARGE - 10, ..object_of(2, 3, 10) };
    let mut of_an_earlier_process = Sizes::default();
    of_an_earlier_process.named([&last]);
    assert_eq!(of_an_earlier_process.0, HashMap::from([(last.object, LARGE)]), "it reaches that far");
    let large = |length| sizes.is_large(&Live { name: &half.object, bytes: length, parts: Vec::new() });
    assert!(large(LARGE / REST) && !large(LARGE / REST - 1));
}

#[test]
fn what_does_not_follow_each_other_is_not_packed_for_it() {
    // A long one between any two short ones: nothing would become one reference.
    let mut deltas = Vec::new();
    for n in 0..200 {
        let seq = DeltaSeq(n + 1);
        let (object, length) =
            if n % 2 == 0 { (name_of(0, n / 40), 100_000) } else { (name_of(0, 1000 + n), 3 << 20) };
        deltas.push(DeltaRef { first: seq, last: seq, ..delta(object, length) });
    }
    // Each of the shared objects is large because of what others have in it.
    let others: Vec<_> =
        (0..5).map(|n| DeltaRef { first: DeltaSeq(n + 1), ..delta(name_of(0, n), LARGE) }).collect();
    let own = deltas.iter().map(|delta| (SubtaskIndex(0), delta));
    let others = others.iter().map(|delta| (SubtaskIndex(1), delta));
    assert_eq!(due(own.chain(others), ANY, &Sizes::default()), Vec::<Pack>::new());
}

#[test]
fn what_outweighs_the_rest_of_its_chain_is_left_alone() {
    let chain: Vec<_> = [200_000, 8_000, 100, 1_000].map(|length| object(1, length)).into();
    let chain: Vec<_> = chain.iter().map(|delta| (SubtaskIndex(0), delta)).collect();
    let lengths: Vec<_> = worth_rewriting(&chain).iter().map(|(_, delta)| delta.length).collect();
    assert_eq!(lengths, [8_000, 100, 1_000]);
}
