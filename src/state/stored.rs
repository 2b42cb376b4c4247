//! [`StoredValue`]: a stored value as a program sees it that does not know the state's types.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Layout, StateDescription, StateKind};

use super::cell::{Cell, Elements};
use super::ttl::{Ttl, TtlNow};

/// One value as a typed state stores it: the bytes that the state's codec made, and what stands
/// before them. From [`StateDescription::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredValue<'a> {
    /// What the codec made of the value.
    pub bytes: &'a [u8],
    /// The user's schema version that it was written with.
    pub schema: u32,
    /// When it was last accessed, in milliseconds since 1970 UTC, if the state had a TTL then.
    pub last_access: Option<u64>,
}

impl StateDescription {
    /// Takes apart what is stored for a key, as
    /// [`CheckpointReader::get`](crate::CheckpointReader::get) and
    /// [`CheckpointReader::scan`](crate::CheckpointReader::scan) give it: one value, the elements
    /// of a list in their order, none for a timer. Of a raw state the bytes are one value as they
    /// are.
    ///
    /// ```
    /// use alluvium::{CheckpointReader, Job, JobOptions, ListState, OpenMode, ReaderOptions, RestoreFrom};
    ///
    /// # fn main() -> alluvium::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
    /// let mut opened = Job::open(&url, JobOptions::new(dir, OpenMode::Create))?;
    /// let store = &mut opened.stores[0];
    /// let visits = store.register(ListState::<u8>::descriptor("visits"))?;
    /// store.set_key("user/1")?;
    /// visits.extend(store, [7, 8])?;
    /// let checkpoint = opened.job.trigger("")?;
    /// store.cut(checkpoint.id(), "")?;
    /// checkpoint.wait()?;
    ///
    /// let reader = CheckpointReader::open(&url, &RestoreFrom::Latest, ReaderOptions::new())?;
    /// let state = &reader.states()[0];
    /// assert_eq!((state.key_type(), state.value_type(), state.codec()), ("str", "u8", "postcard"));
    /// for entry in reader.scan(state.name(), b"")? {
    ///     let (_, _, stored) = entry?;
    ///     let values = state.values(&stored)?;
    ///     assert_eq!((values[0].bytes, values[1].bytes), ([7].as_slice(), [8].as_slice()));
    /// }
    /// # reader.close()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the bytes are not what such a state stores;
    /// [`UnsupportedVersion`](crate::ErrorKind::UnsupportedVersion) for a kind that this build does
    /// not know.
    pub fn values<'a>(&self, stored: &'a [u8]) -> Result<Vec<StoredValue<'a>>> {
        let of = |cell: Cell<'a>| StoredValue {
            bytes: cell.payload,
            schema: cell.head.schema,
            last_access: cell.head.time,
        };
        let values = match self.state_kind().map(StateKind::layout) {
            Some(Layout::Raw) => Ok(vec![StoredValue { bytes: stored, schema: 0, last_access: None }]),
            Some(Layout::Cell) => Cell::decode(stored).map(|cell| vec![of(cell)]),
            Some(Layout::Elements) => Elements::new(stored).map(|cell| cell.map(of)).collect(),
            Some(Layout::Unkeyed) => Err(Error::corrupt("a state that is not keyed has a key")),
            Some(Layout::KeyOnly) if stored.is_empty() => Ok(Vec::new()),
            Some(Layout::KeyOnly) => Err(Error::corrupt("a timer has a value")),
            None => Err(Error::new(
                ErrorKind::UnsupportedVersion,
                "the state is of a kind that this build does not know",
            )
            .advise("use a newer version")),
        };
        values.map_err(|error| error.object(format!("state {:?}", self.name())))
    }

    /// The state's TTL; None if what is in it does not expire.
    pub fn ttl(&self) -> Option<Ttl> {
        self.ttl_info().map(Ttl::of)
    }

    /// Whether reads of the program show the value at a time in milliseconds since 1970 UTC, by the
    /// state's TTL.
    pub fn shows(&self, value: &StoredValue<'_>, unix_millis: u64) -> bool {
        TtlNow::by(self.ttl(), || unix_millis).shows(value.last_access)
    }
}
