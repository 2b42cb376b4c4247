//! [`KeyCodec`]: keys to bytes that sort as the keys do, and back.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

mod basic;
mod compound;
mod prefix;
#[cfg(test)]
mod tests;

use crate::key_group::{KeyGroup, MaxParallelism};
use crate::store::KeyType;

use super::escape;
pub use prefix::{KeyPrefix, StartsWith};

/// A type whose values can be keys, namespaces and keys of maps: its bytes sort as its values do.
///
/// There are two forms. The *plain* form is what decides a key's group, and what stands last in a
/// stored key; of a string these are its own bytes. The *part* form, which other things may follow,
/// also says where it ends. By default it is the plain form with each zero byte escaped (`00 ff`)
/// and an end (`00 01`); types whose plain form has a fixed size, such as integers, are their own
/// part form.
///
/// Built in: integers from 8 to 128 bits, `f32` and `f64` (-0.0 and 0.0 are one key, and so are all
/// NaNs, which come last), `bool`, `char`, `String` and `str`, `Vec<u8>` and `[u8]`, byte arrays,
/// `Option` (None sorts first), `()`, and tuples of two to four. For a struct,
/// [`key_codec!`](crate::key_codec) does it field by field; other types are implemented on top of
/// those:
///
/// ```
/// use alluvium::state::KeyCodec;
///
/// /// A session, sorted by its start.
/// #[derive(Debug, PartialEq)]
/// struct Window {
///     start: u64,
///     end: u64,
/// }
///
/// impl KeyCodec for Window {
///     type Owned = Self;
///     const NAME: &'static str = "window";
///
///     fn encode(&self, out: &mut Vec<u8>) {
///         (self.start, self.end).encode(out);
///     }
///
///     fn decode(bytes: &[u8]) -> Option<Self> {
///         let (start, end) = <(u64, u64)>::decode(bytes)?;
///         Some(Self { start, end })
///     }
/// }
///
/// let mut bytes = Vec::new();
/// Window { start: 1, end: 2 }.encode(&mut bytes);
/// assert_eq!(Window::decode(&bytes), Some(Window { start: 1, end: 2 }));
/// ```
pub trait KeyCodec {
    /// What decoding gives: `String` for `str`, else mostly `Self`.
    type Owned;

    /// A stable name of the type's bytes, recorded with each state that uses them. Another name in
    /// a restored checkpoint is an error.
    const NAME: &'static str;

    /// Appends the plain form.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the plain form. None if the bytes are not of this type.
    fn decode(bytes: &[u8]) -> Option<Self::Owned>;

    /// Appends the part form. To be overridden, together with [`KeyCodec::decode_part`], where the
    /// plain form says itself where it ends: no encoding may then be the beginning of another.
    fn encode_part(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.encode(out);
        escape::close(out, start);
    }

    /// Takes the part form off the front of `bytes`. None if the bytes are not of this type.
    fn decode_part(bytes: &mut &[u8]) -> Option<Self::Owned> {
        Self::decode(&escape::take(bytes)?)
    }

    /// The name with that of all its parts, as it is recorded. Default [`KeyCodec::NAME`].
    fn name() -> String {
        Self::NAME.to_owned()
    }

    /// Stands for the name where comparing that would be slow. Default a hash of
    /// [`KeyCodec::NAME`]; a type that overrides [`KeyCodec::name`] overrides this as well.
    const CODE: u64 = hash(Self::NAME.as_bytes(), OFFSET);
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, which can be computed by the compiler.
#[expect(clippy::indexing_slicing, reason = "at compile time, and below the length")]
const fn hash(bytes: &[u8], mut state: u64) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        state = (state ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    state
}

const fn combine(state: u64, code: u64) -> u64 {
    hash(&code.to_le_bytes(), state)
}

impl KeyType {
    pub(crate) fn of<K: KeyCodec + ?Sized>() -> Self {
        Self { code: K::CODE, name: K::name }
    }
}

impl MaxParallelism {
    /// The group of a typed key: that of its plain form, see [`KeyCodec`] and
    /// [`MaxParallelism::group_of`]. The code that sends records to subtasks asks for it.
    ///
    /// ```
    /// use alluvium::MaxParallelism;
    ///
    /// let groups = MaxParallelism::default();
    /// assert_eq!(groups.group_of_key("page/1"), groups.group_of(b"page/1"));
    /// assert_eq!(groups.group_of_key(&7_u16), groups.group_of(&[0, 7]));
    /// ```
    pub fn group_of_key<K: KeyCodec + ?Sized>(self, key: &K) -> KeyGroup {
        let mut bytes = Vec::with_capacity(32);
        key.encode(&mut bytes);
        self.group_of(&bytes)
    }
}
