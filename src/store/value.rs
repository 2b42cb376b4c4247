//! A value as a read returns it.

use std::fmt;
use std::ops::Deref;

use crate::table::TableValue;

/// The bytes of a value: borrowed from memory or pinned in RocksDB's block cache, so that a read
/// copies nothing. Dereferences to `[u8]`.
pub struct Value<'a>(Bytes<'a>);

enum Bytes<'a> {
    Borrowed(&'a [u8]),
    Pinned(TableValue<'a>),
    Owned(Vec<u8>),
}

impl<'a> Value<'a> {
    pub(crate) fn borrowed(bytes: &'a [u8]) -> Self {
        Self(Bytes::Borrowed(bytes))
    }

    pub(crate) fn pinned(value: TableValue<'a>) -> Self {
        Self(Bytes::Pinned(value))
    }

    pub(crate) fn owned(bytes: Vec<u8>) -> Self {
        Self(Bytes::Owned(bytes))
    }
}

impl Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Pinned(value) => value,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value<'_> {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}
