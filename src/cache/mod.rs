//! A cache of records: what an operator reads and writes again stays in memory, one copy a key.
//!
//! A delta holds what was written since the last cut, and gives its memory back once the table has
//! it. A read of a key that was written a second ago would then go to RocksDB, which takes ten
//! times as long. The cache holds the current value of as many keys as its memory has room for.
//! Every write updates it, so an entry is never older than the newest delta, and a hit ends the
//! read, however many deltas are on their way.
//!
//! The records lie in a ring of chunks ([`log`]), with a hash index over them ([`index`]). A write
//! to a key that is there changes the record in place. That is why the ring holds each key once,
//! unlike a log whose windows are the deltas: with as much memory as there is state, everything is
//! in it. The oldest records make room for new ones; those that were used since they came, get a
//! second chance (the CLOCK algorithm).
//!
//! Not every state is worth it. A state that is only written to would pay for entries that no
//! read asks for, so [`worth`] watches how often each state is read.

mod deletions;
mod index;
mod log;
mod memory;
#[cfg(test)]
mod model_tests;
mod offers;
mod record_cache;
mod reserve;
mod worth;

pub(crate) use memory::{CacheLimits, CacheMemory};
pub(crate) use record_cache::{CacheStats, Cached, RecordCache};
