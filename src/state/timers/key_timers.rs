//! [`KeyTimers`]: the timers of one key.

use std::fmt;
use std::marker::PhantomData;

use crate::error::Result;
use crate::state::{KeyCodec, timer_key};
use crate::store::Scan;

use super::timer::{Timer, decode};

/// Iterator over the timers of a key, see [`TimerService::of_key`](crate::TimerService::of_key).
pub struct KeyTimers<K: ?Sized, N = ()> {
    /// As errors name it.
    pub(super) name: String,
    pub(super) scan: Scan,
    /// The key in part form.
    pub(super) key: Vec<u8>,
    pub(super) _types: PhantomData<fn(&K) -> N>,
}

impl<K: ?Sized, N> KeyTimers<K, N> {
    /// The stored key of the next one.
    pub(super) fn next_key(&mut self) -> Option<Result<Vec<u8>>> {
        loop {
            let stored = match self.scan.next()? {
                Ok((stored, _)) => stored,
                Err(error) => return Some(Err(error)),
            };
            // No key's bytes are the beginning of another's.
            if timer_key::decode(&stored).is_some_and(|(_, _, scoped)| scoped.starts_with(&self.key)) {
                return Some(Ok(stored));
            }
        }
    }
}

impl<K: KeyCodec + ?Sized, N: KeyCodec> Iterator for KeyTimers<K, N> {
    type Item = Result<Timer<K::Owned, N::Owned>>;

    fn next(&mut self) -> Option<Self::Item> {
        let stored = self.next_key()?;
        Some(stored.and_then(|stored| decode::<K, N>(&self.name, &stored)))
    }
}

impl<K: ?Sized, N> fmt::Debug for KeyTimers<K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTimers").field("name", &self.name).finish_non_exhaustive()
    }
}
