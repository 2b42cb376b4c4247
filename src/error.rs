//! The one public error: a short [`ErrorKind`] that says what the caller may do, over a message
//! that says what failed, on which object, and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
// Errors cross processes with the number of their kind: new kinds go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or option is wrong. Fix the call.
    InvalidArgument,
    /// The job, checkpoint or state that was asked for does not exist.
    NotFound,
    /// The job exists already, and the caller said that it must not.
    AlreadyExists,
    /// The place holds something that is not Alluvium's. Nothing was touched.
    ForeignData,
    /// The object store does not honour conditional creates, so commits would not be safe on it.
    UnsafeStore,
    /// Bytes read back do not match their checksum or their format. Never retried.
    Corrupt,
    /// An object that a manifest refers to is gone.
    MissingObject,
    /// Written by a newer version of the format than this build can read.
    UnsupportedVersion,
    /// The checkpoint does not fit the options of this job (max parallelism, states, merge operator).
    Incompatible,
    /// A later attempt of the job has taken over. Stop this process; it will never commit again.
    Fenced,
    /// Another process holds the local directory.
    Locked,
    /// The memory bound is reached; the call would have had to wait. Try again later.
    WouldBlock,
    /// The object store did not answer, or answered with a passing failure. Retried in the background.
    StoreUnavailable,
    /// Local disk: full, missing permission, or broken.
    Disk,
    /// The checkpoint was given up (timeout, abort). The state is unharmed; the next one carries on.
    Aborted,
    /// The job or store was closed.
    Closed,
    /// A bug in this crate. Please report it.
    Internal,
    /// More checkpoints failed in a row than [`JobOptions::tolerable_failed_checkpoints`] allows. The attempt is
    /// over: end the process and start it again.
    ///
    /// [`JobOptions::tolerable_failed_checkpoints`]: crate::JobOptions::tolerable_failed_checkpoints
    Overdue,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidArgument => "invalid argument",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::ForeignData => "foreign data",
            Self::UnsafeStore => "unsafe store",
            Self::Corrupt => "corrupt",
            Self::MissingObject => "missing object",
            Self::UnsupportedVersion => "unsupported version",
            Self::Incompatible => "incompatible",
            Self::Fenced => "fenced",
            Self::Locked => "locked",
            Self::WouldBlock => "would block",
            Self::StoreUnavailable => "store unavailable",
            Self::Disk => "disk",
            Self::Aborted => "aborted",
            Self::Closed => "closed",
            Self::Internal => "internal error",
            Self::Overdue => "checkpoints overdue",
        })
    }
}

/// What failed, on which object, and what to do. Cheap to clone, so that a background failure can be
/// reported at every later call. It can be sent to another process: there its causes are one text.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    object: Option<String>,
    advice: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// An error as a plain value.
#[derive(Serialize, Deserialize)]
struct Plain {
    kind: ErrorKind,
    message: String,
    object: Option<String>,
    advice: Option<String>,
    causes: Option<String>,
}

// By hand: conversions from `Plain` would leave the compiler in doubt about what `?` makes of an error.
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Inner { kind, message, object, advice, source } = Inner::clone(&self.inner);
        let causes = source.map(|source| causes(&*source));
        Plain { kind, message, object, advice, causes }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Plain { kind, message, object, advice, causes } = Plain::deserialize(deserializer)?;
        let source = causes.map(|text| Arc::new(Causes(text)) as Arc<dyn StdError + Send + Sync>);
        Ok(Self { inner: Arc::new(Inner { kind, message, object, advice, source }) })
    }
}

/// The causes of an error that comes from another process.
#[derive(Debug)]
struct Causes(String);

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Causes {}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                object: None,
                advice: None,
                source: None,
            }),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A local I/O failure while doing `what` on `path`.
    pub(crate) fn disk(what: &str, path: &std::path::Path, source: std::io::Error) -> Self {
        let full = source.kind() == std::io::ErrorKind::StorageFull;
        let error =
            Self::new(ErrorKind::Disk, format!("cannot {what}")).object(path.display()).source(source);
        if full { error.advise("free disk space and open the job again") } else { error }
    }

    /// Names the object (key, path, state) that the error is about. The innermost name wins: it is
    /// the most precise.
    #[must_use]
    pub(crate) fn object(mut self, object: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.inner);
        inner.object.get_or_insert_with(|| object.to_string());
        self
    }

    /// Names the place within the object.
    #[must_use]
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.inner);
        inner.object = Some(match inner.object.take() {
            Some(object) => format!("{object}, {place}"),
            None => place.to_string(),
        });
        self
    }

    /// Says what the user can do.
    #[must_use]
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.inner).advice = Some(advice.into());
        self
    }

    /// Says what the user can do besides.
    #[must_use]
    pub(crate) fn more_advice(self, advice: impl fmt::Display) -> Self {
        match &self.inner.advice {
            Some(there) => {
                let all = format!("{there}; {advice}");
                self.advise(all)
            }
            None => self.advise(advice.to_string()),
        }
    }

    #[must_use]
    pub(crate) fn source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.inner).source = Some(Arc::new(source));
        self
    }

    /// As [`Error::source`], for what a user's code returned.
    #[must_use]
    pub(crate) fn boxed_source(mut self, source: Box<dyn StdError + Send + Sync>) -> Self {
        Arc::make_mut(&mut self.inner).source = Some(Arc::from(source));
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The exit code of a process that ends by this error, for whoever may start it again: 3 if it was
    /// [fenced](ErrorKind::Fenced), and 2 after [wrong usage](ErrorKind::InvalidArgument), which ask not to be started
    /// again; 5 if its checkpoints are [overdue](ErrorKind::Overdue); 1 in all other cases. `docs/operations.md` has
    /// the whole table.
    ///
    /// ```
    /// use std::process::ExitCode;
    ///
    /// fn run() -> alluvium::Result<()> {
    ///     Ok(())
    /// }
    ///
    /// fn main() -> ExitCode {
    ///     match run() {
    ///         Ok(()) => ExitCode::SUCCESS,
    ///         Err(error) => {
    ///             eprintln!("error: {error}");
    ///             ExitCode::from(error.exit_code())
    ///         }
    ///     }
    /// }
    /// ```
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            ErrorKind::InvalidArgument => 2,
            ErrorKind::Fenced => 3,
            ErrorKind::Overdue => 5,
            _ => 1,
        }
    }

    /// What the caller can do about this very failure, where that is known. [`ErrorKind`] says what can be done about
    /// its kind.
    pub fn advice(&self) -> Option<&str> {
        self.inner.advice.as_deref()
    }

    /// What led to the error, as the layer below reported it. The text of this error says it already, so that
    /// [`source`](StdError::source) does not: programs that print an error and its sources would repeat it.
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.inner.source.as_deref()
    }

    /// The object, path, state or option that the error is about, where there is one.
    pub fn object_name(&self) -> Option<&str> {
        self.inner.object.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        write!(f, "{}: {}", inner.kind, inner.message)?;
        if let Some(object) = &inner.object {
            write!(f, " ({object})")?;
        }
        // The source is part of the text: most programs print only `{error}`.
        if let Some(source) = &inner.source {
            write!(f, ": {}", causes(&**source))?;
        }
        if let Some(advice) = &inner.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

/// The text of an error and of its causes, each of them once: some errors say those themselves, and some do not.
pub(crate) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Without a source, see `Error::cause`.
impl StdError for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_says_what_where_why_and_what_to_do() {
        let error = Error::corrupt("checksum does not match")
            .object("data/1/0/x.delta")
            .object("an outer name")
            .advise("restore an older checkpoint");
        assert_eq!(
            error.to_string(),
            "corrupt: checksum does not match (data/1/0/x.delta); restore an older checkpoint"
        );
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.object_name(), Some("data/1/0/x.delta"));
        assert_eq!(error.advice(), Some("restore an older checkpoint"));
    }

    #[test]
    fn causes_are_said_once_each() {
        #[derive(Debug)]
        struct Outer(&'static str, std::io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }
        impl StdError for Outer {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.1)
            }
        }
        let silent = Error::internal("x").source(Outer("it failed", std::io::Error::other("refused")));
        assert_eq!(silent.to_string(), "internal error: x: it failed: refused");
        // A program that prints the sources of an error as well says nothing twice.
        assert!(StdError::source(&silent).is_none() && silent.cause().is_some());
        let open = Error::internal("x").source(Outer("it was refused", std::io::Error::other("refused")));
        assert_eq!(open.to_string(), "internal error: x: it was refused");
    }

    #[test]
    fn a_place_follows_its_object() {
        let error = Error::corrupt("no value").object("state \"x\"").within("key group 5").within("key 7");
        assert_eq!(error.object_name(), Some("state \"x\", key group 5, key 7"));
        assert_eq!(Error::corrupt("no value").within("key 7").object_name(), Some("key 7"));
    }

    #[test]
    fn an_error_says_the_same_in_another_process() {
        let full = Error::corrupt("checksum does not match")
            .object("data/1/0/x.delta")
            .advise("restore an older checkpoint")
            .source(std::io::Error::other("refused"));
        for error in [full, Error::internal("x")] {
            let bytes = postcard::to_stdvec(&error).unwrap();
            let there: Error = postcard::from_bytes(&bytes).unwrap();
            assert_eq!(there.to_string(), error.to_string());
            assert_eq!((there.kind(), there.object_name()), (error.kind(), error.object_name()));
        }
    }

    #[test]
    fn a_clone_shares_the_source() {
        let error = Error::disk(
            "write",
            std::path::Path::new("/x"),
            std::io::Error::from(std::io::ErrorKind::StorageFull),
        );
        assert!(error.clone().to_string().contains("free disk space"));
        assert!(error.clone().cause().is_some());
    }
}
