//! What snapshots, cursors and checkpoints on disk show (I1).

use super::*;

/// I1: whatever is read at any moment belongs to one delta. Each delta writes its number to every
/// key.
#[test]
fn i1_no_view_shows_a_half_delta() {
    const KEYS: u64 = 200;
    let (dir, table) = table();
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|i| k(&format!("{i:05}"))).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for seq in 1..=400_u64 {
                let value = seq.to_be_bytes();
                let entries = keys.iter().map(|key| (key.as_slice(), Entry::Put(&value)));
                table.apply(DeltaSeq(seq), NO_TOMBSTONES, entries).unwrap();
                if seq % 100 == 0 {
                    table.flush().unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        let number = |value: &[u8]| u64::from_be_bytes(value.try_into().unwrap());
        let mut views = 0;
        while !done.load(Ordering::Acquire) {
            let snapshot = table.snapshot();
            let seq = snapshot.applied().unwrap();
            let seen: Vec<_> = try_scan(&snapshot).unwrap().iter().map(|(_, value)| number(value)).collect();
            assert!(seen.iter().all(|value| *value == seq.0), "{seq}: {seen:?}");
            assert_eq!(seen.len() as u64, if seq.0 == 0 { 0 } else { KEYS });
            // The read that needs no snapshot knows just as well where it stands.
            let (value, at) = table.get_at(&keys[7]).unwrap();
            assert_eq!(value.map_or(0, |value| number(&value)), at.0);
            assert!(at >= seq);
            views += 1;
        }
        writer.join().unwrap();
        assert!(views > 10, "{views}");
    });
    drop(dir);
}

/// I1: a read that says after which delta it was is right, however close a delta comes.
#[test]
fn i1_a_read_knows_its_delta() {
    let (_dir, table) = table();
    let key = k("a");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for seq in 1..=30_000_u64 {
                let value = seq.to_be_bytes();
                table.apply(DeltaSeq(seq), NO_TOMBSTONES, [(key.as_slice(), Entry::Put(&value))]).unwrap();
            }
        });
        while !writer.is_finished() {
            let (value, at) = table.get_at(&key).unwrap();
            let value = value.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()));
            assert_eq!(value, at.0);
        }
    });
}

/// I1: a checkpoint on disk stands at one delta as well, though deltas are applied while it is
/// taken.
#[test]
fn i1_a_checkpoint_stands_at_one_delta() {
    let (dir, table) = table();
    let keys: Vec<Vec<u8>> = (0..100).map(|i| k(&format!("{i:05}"))).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when an assertion below fails.
        let stop = StopOnDrop(&done);
        scope.spawn(|| {
            for seq in (1..).take_while(|_| !done.load(Ordering::Acquire)) {
                let value = u64::to_be_bytes(seq);
                let entries = keys.iter().map(|key| (key.as_slice(), Entry::Put(&value)));
                table.apply(DeltaSeq(seq), NO_TOMBSTONES, entries).unwrap();
            }
        });
        for i in 0..5 {
            let before = table.applied().unwrap();
            let copy = dir.path().join(format!("copies/{i}"));
            table.checkpoint(&copy).unwrap();
            let copy = Table::open(&copy, RANGE, &resources()).unwrap();
            let applied = copy.applied().unwrap();
            assert!(applied >= before);
            assert!(scan(&copy).iter().all(|(_, value)| *value == applied.0.to_be_bytes()));
        }
        drop(stop);
    });
}

/// The trap: with the log off, a checkpoint that is not told to flush loses the memtable.
#[test]
fn a_checkpoint_holds_what_is_only_in_the_memtable() {
    let (dir, table) = table();
    apply(&table, 1, &[("a", Entry::Put(b"1")), ("z", Entry::Put(b"1"))]).unwrap();
    let first = dir.path().join("first");
    table.checkpoint(&first).unwrap();
    // Nothing new: no flush, the same files.
    let same = dir.path().join("same");
    table.checkpoint(&same).unwrap();
    assert_eq!(sst_files(&same).len(), sst_files(&first).len());
    // A range tombstone alone is something new, too.
    table.delete_range(&k("a"), &k("b")).unwrap();
    let second = dir.path().join("second");
    table.checkpoint(&second).unwrap();
    drop(table);

    let first = Table::open(&first, RANGE, &resources()).unwrap();
    assert_eq!(scan(&first), [(k("a"), b"1".to_vec()), (k("z"), b"1".to_vec())]);
    let second = Table::open(&second, RANGE, &resources()).unwrap();
    assert_eq!(scan(&second), [(k("z"), b"1".to_vec())]);
    assert_eq!(second.applied().unwrap(), DeltaSeq(1));
}

#[test]
fn merges_survive_flush_compaction_and_reopening() {
    let (dir, table) = table();
    apply(&table, 1, &[("list", append(b"a")), ("base", Entry::Put(b"0"))]).unwrap();
    table.flush().unwrap();
    apply(&table, 2, &[("list", append(b"b")), ("base", append(b"1"))]).unwrap();
    table.flush().unwrap();
    apply(&table, 3, &[("list", append(b"c")), ("base", append(b"2"))]).unwrap();
    let expected = [(k("base"), b"012".to_vec()), (k("list"), b"abc".to_vec())];
    assert_eq!(scan(&table), expected);
    let copy = dir.path().join("copy");
    table.checkpoint(&copy).unwrap();
    table.compact_all().unwrap();
    assert_eq!(scan(&table), expected);
    drop(table);

    let table = Table::open(&copy, RANGE, &resources()).unwrap();
    assert_eq!(scan(&table), expected);
    apply(&table, 4, &[("list", append(b"d"))]).unwrap();
    table.compact_all().unwrap();
    assert_eq!(get(&table, "list").as_deref(), Some(b"abcd".as_slice()));
}

#[test]
fn the_marker_lies_inside_the_owned_range_and_no_scan_shows_it() {
    let (_dir, table) = table();
    apply(&table, 1, &[("a", Entry::Put(b"1"))]).unwrap();
    let (start, end) = key::bounds_of(RANGE);
    let marker = key::marker(RANGE);
    assert!(start.as_slice() <= marker.as_slice() && marker.as_slice() < end.as_slice());
    assert_eq!(scan(&table).len(), 1);
    assert!(table.get(&marker).unwrap().is_some());
}

#[test]
fn a_scan_keeps_to_its_bounds() {
    let (_dir, table) = table();
    apply(&table, 1, &["a", "b", "c", "d"].map(|key| (key, Entry::Put(b"1")))).unwrap();
    let keys = |start: &str, end: &str| {
        let snapshot = table.snapshot();
        let mut cursor = snapshot.cursor(&k(start), &k(end)).unwrap();
        let mut keys = String::new();
        while let Some((key, _)) = cursor.entry() {
            keys.push(char::from(key::user_key(key)[0]));
            cursor.advance().unwrap();
        }
        // Behind the end it stays there.
        cursor.advance().unwrap();
        assert!(cursor.entry().is_none());
        keys
    };
    assert_eq!(keys("b", "d"), "bc");
    assert_eq!(keys("", "z"), "abcd");
    assert_eq!(keys("c", "c"), "");
    assert_eq!(keys("d", "a"), "");
}

#[test]
fn a_snapshot_and_a_cursor_stay_as_they_were() {
    let (_dir, table) = table();
    apply(&table, 1, &[("a", Entry::Put(b"1")), ("b", Entry::Put(b"1"))]).unwrap();
    let table = Arc::new(table);
    let snapshot = table.snapshot();
    let (mut cursor, at) = OwnedCursor::new(Arc::clone(&table), &k("a"), &k("z")).unwrap();
    assert_eq!(at, DeltaSeq(1));
    apply(&table, 2, &[("a", Entry::Put(b"2")), ("b", Entry::Delete)]).unwrap();
    table.compact_all().unwrap();
    let expected = [(k("a"), b"1".to_vec()), (k("b"), b"1".to_vec())];
    assert_eq!(snapshot.applied().unwrap(), DeltaSeq(1));
    assert_eq!(try_scan(&snapshot).unwrap(), expected);
    drop(snapshot);
    apply(&table, 3, &[("a", Entry::Put(b"3"))]).unwrap();
    table.compact_all().unwrap();
    // The cursor needs neither the snapshot that it came from nor any other handle of the table.
    drop(table);
    for (key, value) in &expected {
        assert_eq!(cursor.entry(), Some((key.as_slice(), value.as_slice())));
        cursor.advance().unwrap();
    }
    assert!(cursor.entry().is_none());
}
