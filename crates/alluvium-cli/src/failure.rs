//! Why a command ends without success, and the exit code that says so.

use std::fmt;

use alluvium::ErrorKind;
pub(crate) use alluvium_supervisor::Exit;

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// The message for the user and the exit code.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
    /// Where the library said so.
    pub(crate) kind: Option<ErrorKind>,
    /// The reader of a pipe has gone away, as in `| head`.
    pub(crate) reader_gone: bool,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), kind: None, reader_gone: false }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), kind: None, reader_gone: false }
    }

    /// What another program has ended with.
    pub(crate) fn passed_on(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, ..Self::new(message) }
    }

    /// A signal has come while something was done.
    pub(crate) fn interrupted(while_doing: &str) -> Self {
        Self { exit: Exit::Interrupted, ..Self::new(format!("interrupted{while_doing}")) }
    }

    /// Adds what the user can do on this command line.
    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.message = format!("{}\n  {hint}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<alluvium::Error> for Failure {
    fn from(error: alluvium::Error) -> Self {
        let exit = Exit::of_code(error.exit_code().into()).unwrap_or(Exit::Failed);
        Self { exit, message: error.to_string(), kind: Some(error.kind()), reader_gone: false }
    }
}

/// A failure of the machine underneath, with what was being done.
pub(crate) fn io(what: impl fmt::Display) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure {
        reader_gone: error.kind() == std::io::ErrorKind::BrokenPipe,
        ..Failure::new(format!("cannot {what}: {error}"))
    }
}
