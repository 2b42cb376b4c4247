//! What RocksDB says of a call that failed.

use std::fmt;

/// A failure, as RocksDB hands it to C: `<code>: <detail>`.
#[derive(Debug, Clone)]
pub(super) struct Status(String);

#[cfg(test)]
impl Status {
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Status {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl AsRef<str> for Status {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Status {}
