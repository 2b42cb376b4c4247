//! Records in place, moved out and removed, and the memory that they take.

use super::*;
use crate::delta::MergeOp;

const APPEND: MergeOp = MergeOp::ListAppend;

#[test]
fn records_change_in_place_and_move_when_they_outgrow_their_room() {
    let mut arena = Arena::default();
    let a = arena.push(b"a", Entry::Put(b"12345678"), false);
    let b = arena.push(b"b", Entry::Delete, true);
    let used = arena.used();
    arena.set(a, Entry::Put(b"xy"));
    arena.set(b, Entry::Merge { op: APPEND, operand: b"z" });
    assert_eq!(arena.used(), used, "both fit");
    arena.append(b, &[b'w'; 100]);
    assert!(arena.used() > used);
    assert_eq!(arena.entry(a), Entry::Put(b"xy"));
    let operand = [b"z".as_slice(), &[b'w'; 100]].concat();
    assert_eq!(arena.entry(b), Entry::Merge { op: APPEND, operand: &operand });
    assert!(arena.is_ordered(b) && !arena.is_ordered(a));
    assert_eq!((arena.key(a), arena.key(b)), (b"a".as_slice(), b"b".as_slice()));
    assert_eq!(arena.positions().collect::<Vec<_>>(), [a, b]);
    arena.remove(a);
    assert_eq!(arena.positions().collect::<Vec<_>>(), [b]);
    arena.set(b, Entry::Delete);
    assert_eq!(arena.entry(b), Entry::Delete);
    arena.set(b, Entry::Put(&[7; 50]));
    assert_eq!(arena.entry(b), Entry::Put(&[7; 50]));
}

#[test]
fn appending_copies_a_linear_number_of_bytes() {
    let mut arena = Arena::default();
    let pos = arena.push(b"list", Entry::Put(b""), false);
    for round in 0..100_000_u32 {
        arena.append(pos, &round.to_be_bytes());
    }
    let Entry::Put(value) = arena.entry(pos) else { panic!("still a put") };
    assert_eq!(value.len(), 400_000);
    assert!(value.chunks(4).zip(0_u32..).all(|(bytes, round)| bytes == round.to_be_bytes()));
    assert!(arena.used() < 5 * value.len(), "{} bytes", arena.used());
}

#[test]
fn chunks_hold_records_of_all_sizes_and_are_used_again() {
    let mut arena = Arena::default();
    let sizes = [0, 1, 100, OWN_CHUNK - 30, CHUNK / 3, CHUNK - HEADER - 4, CHUNK, 3 * CHUNK, 7];
    for round in 0..3_u8 {
        let pushed: Vec<_> = sizes
            .iter()
            .cycle()
            .take(100)
            .map(|&size| (size, arena.push(&[round; 4], Entry::Put(&vec![size as u8; size]), false)))
            .collect();
        for (size, pos) in pushed {
            assert_eq!(arena.key(pos), [round; 4]);
            assert_eq!(arena.entry(pos), Entry::Put(&vec![size as u8; size]));
        }
        assert_eq!(arena.positions().count(), 100);
        let spare = arena.into_spare();
        assert!(spare.iter().all(|chunk| chunk.capacity() == CHUNK && chunk.is_empty()));
        assert!(!spare.is_empty());
        arena = Arena::with_spare(spare);
        assert_eq!(arena.used(), 0);
    }
}
