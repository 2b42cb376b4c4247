//! What commands print as JSON, in one shape each: a document says its schema's version, a list is its `items`, a
//! checkpoint is written as on the command line (`"3-17"`), and a range of key groups as `{"first": 0, "last": 63}`.
//! Results of runs have a [schema](crate::result) of their own.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Result};

/// Changes when a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// The document of anything. What is stored in a job may be in it, and stays as it is.
pub(crate) fn document(what: &impl Serialize) -> Result<String> {
    written(serde_json::to_value(what).map_err(unwritten)?)
}

/// The document of what the library says of a job: its checkpoints and ranges get their one form.
pub(crate) fn of_job(what: &impl Serialize) -> Result<String> {
    written(unified(serde_json::to_value(what).map_err(unwritten)?))
}

fn written(value: Value) -> Result<String> {
    let mut document = match value {
        Value::Object(fields) => fields,
        items => Map::from_iter([("items".to_owned(), items)]),
    };
    document.insert("schema_version".to_owned(), SCHEMA_VERSION.into());
    serde_json::to_string_pretty(&document).map_err(unwritten)
}

/// The document of a command that has failed.
pub(crate) fn failed(failure: &Failure) -> String {
    let error = json!({
        "kind": failure.kind.map_or_else(|| "other".to_owned(), |kind| kind.to_string()),
        "message": failure.to_string(),
        "exit": failure.exit as u8,
    });
    json!({ "schema_version": SCHEMA_VERSION, "error": error }).to_string()
}

fn unwritten(error: serde_json::Error) -> Failure {
    Failure::new(format!("cannot write JSON: {error}"))
}

/// With checkpoints and ranges in their one form, wherever they stand.
fn unified(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(unified).collect(),
        Value::Object(fields) => {
            if let (Some(epoch), Some(number), 2) = (fields.get("epoch"), fields.get("number"), fields.len())
            {
                return format!("{epoch}-{number}").into();
            }
            let field = |(name, value): (String, Value)| {
                let value = match (name.as_str(), value) {
                    ("range", Value::String(text)) => range(&text).unwrap_or(Value::String(text)),
                    (_, value) => unified(value),
                };
                (name, value)
            };
            fields.into_iter().map(field).collect::<Map<_, _>>().into()
        }
        value => value,
    }
}

/// `0..=63`
fn range(text: &str) -> Option<Value> {
    let (first, last) = text.split_once("..=")?;
    Some(json!({ "first": first.parse::<u16>().ok()?, "last": last.parse::<u16>().ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_and_ranges_have_one_form_and_documents_a_version() {
        let id = json!({"epoch": 3, "number": 17});
        let read = |what: Value| serde_json::from_str::<Value>(&of_job(&what).unwrap()).unwrap();
        assert_eq!(
            read(json!({"checkpoint": id, "subtasks": [{"range": "0..=63", "id": id}]})),
            json!({
                "schema_version": 1, "checkpoint": "3-17",
                "subtasks": [{"range": {"first": 0, "last": 63}, "id": "3-17"}],
            })
        );
        assert_eq!(read(json!([id])), json!({"schema_version": 1, "items": ["3-17"]}));
        assert_eq!(
            read(json!({"range": "all", "epoch": 3})),
            json!({"schema_version": 1, "range": "all", "epoch": 3})
        );
    }

    #[test]
    fn what_is_stored_in_a_job_stays_as_it_is() {
        let value = json!({"value": {"epoch": 3, "number": 17}, "key": {"range": "0..=63"}});
        let read: Value = serde_json::from_str(&document(&value).unwrap()).unwrap();
        assert_eq!((&read["value"], &read["key"]), (&value["value"], &value["key"]));
    }

    #[test]
    fn a_failure_is_a_document_too() {
        let said: Value = serde_json::from_str(&failed(&Failure::usage("no"))).unwrap();
        assert_eq!(
            said,
            json!({"schema_version": 1, "error": {"kind": "other", "message": "no", "exit": 2}})
        );
    }
}
