//! [`key_codec!`](crate::key_codec): structs as keys.

/// Makes a struct a key, namespace or key of a map: implements [`KeyCodec`](crate::state::KeyCodec)
/// for it, by the fields that are listed and in their order, of which the first decides the order
/// of keys first. Each is of a type that is a key itself. The bytes are those of the tuple of the
/// fields.
///
/// The name is recorded with each state that uses the type. Give it another name when you change
/// the fields or their order. Bytes of the old type are then refused rather than misread.
///
/// ```
/// use alluvium::state::KeyCodec;
///
/// /// A session, sorted by its start.
/// #[derive(Debug, Clone, PartialEq)]
/// struct Session {
///     start: i64,
///     end: i64,
///     page: String,
/// }
///
/// alluvium::key_codec!(Session as "session" { start: i64, end: i64, page: String });
///
/// let session = Session { start: -5, end: 7, page: "home".into() };
/// let mut bytes = Vec::new();
/// session.encode(&mut bytes);
/// assert_eq!(Session::decode(&bytes), Some(session));
/// ```
#[macro_export]
macro_rules! key_codec {
    ($type:ident as $name:literal { $($field:ident: $kind:ty),+ $(,)? }) => {
        impl $crate::state::KeyCodec for $type {
            type Owned = Self;
            const NAME: &'static str = $name;

            fn encode(&self, out: &mut Vec<u8>) {
                $crate::key_codec!(@encode self out; $($field)+);
            }

            fn decode(mut bytes: &[u8]) -> Option<Self> {
                let bytes = &mut bytes;
                $crate::key_codec!(@decode bytes; $($field: $kind,)+);
                Some(Self { $($field),+ })
            }

            fn encode_part(&self, out: &mut Vec<u8>) {
                $($crate::state::KeyCodec::encode_part(&self.$field, out);)+
            }

            fn decode_part(bytes: &mut &[u8]) -> Option<Self> {
                $(let $field = <$kind as $crate::state::KeyCodec>::decode_part(bytes)?;)+
                Some(Self { $($field),+ })
            }
        }
    };
    // All fields but the last in part form, the last as the whole is.
    (@encode $self:ident $out:ident; $last:ident) => {
        $crate::state::KeyCodec::encode(&$self.$last, $out);
    };
    (@encode $self:ident $out:ident; $first:ident $($rest:ident)+) => {
        $crate::state::KeyCodec::encode_part(&$self.$first, $out);
        $crate::key_codec!(@encode $self $out; $($rest)+);
    };
    (@decode $bytes:ident; $last:ident: $kind:ty,) => {
        let $last = <$kind as $crate::state::KeyCodec>::decode($bytes)?;
    };
    (@decode $bytes:ident; $first:ident: $kind:ty, $($rest:ident: $kinds:ty,)+) => {
        let $first = <$kind as $crate::state::KeyCodec>::decode_part($bytes)?;
        $crate::key_codec!(@decode $bytes; $($rest: $kinds,)+);
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::state::KeyCodec;

    #[derive(Debug, Clone, PartialEq)]
    struct One {
        name: String,
    }

    #[derive(Debug, Clone, PartialEq)]
    struct Many {
        a: String,
        b: Option<i8>,
        c: u16,
        d: Vec<u8>,
        e: String,
    }

    key_codec!(One as "one" { name: String });
    key_codec!(Many as "many" { a: String, b: Option<i8>, c: u16, d: Vec<u8>, e: String });

    fn bytes(of: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        of(&mut bytes);
        bytes
    }

    #[test]
    fn the_bytes_are_those_of_the_tuple() {
        let one = One { name: "a\0b".into() };
        assert_eq!(bytes(|out| one.encode(out)), b"a\0b");
        assert_eq!(bytes(|out| one.encode_part(out)), bytes(|out| "a\0b".encode_part(out)));
        assert_eq!((One::NAME, Many::name()), ("one", "many".to_owned()));
        let many = Many { a: "x\0".into(), b: Some(-3), c: 9, d: vec![0, 255], e: "y".into() };
        let tuple = (("x\0", Some(-3_i8), 9_u16), ([0_u8, 255].as_slice(), "y"));
        assert_eq!(bytes(|out| many.encode(out)), bytes(|out| tuple.encode(out)));
        assert_eq!(bytes(|out| many.encode_part(out)), bytes(|out| tuple.encode_part(out)));
    }

    fn many() -> impl Strategy<Value = Many> {
        let rest = (any::<u16>(), any::<Vec<u8>>(), "[\0-b]{0,3}");
        ("[\0-b]{0,3}", any::<Option<i8>>(), rest).prop_map(|(a, b, (c, d, e))| Many { a, b, c, d, e })
    }

    proptest! {
        #[test]
        fn they_sort_by_their_fields_and_come_back(x in many(), y in many(), behind: Vec<u8>, noise: Vec<u8>) {
            let of = |many: &Many| bytes(|out| many.encode(out));
            let fields = |many: &Many| (many.a.clone(), many.b, many.c, many.d.clone(), many.e.clone());
            prop_assert_eq!(of(&x).cmp(&of(&y)), fields(&x).cmp(&fields(&y)));
            prop_assert_eq!(Many::decode(&of(&x)), Some(x.clone()));
            let part = [bytes(|out| x.encode_part(out)), behind.clone()].concat();
            let mut rest = part.as_slice();
            prop_assert_eq!((Many::decode_part(&mut rest), rest), (Some(x), behind.as_slice()));
            let _ = (Many::decode(&noise), Many::decode_part(&mut noise.as_slice()));
        }
    }
}
