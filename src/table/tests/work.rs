//! Native writes, background work, opening, and disks that fail.

use super::*;
use crate::table::options;

#[test]
fn native_writes_and_bulk_equal_single_deltas() {
    let (_dir, native) = table();
    native.put(&k("a"), b"1").unwrap();
    native.merge(MergeOp::ListAppend, &k("a"), b"2").unwrap();
    native.put(&k("b"), b"1").unwrap();
    native.put(&k("c"), b"1").unwrap();
    native.delete(&k("b")).unwrap();
    native.delete_range(&k("c"), &k("d")).unwrap();
    native.set_applied(DeltaSeq(3)).unwrap();
    assert_eq!(native.applied().unwrap(), DeltaSeq(3));
    assert_eq!(scan(&native), [(k("a"), b"12".to_vec())]);

    // 24 MB in chunks of 8 MiB, behind a tombstone.
    let (_dir, bulk) = table();
    bulk.put(&k("00000"), b"old").unwrap();
    bulk.put(&k("zzz"), b"old").unwrap();
    let value = vec![b'x'; 4000];
    let keys: Vec<Vec<u8>> = (1..6000).map(|i| k(&format!("{i:05}"))).collect();
    let entries = keys.iter().map(|key| (key.as_slice(), Entry::Put(&value)));
    bulk.load([(k("").as_slice(), k("zz").as_slice())], entries).unwrap();
    assert_eq!(bulk.applied().unwrap(), DeltaSeq(0));
    bulk.set_applied(DeltaSeq(9)).unwrap();
    assert_eq!(bulk.applied().unwrap(), DeltaSeq(9));
    let scanned = scan(&bulk);
    assert_eq!(scanned.len(), 6000);
    assert_eq!(scanned[0].0, k("00001"));
    assert_eq!(scanned[5999], (k("zzz"), b"old".to_vec()));
}

#[test]
fn work_left_over_can_be_awaited() {
    let (_dir, table) = table();
    let value = vec![b'x'; 20_000];
    for seq in 1..=300 {
        apply(&table, seq, &[(&format!("{:03}", seq * 7919 % 1000), Entry::Put(&value))]).unwrap();
        if seq % 20 == 0 {
            table.flush().unwrap();
        }
    }
    assert!(table.wait_idle(Duration::from_secs(60)).unwrap());
    let stats = table.stats();
    assert_eq!((stats.running_compactions, stats.running_flushes), (0, 0), "{stats:?}");
    assert!(
        stats.live_sst_bytes > 0 && stats.l0_files < options::L0_FILES as u64 && !stats.write_stopped,
        "{stats:?}"
    );
}

/// Scripts, shells and clones may point cargo at a library that was compiled earlier, and nothing
/// else would notice one of another version.
#[test]
fn the_linked_rocksdb_is_the_pinned_one() {
    let (_dir, table) = table();
    let pinned = include_str!("../../../Cargo.lock")
        .split("[[package]]")
        .find(|package| package.contains("name = \"librocksdb-sys\""))
        .and_then(|package| package.lines().find(|line| line.starts_with("version = ")))
        .and_then(|line| line.trim_end_matches('"').rsplit_once('+'))
        .map(|(_, version)| version)
        .unwrap();
    let options = fs::read_dir(&table.dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("OPTIONS-"))
        .unwrap();
    let linked = fs::read_to_string(options).unwrap();
    assert!(
        linked.contains(&format!("rocksdb_version={pinned}\n")),
        "{pinned} is pinned, linked is {linked}"
    );
}

#[test]
fn opening_names_what_is_wrong() {
    let (dir, table) = table();
    let db = table.dir.clone();
    let kind = |result: Result<Table>| result.map(drop).unwrap_err().kind();

    // Held by another.
    assert_eq!(kind(Table::open(&db, RANGE, &resources())), ErrorKind::Locked);
    // Not empty.
    assert_eq!(kind(Table::create(&db, RANGE, &resources())), ErrorKind::AlreadyExists);
    // Nothing there, and nothing created.
    let absent = dir.path().join("absent");
    assert_eq!(kind(Table::open(&absent, RANGE, &resources())), ErrorKind::NotFound);
    assert!(!absent.exists());
    // A file in the place of the directory.
    let file = dir.path().join("file");
    fs::write(&file, b"x").unwrap();
    assert_eq!(kind(Table::create(&file, RANGE, &resources())), ErrorKind::Disk);
    // A file missing.
    apply(&table, 1, &[("a", Entry::Put(b"1"))]).unwrap();
    let copy = dir.path().join("copy");
    table.checkpoint(&copy).unwrap();
    fs::remove_file(&sst_files(&copy)[0]).unwrap();
    let error = Table::open(&copy, RANGE, &resources()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(error.object_name(), Some(copy.to_str().unwrap()));
    // A CURRENT that is no such thing.
    fs::write(copy.join("CURRENT"), b"rubbish").unwrap();
    let error = Table::open(&copy, RANGE, &resources()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// I4: a flipped byte in any file is an error, never a wrong value.
#[test]
fn i4_a_flipped_byte_never_reads_as_a_value() {
    let (dir, table) = table();
    let value: Vec<u8> = (0..5000_u32).map(|i| (i * 31 % 251) as u8).collect();
    apply(&table, 1, &["a", "b", "c", "d"].map(|key| (key, Entry::Put(&value)))).unwrap();
    let clean = scan(&table);
    let copy = dir.path().join("copy");
    table.checkpoint(&copy).unwrap();
    let [file] = &sst_files(&copy)[..] else { panic!("one file") };
    let original = fs::read(file).unwrap();
    // Hard-linked: never write through the link.
    fs::remove_file(file).unwrap();
    let mut noticed = 0;
    for position in (0..original.len()).step_by(97) {
        let mut damaged = original.clone();
        damaged[position] ^= 0x10;
        fs::write(file, &damaged).unwrap();
        let read = Table::open(&copy, RANGE, &resources()).and_then(|table| try_scan(&table.snapshot()));
        match read {
            // The flip hit what a scan does not read (filter, properties).
            Ok(entries) => assert_eq!(entries, clean, "byte {position}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {position}: {error}");
                noticed += 1;
            }
        }
    }
    assert!(noticed > 10, "{noticed}");
}

/// I6: a disk that fails shows as an error, at once and at every later write; nothing pretends to
/// have been written.
#[test]
fn a_failing_disk_is_an_error() {
    let (_dir, table) = table();
    apply(&table, 1, &[("a", Entry::Put(b"1"))]).unwrap();
    fs::remove_dir_all(&table.dir).unwrap();
    let error = table.flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    assert_eq!(table.checkpoint(&table.dir.join("../copy")).unwrap_err().kind(), ErrorKind::Disk);
    assert_eq!(apply(&table, 2, &[("a", Entry::Put(b"2"))]).unwrap_err().kind(), ErrorKind::Disk);
    assert_eq!(get(&table, "a").as_deref(), Some(b"1".as_slice()));
    assert!(table.stats().background_errors > 0);
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    Delete(u8),
    Append(u8, u8),
    DeleteRange(u8, u8),
    Flush,
    Compact,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..12_u8, any::<u8>()).prop_map(|(key, value)| Op::Put(key, value)),
        3 => (0..12_u8).prop_map(Op::Delete),
        6 => (0..12_u8, any::<u8>()).prop_map(|(key, value)| Op::Append(key, value)),
        2 => (0..12_u8, 0..12_u8).prop_map(|(start, end)| Op::DeleteRange(start, end)),
        1 => Just(Op::Flush),
        1 => Just(Op::Compact),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Against a plain map: every operation is a delta of its own.
    #[test]
    fn behaves_like_a_map(ops in proptest::collection::vec(op(), 1..60)) {
        let (dir, mut table) = table();
        let mut model = BTreeMap::<Vec<u8>, Vec<u8>>::new();
        let name = |key: u8| k(&format!("{key:02}"));
        for (i, op) in ops.iter().enumerate() {
            let seq = DeltaSeq(i as u64 + 1);
            match *op {
                Op::Put(key, value) => {
                    table.apply(seq, NO_TOMBSTONES, [(name(key).as_slice(), Entry::Put(&[value]))]).unwrap();
                    model.insert(name(key), vec![value]);
                }
                Op::Delete(key) => {
                    table.apply(seq, NO_TOMBSTONES, [(name(key).as_slice(), Entry::Delete)]).unwrap();
                    model.remove(&name(key));
                }
                Op::Append(key, value) => {
                    table.apply(seq, NO_TOMBSTONES, [(name(key).as_slice(), append(&[value]))]).unwrap();
                    model.entry(name(key)).or_default().push(value);
                }
                Op::DeleteRange(a, b) => {
                    let (start, end) = (name(a.min(b)), name(a.max(b)));
                    table.apply(seq, [(start.as_slice(), end.as_slice())], []).unwrap();
                    model.retain(|key, _| *key < start || *key >= end);
                }
                Op::Flush => table.flush().unwrap(),
                Op::Compact => table.compact_all().unwrap(),
                Op::Reopen => {
                    let copy = dir.path().join(i.to_string());
                    table.checkpoint(&copy).unwrap();
                    let applied = table.applied().unwrap();
                    table = Table::open(&copy, RANGE, &resources()).unwrap();
                    prop_assert_eq!(table.applied().unwrap(), applied);
                }
            }
        }
        prop_assert_eq!(scan(&table), model.clone().into_iter().collect::<Vec<_>>());
        for key in 0..12 {
            let value = table.get(&name(key)).unwrap().map(|value| value.to_vec());
            prop_assert_eq!(value.as_ref(), model.get(&name(key)));
        }
    }
}
