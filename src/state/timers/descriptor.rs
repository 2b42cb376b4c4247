//! [`TimerDescriptor`]: declares timers once, for all stores that use them.

use std::fmt;
use std::marker::PhantomData;

use crate::delta::TableKind;
use crate::error::Result;
use crate::state::KeyCodec;
use crate::store::{StateKind, StateOptions};

use super::timer::{Timer, decode};

/// Declares a [`TimerService`](crate::TimerService).
pub struct TimerDescriptor<K: ?Sized, N = ()> {
    pub(super) name: String,
    pub(super) _types: PhantomData<fn(&K) -> N>,
}

impl<K: KeyCodec + ?Sized, N: KeyCodec> TimerDescriptor<K, N> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What is compared with a state that is there already.
    pub(crate) fn options(&self) -> StateOptions {
        StateOptions {
            kind: StateKind::Timers,
            table: TableKind::Ordered,
            key: K::name(),
            namespace: N::name(),
            ..StateOptions::new(self.name.as_str())
        }
    }

    /// The timer of a stored key.
    pub(crate) fn decode(&self, key: &[u8]) -> Result<Timer<K::Owned, N::Owned>> {
        decode::<K, N>(&self.name, key)
    }
}

// Derived ones would ask the same of the types.

impl<K: ?Sized, N> Clone for TimerDescriptor<K, N> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), _types: PhantomData }
    }
}

impl<K: ?Sized, N> fmt::Debug for TimerDescriptor<K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerDescriptor").field("name", &self.name).finish_non_exhaustive()
    }
}
