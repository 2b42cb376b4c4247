//! Reading results that a run, or another system, has written.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::error::Category;

use super::{RunResult, SCHEMA_VERSION};
use crate::failure::{Failure, Result, io};

/// A file of one result, or of an array of them, as `compare` writes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResultFile {
    pub(crate) path: PathBuf,
    /// In the file's order; never empty.
    pub(crate) results: Vec<RunResult>,
}

/// What is looked at before all else: a newer schema may have any other shape.
#[derive(Deserialize)]
#[serde(expecting = "the result of a run")]
struct Version {
    schema_version: Option<serde_json::Value>,
}

impl ResultFile {
    /// Reads all results of a file.
    ///
    /// # Errors
    ///
    /// Says which file it is and what to do: not readable, not JSON (with the line), a field that is
    /// wrong, missing or unknown (with its path and line), no result at all, or one of a newer schema.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(io(format!("read {}", path.display())))?;
        let results =
            parse(&text).map_err(|message| Failure::new(format!("{}: {message}", path.display())))?;
        Ok(Self { path: path.to_owned(), results })
    }
}

fn parse(text: &[u8]) -> Result<Vec<RunResult>, String> {
    let many = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let versions: Vec<Version> = one_or_many(text, many)?;
    if versions.is_empty() {
        return Err("holds no result".to_owned());
    }
    versions.into_iter().try_for_each(check)?;
    one_or_many(text, many)
}

fn one_or_many<'a, T: Deserialize<'a>>(text: &'a [u8], many: bool) -> Result<Vec<T>, String> {
    let read =
        if many { serde_json::from_slice(text) } else { serde_json::from_slice(text).map(|one| vec![one]) };
    read.map_err(|error| explain(&error, text))
}

fn check(version: Version) -> Result<(), String> {
    let Some(found) = version.schema_version else {
        return Err("not a result of a run: it has no schema_version".to_owned());
    };
    match found.as_u64() {
        Some(version) if version == u64::from(SCHEMA_VERSION) => Ok(()),
        Some(version) if version > u64::from(SCHEMA_VERSION) => Err(format!(
            "written by a newer version of alluvium (schema {version}, this build reads {SCHEMA_VERSION}); use a newer \
             build"
        )),
        _ => Err(format!("schema_version is {found}, but must be {SCHEMA_VERSION}")),
    }
}

/// The error with the place it speaks of.
fn explain(error: &serde_json::Error, text: &[u8]) -> String {
    let message = error.to_string();
    // The position is told in other words below.
    let reason = message.rsplit_once(" at line ").map_or(message.as_str(), |(reason, _)| reason);
    let line = error.line();
    if error.classify() != Category::Data {
        return format!("not JSON, line {line}: {reason}");
    }
    let mut path = path_at(text, offset(text, line, error.column()));
    if reason.starts_with("missing field") {
        // It speaks of the object, not of its last field.
        path.pop_if(|step| matches!(step, Step::Field(_)));
    }
    match write_path(&path) {
        path if path.is_empty() => format!("wrong at the top level, line {line}: {reason}"),
        path => format!("wrong at {path}, line {line}: {reason}"),
    }
}

/// The byte that serde_json's line and column (both from 1) mean.
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let before: usize =
        text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (before + column.saturating_sub(1)).min(text.len())
}

/// One step from the document's root inwards.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// In an object, under this key; empty before the key.
    Field(String),
    /// In an array, at this index.
    Index(usize),
}

/// The path of the value at the end of the first `end` bytes of a JSON text.
fn path_at(text: &[u8], end: usize) -> Vec<Step> {
    let mut path: Vec<Step> = Vec::new();
    // The string that is being read.
    let mut string: Option<Vec<u8>> = None;
    let mut escaped = false;
    for byte in text.iter().take(end) {
        if let Some(content) = &mut string {
            if !escaped && *byte == b'"' {
                let content = string.take().unwrap_or_default();
                match path.last_mut() {
                    Some(Step::Field(key)) if key.is_empty() => {
                        *key = String::from_utf8_lossy(&content).into_owned();
                    }
                    _ => {}
                }
                continue;
            }
            escaped = !escaped && *byte == b'\\';
            content.push(*byte);
            continue;
        }
        match byte {
            b'"' => string = Some(Vec::new()),
            b'{' => path.push(Step::Field(String::new())),
            b'[' => path.push(Step::Index(0)),
            b'}' | b']' => {
                path.pop();
            }
            b',' => match path.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                Some(Step::Field(key)) => key.clear(),
                None => {}
            },
            _ => {}
        }
    }
    path
}

/// `[1].samples[3].t_s`.
fn write_path(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(key) if key.is_empty() => {}
            Step::Field(key) if text.is_empty() => text.push_str(key),
            Step::Field(key) => {
                let _ = write!(text, ".{key}");
            }
            Step::Index(index) => {
                let _ = write!(text, "[{index}]");
            }
        }
    }
    text
}
