//! The types of values by the compiler's names, to show values that the codec `postcard` wrote.
//!
//! Postcard does not describe itself, so a value can be read only where its name says all of its shape: numbers,
//! text, and what the standard library makes of them. A program's own types cannot.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::key_type::integer;

/// How deep types may be nested: names come from outside.
const DEEPEST: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ValueType {
    /// By the name of the type.
    Number(Number),
    Bool,
    Char,
    Text,
    /// `()` or a tuple.
    Tuple(Vec<ValueType>),
    Array(Box<ValueType>, usize),
    Option(Box<ValueType>),
    /// Of any collection that is a sequence.
    Sequence(Box<ValueType>),
    Map(Box<ValueType>, Box<ValueType>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    U8,
    U16,
    U32,
    U64,
    U128,
    I8,
    I16,
    I32,
    I64,
    I128,
    F32,
    F64,
}

impl ValueType {
    /// The type of a name as `std::any::type_name` gives it; None if its name does not say its shape.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut rest = name;
        let parsed = Self::take_name(&mut rest, DEEPEST)?;
        rest.is_empty().then_some(parsed)
    }

    fn take_name(rest: &mut &str, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        if let Some(inner) = rest.strip_prefix('(') {
            *rest = inner;
            return Self::take_list(rest, ')', depth).map(Self::Tuple);
        }
        if let Some(inner) = rest.strip_prefix('[') {
            *rest = inner;
            let element = Self::take_name(rest, depth)?;
            let (length, after) = rest.strip_prefix("; ")?.split_once(']')?;
            *rest = after;
            return element.has_bytes().then_some(Self::Array(Box::new(element), length.parse().ok()?));
        }
        let end = rest.find(['<', '>', ',', ')', ';', ']', '(', '[']).unwrap_or(rest.len());
        let (path, after) = rest.split_at_checked(end)?;
        *rest = after;
        let parameters = match rest.strip_prefix('<') {
            Some(inner) => {
                *rest = inner;
                Self::take_list(rest, '>', depth)?
            }
            None => Vec::new(),
        };
        Self::of_path(path, parameters)
    }

    /// What stands between commas, up to `close`.
    fn take_list(rest: &mut &str, close: char, depth: usize) -> Option<Vec<Self>> {
        let mut list = Vec::new();
        loop {
            if let Some(after) = rest.strip_prefix(close) {
                *rest = after;
                return Some(list);
            }
            list.push(Self::take_name(rest, depth)?);
            // A tuple of one is written with a comma behind it.
            let after = rest.strip_prefix(", ").or_else(|| rest.strip_prefix(','));
            match after {
                Some(after) => *rest = after,
                None if rest.starts_with(close) => {}
                None => return None,
            }
        }
    }

    fn of_path(path: &str, parameters: Vec<Self>) -> Option<Self> {
        let (crate_name, name) = match path.split_once("::") {
            None => ("", path),
            Some((crate_name, _)) => (crate_name, path.rsplit("::").next()?),
        };
        let mut parameters = parameters.into_iter();
        let mut next = || parameters.next().map(Box::new);
        let parsed = match (crate_name, name) {
            ("", "bool") => Self::Bool,
            ("", "char") => Self::Char,
            ("", number) => Self::Number(Number::parse(number)?),
            ("alloc" | "core" | "std", name) => match name {
                "String" => Self::Text,
                "Box" | "Rc" | "Arc" => *next()?,
                "Option" => Self::Option(next()?),
                "Vec" | "VecDeque" | "BTreeSet" | "HashSet" | "LinkedList" | "BinaryHeap" => {
                    // Postcard would take any number of elements without bytes from a few bytes of a count.
                    Self::Sequence(next().filter(|element| element.has_bytes())?)
                }
                "BTreeMap" | "HashMap" => Self::Map(next().filter(|key| key.has_bytes())?, next()?),
                _ => return None,
            },
            _ => return None,
        };
        Some(parsed)
    }

    /// Whether each value takes at least a byte.
    fn has_bytes(&self) -> bool {
        match self {
            Self::Tuple(parts) => parts.iter().any(Self::has_bytes),
            Self::Array(_, length) => *length > 0,
            _ => true,
        }
    }

    /// Reads a value; None if the bytes are not exactly one.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<Json> {
        let mut deserializer = postcard::Deserializer::from_bytes(bytes);
        let value = self.deserialize(&mut deserializer).ok()?;
        deserializer.finalize().ok()?.is_empty().then_some(value)
    }
}

impl Number {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            // Postcard writes both in the same way.
            "u64" | "usize" => Self::U64,
            "u128" => Self::U128,
            "i8" => Self::I8,
            "i16" => Self::I16,
            "i32" => Self::I32,
            "i64" | "isize" => Self::I64,
            "i128" => Self::I128,
            "f32" => Self::F32,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        match self {
            Self::U8 => u8::deserialize(deserializer).map(Json::from),
            Self::U16 => u16::deserialize(deserializer).map(Json::from),
            Self::U32 => u32::deserialize(deserializer).map(Json::from),
            Self::U64 => u64::deserialize(deserializer).map(Json::from),
            Self::U128 => u128::deserialize(deserializer).map(|number| integer(&number)),
            Self::I8 => i8::deserialize(deserializer).map(Json::from),
            Self::I16 => i16::deserialize(deserializer).map(Json::from),
            Self::I32 => i32::deserialize(deserializer).map(Json::from),
            Self::I64 => i64::deserialize(deserializer).map(Json::from),
            Self::I128 => i128::deserialize(deserializer).map(|number| integer(&number)),
            Self::F32 => f32::deserialize(deserializer).map(|number| float(number.is_finite(), number)),
            Self::F64 => f64::deserialize(deserializer).map(|number| float(number.is_finite(), number)),
        }
    }
}

/// JSON has no numbers for what is not finite.
fn float<F: Into<Json> + fmt::Display>(finite: bool, number: F) -> Json {
    if finite { number.into() } else { Json::String(number.to_string()) }
}

impl<'de> DeserializeSeed<'de> for &ValueType {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        match self {
            ValueType::Number(number) => number.read(deserializer),
            ValueType::Bool => bool::deserialize(deserializer).map(Json::Bool),
            ValueType::Char => char::deserialize(deserializer).map(|char| Json::String(char.into())),
            ValueType::Text => String::deserialize(deserializer).map(Json::String),
            ValueType::Tuple(parts) => deserializer.deserialize_tuple(parts.len(), Parts(parts.iter())),
            ValueType::Array(element, length) => {
                deserializer.deserialize_tuple(*length, Parts(std::iter::repeat_n(&**element, *length)))
            }
            ValueType::Option(inner) => deserializer.deserialize_option(Optional(inner)),
            ValueType::Sequence(element) => {
                deserializer.deserialize_seq(Parts(std::iter::repeat(&**element)))
            }
            ValueType::Map(key, value) => deserializer.deserialize_map(Pairs(key, value)),
        }
    }
}

/// A sequence whose elements have these types.
struct Parts<I>(I);

impl<'de, 't, I: Iterator<Item = &'t ValueType>> Visitor<'de> for Parts<I> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        for part in self.0 {
            let Some(value) = sequence.next_element_seed(part)? else { break };
            values.push(value);
        }
        Ok(Json::Array(values))
    }
}

struct Optional<'t>(&'t ValueType);

impl<'de> Visitor<'de> for Optional<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an option")
    }

    fn visit_none<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        // `null` is None, so what is within has to be told from it.
        match (self.0, self.0.deserialize(deserializer)?) {
            (ValueType::Option(_), value) => Ok(Json::Array(vec![value])),
            (_, value) => Ok(value),
        }
    }
}

/// A map, as a list of pairs: its keys need not be text.
struct Pairs<'t>(&'t ValueType, &'t ValueType);

impl<'de> Visitor<'de> for Pairs<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key_seed(self.0)? {
            pairs.push((key, map.next_value_seed(self.1)?));
        }
        let texts: Option<Vec<_>> = pairs.iter().map(|(key, _)| key.as_str().map(str::to_owned)).collect();
        Ok(match texts.filter(|_| *self.0 == ValueType::Text) {
            Some(texts) => texts.into_iter().zip(pairs.into_iter().map(|(_, value)| value)).collect(),
            None => pairs.into_iter().map(|(key, value)| Json::Array(vec![key, value])).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::any::type_name_of_val;
    use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::json;

    use super::*;

    /// The compiler's name is enough to read what postcard wrote, and nothing shorter or longer is taken for it.
    fn check<T: Serialize>(value: &T, expected: &Json) {
        let name = type_name_of_val(value);
        let parsed = ValueType::parse(name).unwrap_or_else(|| panic!("{name}"));
        let mut bytes = postcard::to_allocvec(value).unwrap();
        assert_eq!(parsed.read(&bytes).as_ref(), Some(expected), "{name}");
        bytes.push(0);
        assert_eq!(parsed.read(&bytes), None, "{name}");
        bytes.truncate(bytes.len().saturating_sub(2));
        assert!(bytes.is_empty() || parsed.read(&bytes).is_none(), "{name}");
    }

    #[test]
    fn values_of_the_standard_library_by_their_names() {
        check(&300_u64, &json!(300));
        check(&7_usize, &json!(7));
        check(&-300_i32, &json!(-300));
        check(&-3_i8, &json!(-3));
        check(&u128::MAX, &json!(u128::MAX.to_string()));
        check(&1.5_f64, &json!(1.5));
        check(&f64::NAN, &json!("NaN"));
        check(&1.5_f32, &json!(1.5));
        check(&true, &json!(true));
        check(&'ü', &json!("ü"));
        check(&"text".to_owned(), &json!("text"));
        check(&(1_u8, "a".to_owned()), &json!([1, "a"]));
        check(&(1_u8,), &json!([1]));
        check(&[1_u16, 300], &json!([1, 300]));
        check(&Some(7_u32), &json!(7));
        check(&None::<u32>, &json!(null));
        check(&Some(None::<u32>), &json!([null]));
        check(&vec![("a".to_owned(), 1_u32)], &json!([["a", 1]]));
        check(&VecDeque::from([1_u8]), &json!([1]));
        check(&BTreeSet::from([2_u8]), &json!([2]));
        check(&Box::new(7_u64), &json!(7));
        check(&BTreeMap::from([("a".to_owned(), 1_u8)]), &json!({"a": 1}));
        check(&HashMap::<_, _>::from([(1_u8, vec![2_u8])]), &json!([[1, [2]]]));
    }

    #[test]
    fn what_the_name_does_not_say_is_none() {
        struct Own;
        assert_eq!(ValueType::parse(type_name_of_val(&Own)), None);
        assert_eq!(ValueType::parse(type_name_of_val(&vec![Own])), None);
        for name in [
            "",
            "count",
            "my::String",
            "alloc::vec::Vec<u8",
            "alloc::vec::Vec",
            "alloc::vec::Vec<()>",
            "[(); 9]",
            "alloc::vec::Vec<[u8; 0]>",
            "core::time::Duration",
            "u8>",
            "(u8",
            "&str",
        ] {
            assert_eq!(ValueType::parse(name), None, "{name}");
        }
        assert_eq!(ValueType::parse(&"(".repeat(100_000)), None, "too deep");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let name = "(alloc::vec::Vec<alloc::string::String>, core::option::Option<[i64; 2]>, f32)";
            let _ = ValueType::parse(name).unwrap().read(&bytes);
        }

        #[test]
        fn any_name_is_read_or_refused(name in "[u8(), <>\\[\\];:0-9]{0,30}") {
            let _ = ValueType::parse(&name);
        }
    }
}
