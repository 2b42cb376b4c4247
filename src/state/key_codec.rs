//! [`KeyCodec`]: keys to bytes that sort as the keys do, and back.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::key_group::{KeyGroup, MaxParallelism};
use crate::store::KeyType;

use super::escape;

/// A type whose values can be keys, namespaces and keys of maps: its bytes sort as its values do.
///
/// There are two forms. The *plain* form is what decides a key's group, and what stands last in a
/// stored key; of a string these are its own bytes. The *part* form, which other things may follow, also says
/// where it ends. By default it is the plain form with each zero byte escaped (`00 ff`) and an end
/// (`00 01`); types whose plain form has a fixed size, such as integers, are their own part form.
///
/// Built in: integers from 8 to 128 bits, `f32` and `f64` (-0.0 and 0.0 are one key, and so are all NaNs, which
/// come last), `bool`, `char`, `String` and `str`, `Vec<u8>` and `[u8]`, byte arrays,
/// `Option` (None sorts first), `()`, and tuples of two to four. For a struct, [`key_codec!`](crate::key_codec) does it
/// field by field; other types are implemented on top of those:
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

    /// A stable name of the type's bytes, recorded with each state that uses them. Another name in a
    /// restored checkpoint is an error.
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

    /// Stands for the name where comparing that would be slow. Default a hash of [`KeyCodec::NAME`]; a
    /// type that overrides [`KeyCodec::name`] overrides this as well.
    const CODE: u64 = hash(Self::NAME.as_bytes(), OFFSET);
}

/// What keys of type `K` begin with: of strings and bytes a beginning, of tuples their first components as a whole. The
/// beginning of a tuple's first component is [`StartsWith`].
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

/// The beginning of the first component of a tuple, or of a key that is a string or bytes; see [`KeyPrefix`]. Of bytes it
/// is made as in `StartsWith(&[1, 2][..])`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartsWith<'a, P: ?Sized>(pub &'a P);

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
    /// The group of a typed key: that of its plain form, see [`KeyCodec`] and [`MaxParallelism::group_of`].
    /// Whoever sends records to subtasks asks for it.
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

/// Fixed size: the plain form is the part form.
macro_rules! fixed {
    ($size:expr) => {
        fn encode_part(&self, out: &mut Vec<u8>) {
            self.encode(out);
        }

        fn decode_part(bytes: &mut &[u8]) -> Option<Self> {
            let (mine, rest) = bytes.split_at_checked($size)?;
            *bytes = rest;
            Self::decode(mine)
        }
    };
}

macro_rules! unsigned {
    ($($int:ident)*) => {$(
        impl KeyCodec for $int {
            type Owned = Self;
            const NAME: &'static str = stringify!($int);

            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn decode(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_be_bytes)
            }

            fixed!(size_of::<$int>());
        }
    )*};
}

unsigned!(u8 u16 u32 u64 u128);

macro_rules! signed {
    ($($int:ident)*) => {$(
        impl KeyCodec for $int {
            type Owned = Self;
            const NAME: &'static str = stringify!($int);

            /// With the sign turned, so that negative numbers come first.
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&(*self ^ Self::MIN).to_be_bytes());
            }

            fn decode(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(|bytes| Self::from_be_bytes(bytes) ^ Self::MIN)
            }

            fixed!(size_of::<$int>());
        }
    )*};
}

signed!(i8 i16 i32 i64 i128);

impl KeyCodec for bool {
    type Owned = Self;
    const NAME: &'static str = "bool";

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fixed!(1);
}

impl KeyCodec for char {
    type Owned = Self;
    const NAME: &'static str = "char";

    fn encode(&self, out: &mut Vec<u8>) {
        u32::from(*self).encode(out);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        u32::decode(bytes).and_then(Self::from_u32)
    }

    fixed!(4);
}

impl KeyCodec for () {
    type Owned = Self;
    const NAME: &'static str = "()";

    fn encode(&self, _out: &mut Vec<u8>) {}

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }

    fixed!(0);
}

impl<const N: usize> KeyCodec for [u8; N] {
    type Owned = Self;
    const NAME: &'static str = "array";
    const CODE: u64 = combine(hash(b"array", OFFSET), N as u64);

    fn name() -> String {
        format!("[u8; {N}]")
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }

    fixed!(N);
}

impl KeyCodec for str {
    type Owned = String;
    const NAME: &'static str = "str";

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<String> {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

impl KeyCodec for [u8] {
    type Owned = Vec<u8>;
    const NAME: &'static str = "bytes";

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.to_vec())
    }
}

/// A type that is encoded as another that it dereferences to.
macro_rules! as_target {
    ([$($generics:tt)*] $type:ty, $target:ty) => {
        impl<$($generics)*> KeyCodec for $type {
            type Owned = <$target as KeyCodec>::Owned;
            const NAME: &'static str = <$target as KeyCodec>::NAME;
            const CODE: u64 = <$target as KeyCodec>::CODE;

            fn name() -> String {
                <$target as KeyCodec>::name()
            }

            fn encode(&self, out: &mut Vec<u8>) {
                <$target as KeyCodec>::encode(self, out);
            }

            fn decode(bytes: &[u8]) -> Option<Self::Owned> {
                <$target as KeyCodec>::decode(bytes)
            }

            fn encode_part(&self, out: &mut Vec<u8>) {
                <$target as KeyCodec>::encode_part(self, out);
            }

            fn decode_part(bytes: &mut &[u8]) -> Option<Self::Owned> {
                <$target as KeyCodec>::decode_part(bytes)
            }
        }
    };
}

as_target!([] String, str);
as_target!([] Vec<u8>, [u8]);
as_target!([K: KeyCodec + ?Sized] &K, K);

impl<K: KeyCodec> KeyCodec for Option<K> {
    type Owned = Option<K::Owned>;
    const NAME: &'static str = "option";
    const CODE: u64 = combine(hash(b"option", OFFSET), K::CODE);

    fn name() -> String {
        format!("option({})", K::name())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.encode(out);
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self::Owned> {
        match bytes.split_first()? {
            (0, []) => Some(None),
            (1, key) => K::decode(key).map(Some),
            _ => None,
        }
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.encode_part(out);
        }
    }

    fn decode_part(bytes: &mut &[u8]) -> Option<Self::Owned> {
        let (tag, rest) = bytes.split_first()?;
        *bytes = rest;
        match tag {
            0 => Some(None),
            1 => K::decode_part(bytes).map(Some),
            _ => None,
        }
    }
}

/// All components but the last in part form, the last as the whole is.
macro_rules! tuple {
    ($($part:ident)* ; $last:ident) => {
        impl<$($part: KeyCodec,)* $last: KeyCodec> KeyCodec for ($($part,)* $last) {
            type Owned = ($($part::Owned,)* $last::Owned);
            const NAME: &'static str = "tuple";
            const CODE: u64 = {
                let code = hash(b"tuple", OFFSET);
                $(let code = combine(code, $part::CODE);)*
                combine(code, $last::CODE)
            };

            fn name() -> String {
                let parts = [$($part::name(),)* $last::name()];
                format!("({})", parts.join(", "))
            }

            fn encode(&self, out: &mut Vec<u8>) {
                #[allow(non_snake_case, reason = "a component is called as its type")]
                let ($($part,)* $last) = self;
                $($part.encode_part(out);)*
                $last.encode(out);
            }

            fn decode(mut bytes: &[u8]) -> Option<Self::Owned> {
                Some(($($part::decode_part(&mut bytes)?,)* $last::decode(bytes)?))
            }

            fn encode_part(&self, out: &mut Vec<u8>) {
                #[allow(non_snake_case, reason = "a component is called as its type")]
                let ($($part,)* $last) = self;
                $($part.encode_part(out);)*
                $last.encode_part(out);
            }

            fn decode_part(bytes: &mut &[u8]) -> Option<Self::Owned> {
                Some(($($part::decode_part(bytes)?,)* $last::decode_part(bytes)?))
            }
        }
    };
}

tuple!(A; B);
tuple!(A B; C);
tuple!(A B C; D);

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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    fn plain<K: KeyCodec + ?Sized>(key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes
    }

    fn part<K: KeyCodec + ?Sized>(key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode_part(&mut bytes);
        bytes
    }

    /// Both forms come back, sort as the keys do, and part forms are no prefixes of each other.
    fn check<K: KeyCodec<Owned = K> + Ord + Debug>(a: &K, b: &K) {
        assert_eq!(K::decode(&plain(a)).as_ref(), Some(a));
        assert_eq!(plain(a).cmp(&plain(b)), a.cmp(b), "{a:?} {b:?}");
        assert_eq!(part(a).cmp(&part(b)), a.cmp(b), "{a:?} {b:?}");
        assert!(a == b || part(b).is_empty() || !part(a).starts_with(&part(b)), "{a:?} {b:?}");
        let mut bytes = part(a);
        bytes.extend_from_slice(&part(b));
        let mut rest = bytes.as_slice();
        assert_eq!(K::decode_part(&mut rest).as_ref(), Some(a));
        assert_eq!(K::decode_part(&mut rest).as_ref(), Some(b));
        assert!(rest.is_empty());
    }

    #[test]
    fn the_forms_are_part_of_the_format() {
        assert_eq!(plain(&0x0102_u16), [1, 2]);
        assert_eq!(plain(&-1_i16), [0x7f, 0xff]);
        assert_eq!(plain(&0_i8), [0x80]);
        assert_eq!(plain(&true), [1]);
        assert_eq!(plain(&'a'), [0, 0, 0, b'a']);
        assert_eq!(plain("a\0"), [b'a', 0]);
        assert_eq!(part("a\0"), [b'a', 0, 0xff, 0, 1]);
        assert_eq!(part(&[7, 0]), [7, 0]);
        assert_eq!(plain(&None::<u8>), [0]);
        assert_eq!(plain(&Some("a")), [1, b'a']);
        assert_eq!(plain(&("a", "b")), [b'a', 0, 1, b'b']);
        assert_eq!(part(&("a", 1_u8)), [b'a', 0, 1, 1]);
        assert!(plain(&()).is_empty());
    }

    #[test]
    fn names_tell_types_apart() {
        type Rich<'a> = (Option<u64>, &'a str, [u8; 4]);
        assert_eq!(Rich::name(), "(option(u64), str, [u8; 4])");
        assert_eq!(<(String, Vec<u8>)>::name(), <(&str, &[u8])>::name());
        assert_eq!(<(String, Vec<u8>)>::CODE, <(&str, &[u8])>::CODE);
        let codes = [
            u64::CODE,
            i64::CODE,
            str::CODE,
            <[u8]>::CODE,
            <[u8; 4]>::CODE,
            <[u8; 5]>::CODE,
            <()>::CODE,
            <(u64, String)>::CODE,
            <(String, u64)>::CODE,
            <(u64, u64, u64)>::CODE,
            <((u64, u64), u64)>::CODE,
            Option::<u64>::CODE,
        ];
        let distinct: std::collections::BTreeSet<_> = codes.iter().collect();
        assert_eq!(distinct.len(), codes.len());
    }

    #[test]
    fn a_prefix_is_what_encodings_begin_with() {
        fn begins<K: KeyCodec, P: KeyPrefix<K> + ?Sized>(key: &K, prefix: &P) -> bool {
            let mut bytes = Vec::new();
            prefix.encode_prefix(&mut bytes);
            plain(key).starts_with(&bytes)
        }
        assert!(begins(&"abc".to_owned(), "ab"));
        assert!(!begins(&"abc".to_owned(), "b"));
        assert!(begins(&"abc".to_owned(), &"ab".to_owned()) && begins(&"abc".to_owned(), &StartsWith("ab")));
        assert!(begins(&(vec![1, 0, 2], 7_u8), &StartsWith(&[1, 0][..])));
        assert!(begins(&vec![1, 0, 2], [1, 0].as_slice()));
        let pair = ("a\0b".to_owned(), 7_u64);
        assert!(begins(&pair, &StartsWith("a\0")) && !begins(&pair, &StartsWith("b")));
        assert!(begins(&pair, &"a\0b".to_owned()));
        assert!(!begins(&pair, &"a\0".to_owned()));
        let triple = (1_u8, 2_u8, "c".to_owned());
        assert!(begins(&triple, &1_u8) && begins(&triple, &(1_u8, 2_u8)) && !begins(&triple, &2_u8));
    }

    proptest! {
        #[test]
        fn integers_sort_as_they_do(a: (u8, u16, u32, u64, u128), b: (u8, u16, u32, u64, u128)) {
            check(&a.0, &b.0);
            check(&a.1, &b.1);
            check(&a.2, &b.2);
            check(&a.3, &b.3);
            check(&a.4, &b.4);
        }

        #[test]
        fn signed_integers_sort_as_they_do(a: (i8, i16, i32, i64, i128), b: (i8, i16, i32, i64, i128)) {
            check(&a.0, &b.0);
            check(&a.1, &b.1);
            check(&a.2, &b.2);
            check(&a.3, &b.3);
            check(&a.4, &b.4);
        }

        #[test]
        fn others_sort_as_they_do(a: (bool, char, [u8; 3], ()), b: (bool, char, [u8; 3], ())) {
            check(&a.0, &b.0);
            check(&a.1, &b.1);
            check(&a.2, &b.2);
            check(&a, &b);
        }

        #[test]
        fn strings_and_nested_tuples_sort_as_they_do(
            a: (String, (Option<Vec<u8>>, i32), String),
            b: (String, (Option<Vec<u8>>, i32), String),
        ) {
            check(&a.0, &b.0);
            check(&a.1.0, &b.1.0);
            check(&a, &b);
            // The same first component, so that what follows decides.
            check(&a, &(a.0.clone(), b.1.clone(), b.2.clone()));
            check(&(1_u8, 2_u8, a.clone(), 3_u8), &(1_u8, 2_u8, b, 3_u8));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            type Rich = (String, (Option<Vec<u8>>, i32), char, bool);
            let _ = Rich::decode(&bytes);
            let _ = Rich::decode_part(&mut bytes.as_slice());
            let _ = <[u8; 4]>::decode(&bytes);
        }
    }
}
