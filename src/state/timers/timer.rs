//! [`Timer`]: a timer as it is stored and as it fires.

use crate::error::{Error, Result};
use crate::state::{KeyCodec, timer_key};

/// A timer that has fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer<K, N = ()> {
    /// When it was to fire.
    pub timestamp: i64,
    /// The key that was the current one when it was registered.
    pub key: K,
    /// The namespace that it was registered with.
    pub namespace: N,
}

/// The timer of a stored key.
pub(super) fn decode<K: KeyCodec + ?Sized, N: KeyCodec>(
    name: &str,
    key: &[u8],
) -> Result<Timer<K::Owned, N::Owned>> {
    let parse = || {
        let (_, timestamp, mut scoped) = timer_key::decode(key)?;
        let key = K::decode_part(&mut scoped)?;
        let namespace = N::decode_part(&mut scoped)?;
        scoped.is_empty().then_some(Timer { timestamp, key, namespace })
    };
    parse().ok_or_else(|| {
        Error::corrupt("a stored timer is not one of the service's types of key and namespace")
            .object(format!("state {name:?}"))
    })
}
