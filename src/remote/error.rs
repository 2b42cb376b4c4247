//! Classifies the store's errors. The one place that looks into them.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;
use std::time::Duration;

pub(super) use super::answer::Verdict;
use super::answer::{Answer, Meaning};
use crate::error::{Error, ErrorKind, causes};

/// What a request to create an object is called in errors.
pub(super) const CREATE: &str = "create the object";

/// A failed request, and what may be done after it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) verdict: Verdict,
    pub(super) error: Error,
}

impl Failure {
    pub(super) fn passing(error: Error) -> Self {
        Self { verdict: Verdict::Passing, error }
    }

    pub(super) fn lasting(error: Error) -> Self {
        Self { verdict: Verdict::Lasting, error }
    }

    /// The store did not answer in time.
    pub(super) fn no_answer(what: &str, object: impl Display, limit: Duration) -> Self {
        let text = format!("cannot {what}: the store gave no answer within {limit:.1?}");
        Self::passing(Error::new(ErrorKind::StoreUnavailable, text).object(object))
    }

    /// The store broke off in the middle of a body.
    pub(super) fn cut_short(what: &str, object: impl Display, got: u64, wanted: u64) -> Self {
        let text = format!("cannot {what}: the store sent {got} of {wanted} bytes");
        Self::passing(Error::new(ErrorKind::StoreUnavailable, text).object(object))
    }

    /// Sorts an error of the store.
    pub(super) fn from_store(what: &str, object: impl Display, error: object_store::Error) -> Self {
        use object_store::Error as Store;

        let new = |verdict, kind, advice: Option<&str>, error: Store| {
            let mapped = Error::new(kind, format!("cannot {what}")).object(&object).source(error);
            Self { verdict, error: if let Some(advice) = advice { mapped.advise(advice) } else { mapped } }
        };
        if let Some((answer, meaning)) = answered(what, &error) {
            if answer.is_telling() {
                // Shorter than the whole of the error, with an address and XML in it.
                tracing::debug!(%error, "the store's answer in full");
                let text = format!("cannot {what}: {answer}");
                let error = Error::new(meaning.kind, text).object(&object).advise(meaning.advice);
                return Self { verdict: meaning.verdict, error };
            }
            return new(meaning.verdict, meaning.kind, Some(meaning.advice), error);
        }
        match error {
            // Some stores answer a failed "create if absent" with 304, most with 412; S3 answers
            // 409 when two creates meet. None of it says *whose* object is there.
            Store::AlreadyExists { .. } | Store::Precondition { .. } | Store::NotModified { .. } => {
                new(Verdict::Exists, ErrorKind::AlreadyExists, None, error)
            }
            Store::NotFound { .. } => new(Verdict::Absent, ErrorKind::NotFound, None, error),
            Store::PermissionDenied { .. } => {
                let advice = "let the credentials read, create, list and delete below the job's prefix";
                new(Verdict::Lasting, ErrorKind::StoreUnavailable, Some(advice), error)
            }
            Store::Unauthenticated { .. } => {
                let advice = "give valid credentials, in the environment or as store options";
                new(Verdict::Lasting, ErrorKind::StoreUnavailable, Some(advice), error)
            }
            Store::InvalidPath { .. } => {
                let advice = "a job needs a place of its own in the store";
                new(Verdict::Lasting, ErrorKind::ForeignData, Some(advice), error)
            }
            Store::NotSupported { .. } | Store::NotImplemented { .. } => {
                let advice = "use a store that can create an object on condition that it is absent";
                new(Verdict::Lasting, ErrorKind::UnsafeStore, Some(advice), error)
            }
            Store::UnknownConfigurationKey { .. } => {
                new(Verdict::Lasting, ErrorKind::InvalidArgument, None, error)
            }
            _ => match local_cause(&error) {
                Some(advice) => new(Verdict::Lasting, ErrorKind::Disk, Some(advice), error),
                None => new(Verdict::Passing, ErrorKind::StoreUnavailable, None, error),
            },
        }
    }

    /// Whether the store failed, rather than answered.
    pub(super) fn is_failure(&self) -> bool {
        matches!(self.verdict, Verdict::Passing | Verdict::Lasting)
    }
}

/// Whether `error` carries the answer of a server, rather than the lack of one.
pub(super) fn is_an_answer(error: &object_store::Error) -> bool {
    Answer::read(&causes(error)).has_status()
}

/// What the answer of a store over a network adds to the kind of `error`.
fn answered(what: &str, error: &object_store::Error) -> Option<(Answer, Meaning)> {
    use object_store::Error as Store;
    match error {
        // The caller finds out whose object is there.
        Store::AlreadyExists { .. } | Store::Precondition { .. } | Store::NotModified { .. } => return None,
        Store::Generic { store: "LocalFileSystem" | "InMemory", .. } => return None,
        _ => {}
    }
    let text = causes(error);
    let answer = Answer::read(&text);
    let meaning = answer.meaning(what == CREATE, &text)?;
    Some((answer, meaning))
}

/// Advice for a failure of the disk under a `file://` store; `None` if it is no such failure.
fn local_cause(error: &object_store::Error) -> Option<&'static str> {
    // Over a network, the same codes say something else: a firewall answers with "permission
    // denied".
    let object_store::Error::Generic { store: "LocalFileSystem", .. } = error else { return None };
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("free space on the disk of the store")
                }
                io::ErrorKind::PermissionDenied => Some("give the process read and write access"),
                io::ErrorKind::ReadOnlyFilesystem => Some("mount the file system for writing"),
                io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                    Some("a file and a directory are in each other's place")
                }
                _ => None,
            };
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use object_store::Error as Store;

    use super::*;

    fn generic(store: &'static str, kind: io::ErrorKind) -> Store {
        Store::Generic { store, source: Box::new(io::Error::from(kind)) }
    }

    #[test]
    fn a_busy_server_has_answered_and_a_broken_connection_has_not() {
        let busy = io::Error::other("Server returned non-2xx status code: 503 Slow Down: ");
        assert!(is_an_answer(&Store::Generic { store: "S3", source: Box::new(busy) }));
        assert!(!is_an_answer(&generic("S3", io::ErrorKind::ConnectionRefused)));
    }

    #[test]
    fn errors_are_sorted_by_what_can_be_done() {
        let path = || "p".to_string();
        let source = || Box::new(io::Error::other("why"));
        let cases = [
            (Store::NotFound { path: path(), source: source() }, Verdict::Absent, ErrorKind::NotFound),
            (
                Store::AlreadyExists { path: path(), source: source() },
                Verdict::Exists,
                ErrorKind::AlreadyExists,
            ),
            (
                Store::Precondition { path: path(), source: source() },
                Verdict::Exists,
                ErrorKind::AlreadyExists,
            ),
            (
                Store::PermissionDenied { path: path(), source: source() },
                Verdict::Lasting,
                ErrorKind::StoreUnavailable,
            ),
            (Store::NotSupported { source: source() }, Verdict::Lasting, ErrorKind::UnsafeStore),
            (generic("S3", io::ErrorKind::ConnectionReset), Verdict::Passing, ErrorKind::StoreUnavailable),
            (generic("S3", io::ErrorKind::PermissionDenied), Verdict::Passing, ErrorKind::StoreUnavailable),
            (generic("LocalFileSystem", io::ErrorKind::StorageFull), Verdict::Lasting, ErrorKind::Disk),
            (generic("LocalFileSystem", io::ErrorKind::PermissionDenied), Verdict::Lasting, ErrorKind::Disk),
            (
                generic("LocalFileSystem", io::ErrorKind::Interrupted),
                Verdict::Passing,
                ErrorKind::StoreUnavailable,
            ),
        ];
        for (error, verdict, kind) in cases {
            let text = error.to_string();
            let failure = Failure::from_store("read", "data/x", error);
            assert_eq!((failure.verdict, failure.error.kind()), (verdict, kind), "{text}");
            assert_eq!(failure.error.object_name(), Some("data/x"));
            assert!(failure.error.to_string().contains("cannot read"), "{}", failure.error);
        }
    }
}
