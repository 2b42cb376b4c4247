//! Names of savepoints.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The name of a savepoint: 1 to 100 ASCII letters, digits, `-`, `_` and `.`, of which the first is
/// a letter or a digit. It is thus one part of a path in every store, and never a special file
/// name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SavepointName(Arc<str>);

/// The generation of a savepoint's name. An object's name is never used twice, because a request to
/// delete may arrive long after it was sent, and would hit the newer object. Even generations are
/// savepoints. The odd generation after one says that the name was released, and stays until the
/// name is given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(pub(crate) u64);

/// Longest name of a savepoint in bytes.
const MAX_SAVEPOINT_NAME: usize = 100;

impl FromStr for SavepointName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if first && rest && text.len() <= MAX_SAVEPOINT_NAME {
            return Ok(Self(text.into()));
        }
        Err(Error::invalid(format!("{text:?} cannot be the name of a savepoint")).advise(format!(
            "use 1 to {MAX_SAVEPOINT_NAME} letters (a to z, A to Z), digits, '-', '_' and '.', and begin with a letter or digit"
        )))
    }
}

impl fmt::Display for SavepointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for SavepointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
