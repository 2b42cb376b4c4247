//! How [`ValueInfo`] is stored.
//!
//! Checkpoints of version 0.1 have no field for the shape of a type. In binary forms the shape is
//! appended to the type's name, after a character that no name contains. Old records therefore read
//! as before, with no shape. In JSON the shape is a field that may be absent.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::state_info::ValueInfo;

/// Between the name and the shape of a type: the unit separator.
const BETWEEN: char = '\u{1f}';

#[derive(Serialize, Deserialize)]
struct Binary<'a> {
    codec: Cow<'a, str>,
    type_name_and_shape: Cow<'a, str>,
    type_is_named: bool,
    schema: u32,
    oldest_schema: u32,
}

#[derive(Serialize, Deserialize)]
struct Readable<'a> {
    codec: Cow<'a, str>,
    type_name: Cow<'a, str>,
    type_is_named: bool,
    schema: u32,
    oldest_schema: u32,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    shape: Cow<'a, str>,
}

impl Serialize for ValueInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { codec, type_name, type_is_named, schema, oldest_schema, shape } = self;
        let (type_is_named, schema, oldest_schema) = (*type_is_named, *schema, *oldest_schema);
        let codec = Cow::Borrowed(codec.as_str());
        if serializer.is_human_readable() {
            let (type_name, shape) = (type_name.into(), shape.into());
            return Readable { codec, type_name, type_is_named, schema, oldest_schema, shape }
                .serialize(serializer);
        }
        let type_name_and_shape = match shape.is_empty() {
            true => Cow::Borrowed(type_name.as_str()),
            false => Cow::Owned(format!("{type_name}{BETWEEN}{shape}")),
        };
        Binary { codec, type_name_and_shape, type_is_named, schema, oldest_schema }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ValueInfo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let Readable { codec, type_name, type_is_named, schema, oldest_schema, shape } =
                Readable::deserialize(deserializer)?;
            let (codec, type_name, shape) = (codec.into_owned(), type_name.into_owned(), shape.into_owned());
            return Ok(Self { codec, type_name, type_is_named, schema, oldest_schema, shape });
        }
        let Binary { codec, type_name_and_shape, type_is_named, schema, oldest_schema } =
            Binary::deserialize(deserializer)?;
        let (type_name, shape) =
            type_name_and_shape.split_once(BETWEEN).unwrap_or((&type_name_and_shape, ""));
        let (codec, type_name, shape) = (codec.into_owned(), type_name.to_owned(), shape.to_owned());
        Ok(Self { codec, type_name, type_is_named, schema, oldest_schema, shape })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 0.1 has it.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Before {
        codec: String,
        type_name: String,
        type_is_named: bool,
        schema: u32,
        oldest_schema: u32,
    }

    fn info(shape: &str) -> ValueInfo {
        ValueInfo {
            codec: "postcard".into(),
            type_name: "app::Visit".into(),
            type_is_named: true,
            schema: 3,
            oldest_schema: 1,
            shape: shape.into(),
        }
    }

    #[test]
    fn a_shape_comes_back_and_its_absence_changes_nothing() {
        for shape in ["", "{page: str}", "#00ff"] {
            let bytes = postcard::to_stdvec(&info(shape)).unwrap();
            assert_eq!(postcard::from_bytes::<ValueInfo>(&bytes).unwrap(), info(shape));
            let json = serde_json::to_string(&info(shape)).unwrap();
            assert_eq!(serde_json::from_str::<ValueInfo>(&json).unwrap(), info(shape));
            assert_eq!(json.contains("shape"), !shape.is_empty(), "{json}");
        }
        let before = Before {
            codec: "postcard".into(),
            type_name: "app::Visit".into(),
            type_is_named: true,
            schema: 3,
            oldest_schema: 1,
        };
        assert_eq!(postcard::to_stdvec(&before).unwrap(), postcard::to_stdvec(&info("")).unwrap());
        assert_eq!(serde_json::to_string(&before).unwrap(), serde_json::to_string(&info("")).unwrap());
    }

    #[test]
    fn the_form_is_part_of_the_format() {
        let bytes = postcard::to_stdvec(&info("u64")).unwrap();
        assert_eq!(bytes, b"\x08postcard\x0eapp::Visit\x1fu64\x01\x03\x01");
    }
}
