//! [`KeyPrefix`]: what the keys of a part of a map begin with.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::KeyCodec;
use crate::state::escape;

/// What keys of type `K` begin with: of strings and bytes a beginning, of tuples their first
/// components as a whole. The beginning of a tuple's first component is [`StartsWith`].
///
/// ```
/// use alluvium::{Job, JobOptions, MapState, OpenMode};
/// use alluvium::state::StartsWith;
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// let hits = store.register(MapState::<(String, u32), u64>::descriptor("hits"))?;
/// store.set_key("site")?;
/// for page in ["a", "ab", "b"] {
///     hits.put(store, &(page.to_owned(), 7), &1)?;
/// }
/// assert_eq!(hits.prefix(store, &"a".to_owned())?.count(), 1);
/// assert_eq!(hits.prefix(store, &StartsWith("a"))?.count(), 2);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no prefix of keys of type `{K}`",
    note = "of strings and bytes it is a `str` or `[u8]`; of tuples one or more whole components, as in `&7_u8` or \
            `&text.to_owned()`, or the beginning of the first one, as in `&StartsWith(\"text\")`"
)]
pub trait KeyPrefix<K: ?Sized> {
    /// Appends what all encodings of such keys begin with.
    fn encode_prefix(&self, out: &mut Vec<u8>);
}

/// The beginning of the first component of a tuple, or of a key that is a string or bytes; see
/// [`KeyPrefix`]. Of bytes it is made as in `StartsWith(&[1, 2][..])`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartsWith<'a, P: ?Sized>(pub &'a P);

impl KeyPrefix<String> for str {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
}

impl KeyPrefix<Vec<u8>> for [u8] {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
}

impl KeyPrefix<String> for String {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
}

impl KeyPrefix<Vec<u8>> for Vec<u8> {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
}

macro_rules! starts_with {
    (@tuple [$($others:ident),*] $tuple:ty, $borrowed:ty) => {
        impl<$($others),*> KeyPrefix<$tuple> for StartsWith<'_, $borrowed> {
            fn encode_prefix(&self, out: &mut Vec<u8>) {
                let start = out.len();
                self.0.encode(out);
                escape::escape(out, start);
            }
        }
    };
    ($owned:ty, $borrowed:ty) => {
        impl KeyPrefix<$owned> for StartsWith<'_, $borrowed> {
            fn encode_prefix(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
        }

        starts_with!(@tuple [B] ($owned, B), $borrowed);
        starts_with!(@tuple [B, C] ($owned, B, C), $borrowed);
        starts_with!(@tuple [B, C, D] ($owned, B, C, D), $borrowed);
    };
}

starts_with!(String, str);
starts_with!(Vec<u8>, [u8]);

impl<A: KeyCodec, B> KeyPrefix<(A, B)> for A {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        self.encode_part(out);
    }
}

impl<A: KeyCodec, B, C> KeyPrefix<(A, B, C)> for A {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        self.encode_part(out);
    }
}

impl<A: KeyCodec, B: KeyCodec, C> KeyPrefix<(A, B, C)> for (A, B) {
    fn encode_prefix(&self, out: &mut Vec<u8>) {
        self.encode_part(out);
    }
}
