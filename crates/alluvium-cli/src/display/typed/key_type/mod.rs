//! The types of keys by their recorded names, to read and write keys whose type this program learns only at
//! run time.

#[cfg(test)]
mod tests;

use alluvium::state::KeyCodec;
use serde_json::Value as Json;

use crate::display::tagged::{KeyFormat, Tagged};

/// How deep types may be nested: names come from outside.
const DEEPEST: usize = 32;

/// A type that [`KeyCodec`] is built in for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyType {
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
    Bool,
    Char,
    Unit,
    Str,
    Bytes,
    Array(usize),
    Option(Box<KeyType>),
    /// Two or more.
    Tuple(Vec<KeyType>),
}

/// Whether something follows the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing: the key is all that there is.
    Plain,
    /// Something may: the key says where it ends.
    Part,
}

/// Does something with the codec of a type of fixed name; `$codec` in it is the type.
macro_rules! with_codec {
    ($self:expr, $codec:ident => $do:expr, $else:expr) => {
        match $self {
            Self::U8 => {
                type $codec = u8;
                $do
            }
            Self::U16 => {
                type $codec = u16;
                $do
            }
            Self::U32 => {
                type $codec = u32;
                $do
            }
            Self::U64 => {
                type $codec = u64;
                $do
            }
            Self::U128 => {
                type $codec = u128;
                $do
            }
            Self::I8 => {
                type $codec = i8;
                $do
            }
            Self::I16 => {
                type $codec = i16;
                $do
            }
            Self::I32 => {
                type $codec = i32;
                $do
            }
            Self::I64 => {
                type $codec = i64;
                $do
            }
            Self::I128 => {
                type $codec = i128;
                $do
            }
            Self::F32 => {
                type $codec = f32;
                $do
            }
            Self::F64 => {
                type $codec = f64;
                $do
            }
            _ => $else,
        }
    };
}

impl KeyType {
    /// The type of a recorded name; None if it is none of those that are built in.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut rest = name;
        let parsed = Self::take_name(&mut rest, DEEPEST)?;
        rest.is_empty().then_some(parsed)
    }

    fn take_name(rest: &mut &str, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        if let Some(inner) = rest.strip_prefix("option(") {
            *rest = inner;
            let inner = Self::take_name(rest, depth)?;
            *rest = rest.strip_prefix(')')?;
            // `null` could then not be told from the `null` within.
            return (!matches!(inner, Self::Option(_))).then(|| Self::Option(Box::new(inner)));
        }
        if let Some(inner) = rest.strip_prefix("[u8; ") {
            let (length, after) = inner.split_once(']')?;
            *rest = after;
            return length.parse().ok().map(Self::Array);
        }
        if let Some(after) = rest.strip_prefix("()") {
            *rest = after;
            return Some(Self::Unit);
        }
        if let Some(inner) = rest.strip_prefix('(') {
            *rest = inner;
            let mut parts = vec![Self::take_name(rest, depth)?];
            while let Some(next) = rest.strip_prefix(", ") {
                *rest = next;
                parts.push(Self::take_name(rest, depth)?);
            }
            *rest = rest.strip_prefix(')')?;
            return (parts.len() > 1).then_some(Self::Tuple(parts));
        }
        let end = rest.find([',', ')', '(', '[']).unwrap_or(rest.len());
        let (word, after) = rest.split_at_checked(end)?;
        *rest = after;
        Some(match word {
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "u128" => Self::U128,
            "i8" => Self::I8,
            "i16" => Self::I16,
            "i32" => Self::I32,
            "i64" => Self::I64,
            "i128" => Self::I128,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "bool" => Self::Bool,
            "char" => Self::Char,
            "str" => Self::Str,
            "bytes" => Self::Bytes,
            _ => return None,
        })
    }

    /// Reads a key off the front of `bytes`: all of them in plain form.
    pub(super) fn read(&self, bytes: &mut &[u8], form: Form) -> Option<Json> {
        let read = with_codec!(self, K => take::<K>(bytes, form).map(|number| integer(&number)), None);
        match self {
            Self::Bool => take::<bool>(bytes, form).map(Json::Bool),
            Self::Char => take::<char>(bytes, form).map(|char| Json::String(char.into())),
            Self::Str => take::<str>(bytes, form).map(Json::String),
            Self::Bytes => take::<[u8]>(bytes, form).map(|bytes| tagged(&bytes)),
            Self::Unit => take::<()>(bytes, form).map(|()| Json::Array(Vec::new())),
            Self::Array(length) => {
                let (mine, rest) = bytes.split_at_checked(*length)?;
                *bytes = rest;
                (form == Form::Part || rest.is_empty()).then(|| tagged(mine))
            }
            Self::Option(inner) => {
                let (tag, rest) = bytes.split_first()?;
                *bytes = rest;
                match tag {
                    0 => (form == Form::Part || rest.is_empty()).then_some(Json::Null),
                    1 => inner.read(bytes, form),
                    _ => None,
                }
            }
            Self::Tuple(parts) => {
                let (last, firsts) = parts.split_last()?;
                let firsts = firsts.iter().map(|part| part.read(bytes, Form::Part));
                let mut values: Vec<_> = firsts.collect::<Option<_>>()?;
                values.push(last.read(bytes, form)?);
                Some(Json::Array(values))
            }
            _ => read,
        }
    }

    /// Appends a key. The error says what was expected.
    pub(super) fn write(&self, key: &Json, out: &mut Vec<u8>, form: Form) -> Result<(), String> {
        let wrong = || format!("{key} is not a key of type {}", self.name());
        let text = match key {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        with_codec!(
            self,
            K => {
                put(&text.parse::<K>().map_err(|_| wrong())?, out, form);
                return Ok(());
            },
            ()
        );
        match (self, key) {
            (Self::Bool, _) => put(&text.parse::<bool>().map_err(|_| wrong())?, out, form),
            (Self::Char, Json::String(text)) => put(&text.parse::<char>().map_err(|_| wrong())?, out, form),
            (Self::Str, Json::String(text)) => put(text.as_str(), out, form),
            (Self::Bytes, _) => put(bytes_of(key).ok_or_else(wrong)?.as_slice(), out, form),
            (Self::Array(length), _) => {
                let bytes = bytes_of(key).filter(|bytes| bytes.len() == *length).ok_or_else(wrong)?;
                out.extend_from_slice(&bytes);
            }
            (Self::Unit, Json::Array(parts)) if parts.is_empty() => {}
            (Self::Option(_), Json::Null) => out.push(0),
            (Self::Option(inner), _) => {
                out.push(1);
                inner.write(key, out, form)?;
            }
            (Self::Tuple(types), Json::Array(parts)) if parts.len() == types.len() => {
                for (at, (part, key)) in types.iter().zip(parts).enumerate() {
                    let form = if at + 1 == types.len() { form } else { Form::Part };
                    part.write(key, out, form)?;
                }
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// Appends what all keys that begin with `prefix` begin with, in either form: a beginning of a text, or
    /// the first components of a tuple.
    pub(super) fn write_prefix(&self, prefix: &Json, out: &mut Vec<u8>) -> Result<(), String> {
        match (self, prefix) {
            (Self::Str, Json::String(_)) | (Self::Bytes, _) => {
                self.write(prefix, out, Form::Part)?;
                // But for the mark of the end.
                out.truncate(out.len().saturating_sub(2));
                Ok(())
            }
            (Self::Tuple(types), Json::Array(parts)) if parts.len() < types.len() => {
                types.iter().zip(parts).try_for_each(|(part, key)| part.write(key, out, Form::Part))
            }
            _ => Err(format!(
                "keys of type {} have no prefixes: that is for text, bytes and tuples",
                self.name()
            )),
        }
    }

    /// What a key on the command line means; [`write`](Self::write) still has to take it.
    pub(super) fn argument(&self, text: &str) -> Result<Json, String> {
        match self {
            Self::Bytes | Self::Array(_) => {
                let bytes = match text.split_once(':') {
                    Some(("hex", digits)) => KeyFormat::Hex.read(digits)?,
                    Some(("base64", encoded)) => KeyFormat::Base64.read(encoded)?,
                    _ => text.as_bytes().to_vec(),
                };
                Ok(tagged(&bytes))
            }
            Self::Option(_) | Self::Tuple(_) | Self::Unit => serde_json::from_str(text).map_err(|error| {
                format!(
                    "{text:?} is no JSON ({error}): write a key of type {} as in {}",
                    self.name(),
                    self.example()
                )
            }),
            _ => Ok(Json::String(text.to_owned())),
        }
    }

    /// As it is recorded.
    pub(super) fn name(&self) -> String {
        let word = match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::U128 => "u128",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::I128 => "i128",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bool => "bool",
            Self::Char => "char",
            Self::Unit => "()",
            Self::Str => "str",
            Self::Bytes => "bytes",
            Self::Array(length) => return format!("[u8; {length}]"),
            Self::Option(inner) => return format!("option({})", inner.name()),
            Self::Tuple(parts) => {
                let parts: Vec<_> = parts.iter().map(Self::name).collect();
                return format!("({})", parts.join(", "));
            }
        };
        word.to_owned()
    }

    /// A key of the type as JSON.
    fn example(&self) -> String {
        match self {
            Self::Bool => "true".to_owned(),
            Self::Char => "\"c\"".to_owned(),
            Self::Str => "\"text\"".to_owned(),
            Self::Bytes | Self::Array(_) => "{\"base64\":\"AAE=\"}".to_owned(),
            Self::Unit => "[]".to_owned(),
            Self::Option(inner) => inner.example(),
            Self::Tuple(parts) => {
                let parts: Vec<_> = parts.iter().map(Self::example).collect();
                format!("[{}]", parts.join(","))
            }
            _ => "7".to_owned(),
        }
    }
}

fn take<K: KeyCodec + ?Sized>(bytes: &mut &[u8], form: Form) -> Option<K::Owned> {
    match form {
        Form::Plain => K::decode(std::mem::take(bytes)),
        Form::Part => K::decode_part(bytes),
    }
}

fn put<K: KeyCodec + ?Sized>(key: &K, out: &mut Vec<u8>, form: Form) {
    match form {
        Form::Plain => key.encode(out),
        Form::Part => key.encode_part(out),
    }
}

/// As a number where JSON has one of its size, else as text.
pub(super) fn integer(number: &impl ToString) -> Json {
    let text = number.to_string();
    match (text.parse::<u64>(), text.parse::<i64>()) {
        (Ok(number), _) => number.into(),
        (_, Ok(number)) => number.into(),
        _ => Json::String(text),
    }
}

/// As `{"text": …}` or `{"base64": …}`.
pub(super) fn tagged(bytes: &[u8]) -> Json {
    serde_json::to_value(Tagged::of(bytes)).unwrap_or_default()
}

fn bytes_of(json: &Json) -> Option<Vec<u8>> {
    match json {
        Json::String(text) => Some(text.clone().into_bytes()),
        _ => serde_json::from_value::<Tagged>(json.clone()).ok()?.bytes().ok(),
    }
}
