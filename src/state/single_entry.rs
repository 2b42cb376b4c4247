//! [`SingleEntry`]: how the kinds with one entry for each key are read.

use crate::error::Result;

use super::descriptor::KeyedState;
use super::ttl::TtlNow;
use super::typed::Typed;

/// A kind that stores one entry for each key and namespace: a value, a list, or what is folded.
/// ([`MapState`](crate::MapState) stores one for each key of the map.)
///
/// Each kind implements it beside its handle. [`StateReader`](crate::StateReader) reads all of them
/// through it, so that a checkpoint shows what the program would see.
pub trait SingleEntry: KeyedState {
    /// What an entry reads as.
    type Entry;
    /// What a read of one key returns.
    type Read;

    /// Reads stored bytes; None if they count as absent.
    fn open(
        typed: &Typed<Self::Value, Self::Extra>,
        stored: &[u8],
        now: TtlNow,
    ) -> Result<Option<Self::Entry>>;

    /// What a read of a key returns, whether it has an entry or not.
    fn read(typed: &Typed<Self::Value, Self::Extra>, entry: Option<Self::Entry>) -> Self::Read;

    /// Whether stored bytes do not count as absent.
    fn is_shown(typed: &Typed<Self::Value, Self::Extra>, stored: &[u8], now: TtlNow) -> Result<bool> {
        // The head of a cell tells, so the value is not decoded.
        typed.is_shown(stored, now)
    }
}
