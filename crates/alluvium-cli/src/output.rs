//! What a command writes: results to standard output, all else to standard error.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use serde::Serialize;

use crate::document::{document, failed, of_job};
use crate::failure::{Failure, Result, io};

/// Where results go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print the result as JSON instead of a table; with a FILE, write it there beside the table
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// The place of the JSON, opened before the run, so that a wrong path does not cost the result.
#[derive(Debug)]
pub(crate) enum Output {
    Text,
    JsonOnly,
    /// Of anything but a run's result.
    Document,
    /// What the library says of a job.
    JobDocument,
    JsonFile(File, PathBuf),
    /// What takes every byte once: a pipe or a device.
    JsonStream(File, PathBuf),
}

impl OutputArgs {
    pub(crate) fn open(&self) -> Result<Output> {
        Ok(match &self.json {
            None => Output::Text,
            Some(path) if path.as_os_str() == "-" => Output::JsonOnly,
            Some(path) => {
                let file = File::create(path).map_err(io(format!("write {}", path.display())))?;
                match file.metadata() {
                    Ok(metadata) if metadata.is_file() => Output::JsonFile(file, path.clone()),
                    _ => Output::JsonStream(file, path.clone()),
                }
            }
        })
    }
}

impl Output {
    /// Of anything but a run's result: text or JSON.
    pub(crate) fn of_anything(json: bool) -> Self {
        if json { Self::Document } else { Self::Text }
    }

    /// Of what the library says of a job: text or JSON.
    pub(crate) fn of_job(json: bool) -> Self {
        if json { Self::JobDocument } else { Self::Text }
    }

    /// Keeps a result that may not be the last: whatever happens later, the file has it.
    pub(crate) fn keep(&mut self, result: &impl Serialize) -> Result<()> {
        let Self::JsonFile(file, path) = self else { return Ok(()) };
        let text = json(result)?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{text}"))
            .map_err(io(format!("write {}", path.display())))
    }

    /// Prints the text or the JSON to standard output, as was asked for.
    pub(crate) fn write(mut self, result: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let kept = match &mut self {
            Self::JsonStream(stream, path) => match writeln!(stream, "{}", json(result)?) {
                // A reader that has gone away, as in `| head`.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                written => written.map_err(io(format!("write {}", path.display()))),
            },
            output => output.keep(result),
        };
        match self {
            Self::Text | Self::JsonFile(..) | Self::JsonStream(..) => print(&text())?,
            Self::JsonOnly => print(&json(result)?)?,
            Self::Document => print(&document(result)?)?,
            Self::JobDocument => print(&of_job(result)?)?,
        }
        if kept.is_err() {
            // A run may have taken hours: its result must not be lost with a full disk.
            print(&json(result)?)?;
        }
        kept
    }
}

fn json(result: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(result)
        .map_err(|error| Failure::new(format!("cannot write the result as JSON: {error}")))
}

/// Whether failures are told as JSON.
static JSON_FAILURES: AtomicBool = AtomicBool::new(false);

/// From now on a program reads why a command failed.
pub(crate) fn tell_failures_as_json() {
    JSON_FAILURES.store(true, Ordering::Relaxed);
}

pub(crate) fn failures_are_json() -> bool {
    JSON_FAILURES.load(Ordering::Relaxed)
}

/// Tells why the program fails.
pub(crate) fn fail(failure: &Failure) {
    if failures_are_json() { tell(failed(failure)) } else { tell(format_args!("error: {failure}")) }
}

/// Prints a line to standard error. What people may read beside the result must not end the run: nobody may
/// be there to read it.
pub(crate) fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints to standard output; a reader that has gone away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
