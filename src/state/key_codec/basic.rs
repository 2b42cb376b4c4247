//! Numbers, text, bytes, and what dereferences to them, as keys.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::{KeyCodec, OFFSET, combine, hash};

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
