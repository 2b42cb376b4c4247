//! What a command writes: results to standard output, all else to standard error.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use serde::Serialize;

use crate::document::{document, failed, of_job};
use crate::failure::{Failure, Result, io};

/// Where results go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print the result as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Write the result as JSON into this file, beside what is printed
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// What standard output gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Printed {
    Text,
    /// A run's result, by its own schema.
    Result,
    /// Anything but a run's result.
    Document,
    /// What the library says of a job.
    JobDocument,
}

/// Where a result goes.
#[derive(Debug)]
pub(crate) struct Output {
    printed: Printed,
    file: Option<ResultFile>,
}

/// The file of `--output`, opened before the run, so that a wrong path does not cost the result.
#[derive(Debug)]
struct ResultFile {
    file: File,
    path: PathBuf,
    /// Not a pipe or a device, which take every byte once.
    regular: bool,
}

impl OutputArgs {
    pub(crate) fn open(&self) -> Result<Output> {
        let file = self.output.as_deref().map(ResultFile::create).transpose()?;
        Ok(Output { printed: if self.json { Printed::Result } else { Printed::Text }, file })
    }
}

impl ResultFile {
    fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(io(format!("write {}", path.display())))?;
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        Ok(Self { file, path: path.to_owned(), regular })
    }

    /// Puts the text in place of what the file has.
    fn write(&mut self, text: &str) -> Result<()> {
        let written = if self.regular {
            self.file
                .set_len(0)
                .and_then(|()| self.file.rewind())
                .and_then(|()| writeln!(self.file, "{text}"))
        } else {
            match writeln!(self.file, "{text}") {
                // A reader that has gone away, as in `| head`.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                written => written,
            }
        };
        written.map_err(io(format!("write {}", self.path.display())))
    }
}

impl Output {
    /// For anything but a run's result: text or JSON.
    pub(crate) fn of_anything(json: bool) -> Self {
        Self { printed: if json { Printed::Document } else { Printed::Text }, file: None }
    }

    /// For what the library says of a job: text or JSON.
    pub(crate) fn of_job(json: bool) -> Self {
        Self { printed: if json { Printed::JobDocument } else { Printed::Text }, file: None }
    }

    /// Keeps a result that may not be the last: whatever happens later, the file has it.
    pub(crate) fn keep(&mut self, result: &impl Serialize) -> Result<()> {
        match &mut self.file {
            Some(file) if file.regular => file.write(&json(result)?),
            _ => Ok(()),
        }
    }

    /// Prints the text or the JSON to standard output, as was asked for, and writes the file.
    pub(crate) fn write(mut self, result: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let kept = match &mut self.file {
            Some(file) => file.write(&json(result)?),
            None => Ok(()),
        };
        match self.printed {
            Printed::Text => print(&text())?,
            Printed::Result => print(&json(result)?)?,
            Printed::Document => print(&document(result)?)?,
            Printed::JobDocument => print(&of_job(result)?)?,
        }
        if kept.is_err() && self.printed == Printed::Text {
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

/// Prints a line to standard error. It is only beside the result, so a closed
/// terminal must not end the run.
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
