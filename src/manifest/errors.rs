//! What keeps an attempt from the chain.

use crate::error::{Error, ErrorKind};
use crate::ids::{Epoch, Version};
use crate::remote::ObjectName;

/// Says how to get past a version of the chain that cannot be read.
pub(super) fn past_damage(error: Error) -> Error {
    error.advise(
        "allow JobOptions::fallback to go on from the newest checkpoint that is intact; what is damaged stays as it is",
    )
}

/// Fenced by the attempt `by`, whose record is the version of this number.
pub(crate) fn fenced_by(by: Epoch) -> Error {
    fenced(&ObjectName::manifest(Version(by.0)), Some(by))
}

pub(super) fn fenced(name: &ObjectName, by: Option<Epoch>) -> Error {
    let by = by.map_or_else(String::new, |epoch| format!(", epoch {epoch},"));
    Error::new(ErrorKind::Fenced, format!("a later attempt of this job{by} has taken over"))
        .object(name)
        .advise("stop this process; the later attempt carries on")
}

pub(super) fn unlisted(name: &ObjectName) -> Error {
    Error::new(ErrorKind::UnsafeStore, "the store does not list an object that it has just created")
        .object(name)
        .advise("use a store whose listings are consistent")
}

/// Something that a later version of Alluvium has written.
pub(super) fn newer(message: String) -> Error {
    Error::new(ErrorKind::UnsupportedVersion, message).advise("use a newer version of alluvium")
}
