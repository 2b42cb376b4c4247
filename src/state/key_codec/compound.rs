//! Options and tuples as keys.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::{KeyCodec, OFFSET, combine, hash};

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
