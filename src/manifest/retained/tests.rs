//! The list as checkpoints come and go.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::format::HEADER_LEN;
use super::super::samples::id;
use super::*;
use crate::remote::ObjectName;

fn entry(version: u64) -> Entry {
    let checkpoint = Retained { version: Version(version), id: id(1, version * 2) };
    let facts = Some(Facts { unix_millis: 1_700_000_000_000 + version * 1_000, full_bytes: 1 << 30 });
    Entry { checkpoint, facts }
}

/// A chain of commits, with what each manifest carries of lists.
#[derive(Default)]
struct Commits {
    list: RetainedList,
    all: VecDeque<Entry>,
    carried: BTreeMap<Version, Vec<u8>>,
    next: u64,
}

impl Commits {
    fn commit(&mut self, keep: usize) -> u64 {
        self.next += 1;
        let version = Version(self.next);
        self.all.push_back(entry(self.next));
        while self.all.len() > keep {
            self.all.pop_front();
        }
        self.list.push(entry(self.next), self.all[0].version());
        let mut inline = Inline::new();
        self.list.compact(Some(&self.all), version, &mut inline).unwrap();
        let parts: Vec<Bytes> = inline.parts().cloned().collect();
        self.carried.insert(version, [vec![0; HEADER_LEN as usize], parts.concat()].concat());
        self.list.validate(version, &(HEADER_LEN..HEADER_LEN + inline.len())).unwrap();
        let mut out = Writer::default();
        self.list.write(version, &mut out).unwrap();
        let mut input = Reader(&out.0);
        assert_eq!(RetainedList::read(version, &mut input).unwrap(), self.list);
        input.end().unwrap();
        out.0.len() as u64 + inline.len()
    }

    /// What someone reads from the newest list. Only retained manifests may be needed.
    fn read(&self) -> Vec<Entry> {
        let chunks = self.list.chunks.iter().flat_map(|chunk| {
            let ObjectName::Manifest(carrier) = chunk.place.object else { panic!("no manifest") };
            assert!(carrier >= self.list.oldest, "{carrier} carries, and may be gone");
            chunk.decode(chunk.place.of(&self.carried[&carrier]).unwrap()).unwrap()
        });
        let all = chunks.chain(self.list.tail.iter().copied());
        all.filter(|entry| entry.version() >= self.list.oldest).collect()
    }
}

#[test]
fn i5_what_a_commit_writes_does_not_grow_with_the_number_of_retained() {
    let mut commits = Commits::default();
    let mut bytes = |from: u64, to: u64| {
        let sum: u64 = (from..to).map(|_| commits.commit(usize::MAX)).sum();
        (sum / (to - from), commits.read().len())
    };
    let (first, _) = bytes(0, 1_000);
    let (later, count) = bytes(1_000, 20_000);
    assert_eq!(count, 20_000);
    // One level more, of at most 15 chunks, and each entry is written once more.
    assert!(first < 400 && later < 600, "{first} bytes in each of the first, {later} later");
}

#[test]
fn chunks_stay_few() {
    let mut commits = Commits::default();
    for _ in 0..5_000 {
        commits.commit(usize::MAX);
        let levels = commits.list.chunks.iter().map(|chunk| chunk.level);
        assert!(levels.is_sorted_by(|a, b| a >= b));
        assert!(commits.list.chunks.len() < 4 * FANOUT && commits.list.tail.len() <= FANOUT);
    }
    // All but the newest go at once.
    commits.commit(1);
    assert_eq!((commits.list.chunks.len(), commits.list.tail.len()), (0, 1));
}

#[test]
fn a_long_list_of_format_1_becomes_one_chunk() {
    let all: VecDeque<_> = (1..=3_000).map(entry).collect();
    let mut list = RetainedList::plain(all.iter().copied().collect());
    list.push(entry(3_001), Version(1));
    let mut inline = Inline::new();
    list.compact(Some(&all), Version(3_001), &mut inline).unwrap();
    assert_eq!((list.chunks.len(), list.chunks[0].level, list.tail.len()), (1, 1, 1));
}

#[test]
fn without_all_entries_nothing_is_taken_in() {
    let mut list = RetainedList::default();
    for version in 1..=1_000 {
        list.push(entry(version), Version(1));
        list.compact(None, Version(version), &mut Inline::new()).unwrap();
    }
    assert_eq!(list.chunks.len(), 62);
    assert!(list.chunks.iter().all(|chunk| chunk.level == 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_list_is_what_is_retained(keeps in proptest::collection::vec((1..400_usize, 1..120_usize), 1..8)) {
        let mut commits = Commits::default();
        for (keep, count) in keeps {
            for _ in 0..count {
                commits.commit(keep);
            }
            prop_assert_eq!(commits.read(), commits.all.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(commits.list.newest(), commits.all.back().copied());
            prop_assert!(commits.list.keeps(commits.all[0].checkpoint));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(list) = RetainedList::read(Version(1 << 40), &mut Reader(&bytes)) {
            let _ = list.validate(Version(1 << 40), &(28..28));
        }
        let place = Carried::push(bytes.clone(), Version(1), &mut Inline::new());
        let _ = Chunk { place, level: 0, last: Version(1) }.decode(&bytes);
    }
}
