//! What a state's recorded types say about its stored bytes: keys read and written, values shown, as far as
//! the names of the types go.

mod key_type;
mod value_type;

use alluvium::state::StoredValue;
use alluvium::{CheckpointReader, KeyGroup, MaxParallelism, StateDescription};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::display::tagged::{KeyFormat, Tagged, plain};
use crate::failure::{Failure, Result};
use key_type::{Form, KeyType, tagged};
use value_type::ValueType;

/// Bytes before the key of a stored timer: domain and timestamp.
const TIMER_HEAD: usize = 9;

/// A state whose types are known by name.
pub(crate) struct Shape {
    state: StateDescription,
    key: KeyPart,
    /// None where there is nothing to show of it.
    namespace: Option<KeyPart>,
    map_key: Option<KeyPart>,
    /// None if the name does not say it.
    value: Option<ValueType>,
}

/// A part of stored keys.
enum KeyPart {
    Known(KeyType),
    /// By its name; empty if nothing was written yet.
    Unknown(String),
}

/// What a stored key says.
#[derive(Debug, Default, Serialize)]
pub(crate) struct KeyParts {
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    pub(crate) key: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) map_key: Option<Json>,
}

/// What is stored for a key.
#[derive(Debug, Serialize)]
pub(crate) struct ShownValue {
    /// None for timers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Json>,
    /// All of it: the program would not see it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) expired: bool,
}

/// Where the entries of a key are.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) group: KeyGroup,
    /// The stored key, or what those of several entries have in them.
    pub(crate) stored: Vec<u8>,
    /// There is at most one entry.
    pub(crate) exact: bool,
}

/// What is asked for on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) key: &'a str,
    pub(crate) format: KeyFormat,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) map_key: Option<&'a str>,
    pub(crate) group: Option<KeyGroup>,
}

impl KeyPart {
    fn of(name: &str) -> Self {
        KeyType::parse(name).map_or_else(|| Self::Unknown(name.to_owned()), Self::Known)
    }

    /// As [`Self::of`], for a type that may be absent.
    fn of_some(name: &str) -> Option<Self> {
        (!name.is_empty()).then(|| Self::of(name)).filter(|part| !matches!(part, Self::Known(KeyType::Unit)))
    }

    /// The bytes of an argument, appended.
    fn push(&self, what: &str, text: &str, out: &mut Vec<u8>, form: Form) -> Result<()> {
        let key_type = self.known(what)?;
        let written = key_type.argument(text).and_then(|key| key_type.write(&key, out, form));
        written.map_err(|error| Failure::usage(format!("{what}: {error}")))
    }

    fn known(&self, what: &str) -> Result<&KeyType> {
        match self {
            Self::Known(key_type) => Ok(key_type),
            Self::Unknown(name) if name.is_empty() => {
                Err(Failure::new(format!("{what}: nothing was written to the state yet, so its type of key is not known")))
            }
            Self::Unknown(name) => Err(Failure::usage(format!(
                "{what}: the type {name:?} is one of the program's own, which this tool does not know"
            ))
            .hint("write the stored key with --key-format hex; `alluvium scan --raw` shows stored keys and their groups")),
        }
    }
}

impl Shape {
    /// The shape of a state of the checkpoint.
    pub(crate) fn find(reader: &CheckpointReader, name: &str) -> Result<Self> {
        // Has the reader say which there are.
        reader.scan(name, b"")?;
        let state = reader.states().into_iter().find(|state| state.name() == name);
        state.map(Self::of).ok_or_else(|| Failure::new(format!("there is no state {name:?}")))
    }

    fn of(state: StateDescription) -> Self {
        // A name that the user gave may stand for anything.
        let own = state.codec() != "postcard" || state.value_type_is_named();
        Self {
            key: KeyPart::of(state.key_type()),
            namespace: KeyPart::of_some(state.namespace_type()),
            map_key: KeyPart::of_some(state.map_key_type()),
            value: if own { None } else { ValueType::parse(state.value_type()) },
            state,
        }
    }

    fn is(&self, kind: &str) -> bool {
        self.state.kind() == kind
    }

    /// Where to look for what was asked for.
    pub(crate) fn lookup(&self, question: Question<'_>, groups: MaxParallelism) -> Result<Lookup> {
        if self.is("raw") || question.format != KeyFormat::Typed {
            return self.lookup_stored(question, groups);
        }
        let (mut stored, mut plain) = (Vec::new(), Vec::new());
        self.key.push("KEY", question.key, &mut plain, Form::Plain)?;
        self.key.push("KEY", question.key, &mut stored, Form::Part)?;
        let group = question.group.unwrap_or_else(|| groups.group_of(&plain));
        let mut exact = !self.is("timers");
        match (&self.namespace, question.namespace) {
            (None, None) => {}
            (Some(_), None) => exact = false,
            (Some(part), Some(text)) => part.push("--namespace", text, &mut stored, Form::Part)?,
            (None, Some(_)) => return Err(Failure::usage("--namespace: the state has no namespaces")),
        }
        match (&self.map_key, question.map_key) {
            (None, None) => {}
            (Some(_), None) => exact = false,
            (Some(_), Some(_)) if !exact => {
                return Err(Failure::usage("--map-key: the state has namespaces")
                    .hint("say which by --namespace, too"));
            }
            (Some(part), Some(text)) => part.push("--map-key", text, &mut stored, Form::Plain)?,
            (None, Some(_)) => {
                return Err(Failure::usage(format!(
                    "--map-key: the state is no map but {}",
                    self.state.kind()
                )));
            }
        }
        Ok(Lookup { group, stored, exact })
    }

    fn lookup_stored(&self, question: Question<'_>, groups: MaxParallelism) -> Result<Lookup> {
        if question.namespace.is_some() || question.map_key.is_some() {
            return Err(Failure::usage("--namespace and --map-key are part of a stored key already"));
        }
        let stored = question.format.read(question.key).map_err(Failure::usage)?;
        let group = match question.group {
            Some(group) => group,
            None if self.is("raw") => groups.group_of(&stored),
            None => self.group_of(&stored, groups).ok_or_else(|| {
                Failure::usage("the key group of this stored key cannot be told")
                    .hint("say --group; `alluvium scan --raw` shows stored keys and their groups")
            })?,
        };
        Ok(Lookup { group, stored, exact: true })
    }

    /// The group of a stored key of a typed state: that of the key's plain form.
    fn group_of(&self, stored: &[u8], groups: MaxParallelism) -> Option<KeyGroup> {
        let KeyPart::Known(key_type) = &self.key else { return None };
        let mut rest = if self.is("timers") { stored.get(TIMER_HEAD..)? } else { stored };
        let key = key_type.read(&mut rest, Form::Part)?;
        let mut plain = Vec::new();
        key_type.write(&key, &mut plain, Form::Plain).ok()?;
        Some(groups.group_of(&plain))
    }

    /// Whether an entry is one of a lookup that is not exact, where it was found by its group alone.
    pub(crate) fn is_of(&self, lookup: &Lookup, stored: &[u8]) -> bool {
        let key = if self.is("timers") { stored.get(TIMER_HEAD..).unwrap_or_default() } else { stored };
        key.starts_with(&lookup.stored)
    }

    /// What the stored keys of a lookup that is not exact begin with.
    pub(crate) fn scan_prefix<'l>(&self, lookup: &'l Lookup) -> &'l [u8] {
        if self.is("timers") { &[] } else { &lookup.stored }
    }

    /// What stored keys begin with, for a prefix of keys.
    pub(crate) fn prefix(&self, text: &str, format: KeyFormat) -> Result<Vec<u8>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        if self.is("raw") || format != KeyFormat::Typed {
            return format.read(text).map_err(Failure::usage);
        }
        if self.is("timers") {
            return Err(Failure::usage("--prefix: timers are stored by time")
                .hint("`alluvium get` lists those of one key"));
        }
        let key_type = self.key.known("--prefix")?;
        let mut out = Vec::new();
        let written = key_type.argument(text).and_then(|key| key_type.write_prefix(&key, &mut out));
        written.map(|()| out).map_err(|error| Failure::usage(format!("--prefix: {error}")))
    }

    /// The namespace of an argument, to be compared with that of a key.
    pub(crate) fn namespace(&self, text: &str) -> Result<Json> {
        let Some(part) = &self.namespace else {
            return Err(Failure::usage("--namespace: the state has no namespaces"));
        };
        let mut bytes = Vec::new();
        part.push("--namespace", text, &mut bytes, Form::Part)?;
        let read = part.known("--namespace")?.read(&mut bytes.as_slice(), Form::Part);
        read.ok_or_else(|| Failure::usage(format!("--namespace: {text:?} does not read")))
    }

    /// What a stored key says. From a part of unknown type on it is shown as it is stored.
    pub(crate) fn key_parts(&self, stored: &[u8]) -> Result<KeyParts> {
        if self.is("raw") {
            return Ok(KeyParts { key: tagged(stored), ..KeyParts::default() });
        }
        let wrong = || {
            let name = self.state.name();
            Failure::new(format!("state {name:?}: the stored key {} is not of its types", plain(stored)))
                .hint("--raw shows it as it is stored")
        };
        let mut parts = KeyParts::default();
        let mut rest = stored;
        if self.is("timers") {
            // Both are encoded as keys are.
            let mut take = |name| KeyType::parse(name).and_then(|part| part.read(&mut rest, Form::Part));
            let domain = take("u8").and_then(|domain| domain.as_u64());
            parts.domain = Some(match domain {
                Some(0) => "event",
                Some(1) => "processing",
                _ => return Err(wrong()),
            });
            parts.timestamp = Some(take("i64").and_then(|time| time.as_i64()).ok_or_else(wrong)?);
        }
        let mut read = |part: &KeyPart, form| match part {
            KeyPart::Known(key_type) => key_type.read(&mut rest, form).ok_or_else(wrong),
            KeyPart::Unknown(_) => Ok(json!(Tagged::base64(std::mem::take(&mut rest)))),
        };
        parts.key = read(&self.key, Form::Part)?;
        let mut known = matches!(self.key, KeyPart::Known(_));
        if let Some(part) = self.namespace.as_ref().filter(|_| known) {
            parts.namespace = Some(read(part, Form::Part)?);
            known = matches!(part, KeyPart::Known(_));
        }
        if let Some(part) = self.map_key.as_ref().filter(|_| known) {
            parts.map_key = Some(read(part, Form::Plain)?);
        }
        if rest.is_empty() { Ok(parts) } else { Err(wrong()) }
    }

    /// What is stored for a key, as of a time in milliseconds since 1970. Of a list, what has expired is left out unless
    /// `all` is asked for.
    pub(crate) fn held(&self, stored: &[u8], now: u64, all: bool) -> Result<ShownValue> {
        let values = self.state.values(stored)?;
        let shown: Vec<_> = values.iter().filter(|value| self.state.shows(value, now)).collect();
        let expired = shown.is_empty() && !values.is_empty();
        if self.is("timers") {
            return Ok(ShownValue { value: None, expired });
        }
        let chosen = if all || expired { values.iter().collect() } else { shown };
        let mut decoded = chosen.into_iter().map(|value| self.value(value));
        let value = if self.is("list") { Some(decoded.collect()) } else { decoded.next() };
        Ok(ShownValue { value, expired })
    }

    fn value(&self, value: &StoredValue<'_>) -> Json {
        let state = &self.state;
        let current = value.schema == state.schema();
        let decoded = match (state.kind(), state.codec()) {
            ("raw", _) => Some(tagged(value.bytes)),
            (_, "raw") if current => Some(tagged(value.bytes)),
            _ => self.value.as_ref().filter(|_| current).and_then(|known| known.read(value.bytes)),
        };
        decoded.unwrap_or_else(|| {
            let mut shown = json!(Tagged::base64(value.bytes));
            if let Some(fields) = shown.as_object_mut() {
                fields.insert("codec".to_owned(), state.codec().into());
                fields.insert("schema".to_owned(), value.schema.into());
                // Of older values the type is not known.
                if current {
                    fields.insert("type".to_owned(), state.value_type().into());
                }
            }
            shown
        })
    }

    /// What to say where a value is shown as bytes.
    pub(crate) fn note(&self, value: Option<&Json>) -> Option<String> {
        let is_encoded = |json: &Json| json.get("base64").is_some() && json.get("codec").is_some();
        let encoded = match value? {
            Json::Array(values) if self.is("list") => values.iter().any(is_encoded),
            value => is_encoded(value),
        };
        encoded.then(|| {
            format!(
                "values of type {:?} by the codec {:?}, schema {}, are shown as bytes where their type's name does not say how to read them",
                self.state.value_type(),
                self.state.codec(),
                self.state.schema()
            )
        })
    }
}

impl KeyParts {
    /// Columns before the value: what tells entries of one key apart.
    pub(crate) fn columns(&self, with_key: bool) -> Vec<String> {
        let timer = [self.domain.map(str::to_owned), self.timestamp.map(|time| time.to_string())];
        let parts = [with_key.then_some(&self.key), self.namespace.as_ref(), self.map_key.as_ref()];
        timer.into_iter().flatten().chain(parts.into_iter().flatten().map(text)).collect()
    }
}

impl ShownValue {
    /// Columns after those of the key.
    pub(crate) fn columns(&self) -> Vec<String> {
        let expired = self.expired.then(|| "(expired)".to_owned());
        self.value.iter().map(text).chain(expired).collect()
    }
}

/// For a terminal: text without control characters as it is, bytes as [`plain`] has them, all else as JSON.
pub(crate) fn text(json: &Json) -> String {
    if let Ok(tagged) = serde_json::from_value::<Tagged>(json.clone())
        && let Ok(bytes) = tagged.bytes()
    {
        return plain(&bytes);
    }
    match json {
        Json::String(text) if !text.chars().any(char::is_control) => text.clone(),
        Json::Object(fields) if fields.contains_key("codec") => {
            format!("base64:{}", fields.get("base64").and_then(Json::as_str).unwrap_or_default())
        }
        _ => {
            let escape = |char: char| {
                if char.is_control() { format!("\\u{:04x}", u32::from(char)) } else { char.into() }
            };
            json.to_string().chars().map(escape).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_no_control_characters() {
        assert_eq!(text(&json!("zürich")), "zürich");
        assert_eq!(text(&json!("a\u{1b}[2J\u{9b}")), "\"a\\u001b[2J\\u009b\"");
        assert_eq!(text(&json!({"text": "a\n"})), "base64:YQo=");
        assert_eq!(text(&json!({"base64": "/w==", "codec": "u24", "schema": 0})), "base64:/w==");
        assert_eq!(text(&json!(["a", 1, null])), "[\"a\",1,null]");
    }
}
