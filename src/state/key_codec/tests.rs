//! Forms, order, names and prefixes.

use std::fmt::Debug;

use proptest::prelude::*;

use super::*;

fn plain<K: KeyCodec + ?Sized>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

fn part<K: KeyCodec + ?Sized>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode_part(&mut bytes);
    bytes
}

/// Both forms come back, sort as the keys do, and part forms are no prefixes of each other.
fn check<K: KeyCodec<Owned = K> + Ord + Debug>(a: &K, b: &K) {
    assert_eq!(K::decode(&plain(a)).as_ref(), Some(a));
    assert_eq!(plain(a).cmp(&plain(b)), a.cmp(b), "{a:?} {b:?}");
    assert_eq!(part(a).cmp(&part(b)), a.cmp(b), "{a:?} {b:?}");
    assert!(a == b || part(b).is_empty() || !part(a).starts_with(&part(b)), "{a:?} {b:?}");
    let mut bytes = part(a);
    bytes.extend_from_slice(&part(b));
    let mut rest = bytes.as_slice();
    assert_eq!(K::decode_part(&mut rest).as_ref(), Some(a));
    assert_eq!(K::decode_part(&mut rest).as_ref(), Some(b));
    assert!(rest.is_empty());
}

#[test]
fn the_forms_are_part_of_the_format() {
    assert_eq!(plain(&0x0102_u16), [1, 2]);
    assert_eq!(plain(&-1_i16), [0x7f, 0xff]);
    assert_eq!(plain(&0_i8), [0x80]);
    assert_eq!(plain(&true), [1]);
    assert_eq!(plain(&'a'), [0, 0, 0, b'a']);
    assert_eq!(plain("a\0"), [b'a', 0]);
    assert_eq!(part("a\0"), [b'a', 0, 0xff, 0, 1]);
    assert_eq!(part(&[7, 0]), [7, 0]);
    assert_eq!(plain(&None::<u8>), [0]);
    assert_eq!(plain(&Some("a")), [1, b'a']);
    assert_eq!(plain(&("a", "b")), [b'a', 0, 1, b'b']);
    assert_eq!(part(&("a", 1_u8)), [b'a', 0, 1, 1]);
    assert!(plain(&()).is_empty());
}

#[test]
fn names_tell_types_apart() {
    type Rich<'a> = (Option<u64>, &'a str, [u8; 4]);
    assert_eq!(Rich::name(), "(option(u64), str, [u8; 4])");
    assert_eq!(<(String, Vec<u8>)>::name(), <(&str, &[u8])>::name());
    assert_eq!(<(String, Vec<u8>)>::CODE, <(&str, &[u8])>::CODE);
    let codes = [
        u64::CODE,
        i64::CODE,
        str::CODE,
        <[u8]>::CODE,
        <[u8; 4]>::CODE,
        <[u8; 5]>::CODE,
        <()>::CODE,
        <(u64, String)>::CODE,
        <(String, u64)>::CODE,
        <(u64, u64, u64)>::CODE,
        <((u64, u64), u64)>::CODE,
        Option::<u64>::CODE,
    ];
    let distinct: std::collections::BTreeSet<_> = codes.iter().collect();
    assert_eq!(distinct.len(), codes.len());
}

#[test]
fn a_prefix_is_what_encodings_begin_with() {
    fn begins<K: KeyCodec, P: KeyPrefix<K> + ?Sized>(key: &K, prefix: &P) -> bool {
        let mut bytes = Vec::new();
        prefix.encode_prefix(&mut bytes);
        plain(key).starts_with(&bytes)
    }
    assert!(begins(&"abc".to_owned(), "ab"));
    assert!(!begins(&"abc".to_owned(), "b"));
    assert!(begins(&"abc".to_owned(), &"ab".to_owned()) && begins(&"abc".to_owned(), &StartsWith("ab")));
    assert!(begins(&(vec![1, 0, 2], 7_u8), &StartsWith(&[1, 0][..])));
    assert!(begins(&vec![1, 0, 2], [1, 0].as_slice()));
    let pair = ("a\0b".to_owned(), 7_u64);
    assert!(begins(&pair, &StartsWith("a\0")) && !begins(&pair, &StartsWith("b")));
    assert!(begins(&pair, &"a\0b".to_owned()));
    assert!(!begins(&pair, &"a\0".to_owned()));
    let triple = (1_u8, 2_u8, "c".to_owned());
    assert!(begins(&triple, &1_u8) && begins(&triple, &(1_u8, 2_u8)) && !begins(&triple, &2_u8));
}

proptest! {
    #[test]
    fn integers_sort_as_they_do(a: (u8, u16, u32, u64, u128), b: (u8, u16, u32, u64, u128)) {
        check(&a.0, &b.0);
        check(&a.1, &b.1);
        check(&a.2, &b.2);
        check(&a.3, &b.3);
        check(&a.4, &b.4);
    }

    #[test]
    fn signed_integers_sort_as_they_do(a: (i8, i16, i32, i64, i128), b: (i8, i16, i32, i64, i128)) {
        check(&a.0, &b.0);
        check(&a.1, &b.1);
        check(&a.2, &b.2);
        check(&a.3, &b.3);
        check(&a.4, &b.4);
    }

    #[test]
    fn others_sort_as_they_do(a: (bool, char, [u8; 3], ()), b: (bool, char, [u8; 3], ())) {
        check(&a.0, &b.0);
        check(&a.1, &b.1);
        check(&a.2, &b.2);
        check(&a, &b);
    }

    #[test]
    fn strings_and_nested_tuples_sort_as_they_do(
        a: (String, (Option<Vec<u8>>, i32), String),
        b: (String, (Option<Vec<u8>>, i32), String),
    ) {
        check(&a.0, &b.0);
        check(&a.1.0, &b.1.0);
        check(&a, &b);
        // The same first component, so that what follows decides.
        check(&a, &(a.0.clone(), b.1.clone(), b.2.clone()));
        check(&(1_u8, 2_u8, a.clone(), 3_u8), &(1_u8, 2_u8, b, 3_u8));
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        type Rich = (String, (Option<Vec<u8>>, i32), char, bool);
        let _ = Rich::decode(&bytes);
        let _ = Rich::decode_part(&mut bytes.as_slice());
        let _ = <[u8; 4]>::decode(&bytes);
    }
}
