use std::fmt::Debug;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The recorded name is enough to read what the codec wrote, in both forms, and to write the same.
fn check<K: KeyCodec + Debug>(key: &K, expected: &Json) {
    let key_type = KeyType::parse(&K::name()).unwrap_or_else(|| panic!("{}", K::name()));
    assert_eq!(key_type.name(), K::name());
    let (mut plain, mut part) = (Vec::new(), Vec::new());
    key.encode(&mut plain);
    key.encode_part(&mut part);
    for (form, bytes) in [(Form::Plain, &plain), (Form::Part, &part)] {
        let mut rest = bytes.as_slice();
        assert_eq!(key_type.read(&mut rest, form).as_ref(), Some(expected), "{key:?} {form:?}");
        assert!(rest.is_empty());
        let mut written = Vec::new();
        key_type.write(expected, &mut written, form).unwrap();
        assert_eq!(written, *bytes, "{key:?} {form:?}");
    }
    // Something follows.
    part.push(7);
    let mut rest = part.as_slice();
    assert_eq!(key_type.read(&mut rest, Form::Part).as_ref(), Some(expected));
    assert_eq!(rest, [7]);
}

#[test]
fn every_built_in_type_by_its_name() {
    check(&7_u8, &json!(7));
    check(&-7_i16, &json!(-7));
    check(&u64::MAX, &json!(u64::MAX));
    check(&i64::MIN, &json!(i64::MIN));
    check(&u128::MAX, &json!(u128::MAX.to_string()));
    check(&i128::MIN, &json!(i128::MIN.to_string()));
    check(&(1_u16, 2_i8, 3_u32, 4_i32), &json!([1, 2, 3, 4]));
    check(&-7.0_f32, &json!(-7));
    check(&1.5_f64, &json!("1.5"));
    check(&f64::NEG_INFINITY, &json!("-inf"));
    check(&f64::NAN, &json!("NaN"));
    check(&true, &json!(true));
    check(&'ü', &json!("ü"));
    check(&(), &json!([]));
    check(&"a\0b".to_owned(), &json!("a\0b"));
    check(&vec![0_u8, 1, 0xff], &json!({"base64": "AAH/"}));
    check(b"ab", &json!({"text": "ab"}));
    check(&None::<u64>, &json!(null));
    check(&Some("x".to_owned()), &json!("x"));
    check(
        &("JFK".to_owned(), (Some(7_u64), [0xff_u8; 2]), vec![0_u8]),
        &json!(["JFK", [7, {"base64": "//8="}], {"text": "\0"}]),
    );
}

#[test]
fn what_is_no_built_in_name_is_none() {
    for name in [
        "",
        "window",
        "u",
        "(u64)",
        "(u64, )",
        "(u64,u64)",
        "option(option(u8))",
        "option(u8",
        "[u8; x]",
        "u8)",
        "(u8, window)",
        "[u16; 2]",
    ] {
        assert_eq!(KeyType::parse(name), None, "{name}");
    }
    assert_eq!(KeyType::parse(&"(u8, ".repeat(100_000)), None, "too deep");
}

#[test]
fn arguments_are_read_by_the_type() {
    let plain = |name: &str, text: &str| {
        let key_type = KeyType::parse(name).unwrap();
        let mut out = Vec::new();
        key_type.argument(text).and_then(|key| key_type.write(&key, &mut out, Form::Plain)).map(|()| out)
    };
    assert_eq!(plain("u16", "258"), Ok(vec![1, 2]));
    assert_eq!(plain("i8", "-1"), Ok(vec![0x7f]));
    assert_eq!(plain("bool", "true"), Ok(vec![1]));
    assert_eq!(plain("char", "c"), Ok(vec![0, 0, 0, b'c']));
    assert_eq!(plain("str", "[1]"), Ok(b"[1]".to_vec()));
    assert_eq!(plain("bytes", "ab"), Ok(b"ab".to_vec()));
    assert_eq!(plain("bytes", "hex:ff00"), Ok(vec![0xff, 0]));
    assert_eq!(plain("[u8; 1]", "base64:/w=="), Ok(vec![0xff]));
    assert_eq!(plain("(str, u8)", "[\"a\", 1]"), Ok(vec![b'a', 0, 1, 1]));
    assert_eq!(plain("option(u8)", "null"), Ok(vec![0]));
    assert_eq!(plain("()", "[]"), Ok(vec![]));
    for (name, text, says) in [
        ("u16", "65536", "type u16"),
        ("u16", "x", "type u16"),
        ("bool", "1", "type bool"),
        ("char", "ab", "type char"),
        ("[u8; 2]", "abc", "type [u8; 2]"),
        ("bytes", "hex:0", "hexadecimal"),
        ("(str, u8)", "a", "[\"text\",7]"),
        ("(str, u8)", "[\"a\"]", "type (str, u8)"),
        ("(str, u8)", "[\"a\", 256]", "type u8"),
        ("()", "1", "type ()"),
    ] {
        let error = plain(name, text).unwrap_err();
        assert!(error.contains(says), "{name} {text}: {error}");
    }
}

#[test]
fn prefixes_are_what_keys_begin_with() {
    let begins = |name: &str, key: Json, prefix: Json| {
        let key_type = KeyType::parse(name).unwrap();
        let (mut whole, mut start) = (Vec::new(), Vec::new());
        key_type.write(&key, &mut whole, Form::Part).unwrap();
        key_type.write_prefix(&prefix, &mut start).map(|()| whole.starts_with(&start))
    };
    assert_eq!(begins("str", json!("a\0b"), json!("a\0")), Ok(true));
    assert_eq!(begins("str", json!("a\0b"), json!("b")), Ok(false));
    assert_eq!(begins("(str, u64)", json!(["a", 1]), json!(["a"])), Ok(true));
    assert_eq!(begins("(str, u64)", json!(["ab", 1]), json!(["a"])), Ok(false));
    assert!(begins("u64", json!(1), json!("1")).unwrap_err().contains("no prefixes"));
}

proptest! {
    #[test]
    fn any_key_by_its_name(key: (String, (Option<Vec<u8>>, i32), u64)) {
        let (text, (bytes, number), last) = &key;
        let bytes = bytes.as_ref().map_or(Json::Null, |bytes| tagged(bytes));
        check(&key, &json!([text, [bytes, number], last]));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let key_type = KeyType::parse("(option(str), (bytes, [u8; 3]), char, bool)");
        for form in [Form::Plain, Form::Part] {
            let _ = key_type.as_ref().unwrap().read(&mut bytes.as_slice(), form);
        }
    }

    #[test]
    fn any_name_is_read_or_refused(name in "[u8(), option\\[\\];0-9]{0,30}") {
        let parsed = KeyType::parse(&name);
        prop_assert!(parsed.is_none_or(|parsed| parsed.name().replace(' ', "") == name.replace(' ', "")));
    }
}
