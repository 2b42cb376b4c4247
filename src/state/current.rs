//! The current key, as a program sets it.

use crate::error::{Error, Result};
use crate::store::{KeyType, StateStore};

use super::key_codec::KeyCodec;

impl StateStore {
    /// Makes `key` the current one: what typed state is read and written by, until the next call.
    /// Its key group is [`MaxParallelism::group_of_key`](crate::MaxParallelism::group_of_key).
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the key's plain form is longer
    /// than 64 KiB, or its group is not one of the store's. There is no current key then.
    pub fn set_key<K: KeyCodec + ?Sized>(&mut self, key: &K) -> Result<()> {
        self.set_current(KeyType::of::<K>(), |out| key.encode(out), |out| key.encode_part(out))
    }

    /// The current key, None if there is none.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it is of another type.
    pub fn key<K: KeyCodec + ?Sized>(&self) -> Result<Option<K::Owned>> {
        let Some((_, key_type)) = self.current() else { return Ok(None) };
        let decoded = (key_type.code == K::CODE)
            .then(|| self.with_current_part(|mut bytes| K::decode_part(&mut bytes)))
            .flatten();
        decoded.map(Some).ok_or_else(|| {
            Error::invalid(format!("the current key is of type {:?}, not {:?}", (key_type.name)(), K::name()))
        })
    }
}
