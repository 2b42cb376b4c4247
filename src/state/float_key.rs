//! Floating-point numbers as keys.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::key_codec::KeyCodec;

/// A float is stored as the integer whose order is that of the numbers: of positive ones with the
/// sign turned, of negative ones with all bits turned.
///
/// Equal numbers are one key: -0.0 is stored as 0.0. All NaNs are one key as well, which comes
/// behind infinity.
macro_rules! float {
    ($float:ident, $bits:ident, $nan:literal) => {
        impl KeyCodec for $float {
            type Owned = Self;
            const NAME: &'static str = stringify!($float);

            fn encode(&self, out: &mut Vec<u8>) {
                const SIGN: $bits = 1 << ($bits::BITS - 1);
                // Of a NaN neither sign nor payload: they differ between machines. Adding 0 leaves
                // no -0.0.
                let bits = if self.is_nan() { $nan } else { (*self + 0.0).to_bits() };
                let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
                out.extend_from_slice(&ordered.to_be_bytes());
            }

            fn decode(bytes: &[u8]) -> Option<Self> {
                const SIGN: $bits = 1 << ($bits::BITS - 1);
                let ordered = $bits::from_be_bytes(bytes.try_into().ok()?);
                let bits = if ordered & SIGN == 0 { !ordered } else { ordered & !SIGN };
                Some(Self::from_bits(bits))
            }

            fn encode_part(&self, out: &mut Vec<u8>) {
                self.encode(out);
            }

            fn decode_part(bytes: &mut &[u8]) -> Option<Self> {
                let (mine, rest) = bytes.split_at_checked(size_of::<$float>())?;
                *bytes = rest;
                Self::decode(mine)
            }
        }
    };
}

float!(f32, u32, 0x7fc0_0000);
float!(f64, u64, 0x7ff8_0000_0000_0000);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain<K: KeyCodec>(key: K) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_bytes_are_part_of_the_format() {
        assert_eq!(plain(1.5_f32), [0xbf, 0xc0, 0, 0]);
        assert_eq!(plain(-1.5_f32), [0x40, 0x3f, 0xff, 0xff]);
        assert_eq!(plain(0.0_f64), [0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(plain(f64::NAN), [0xff, 0xf8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(plain(f64::INFINITY), [0xff, 0xf0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn equal_numbers_and_all_nans_are_one_key() {
        assert_eq!(plain(-0.0_f64), plain(0.0_f64));
        assert_eq!(plain(-0.0_f32), plain(0.0_f32));
        for bits in [0x7ff8_0000_0000_0001, 0xfff8_0000_0000_0000, 0xfff0_0000_0000_0001] {
            assert_eq!(plain(f64::from_bits(bits)), plain(f64::NAN));
        }
        assert!(f64::decode(&plain(-f64::NAN)).is_some_and(f64::is_nan));
        assert_eq!(f64::decode(&[0; 7]), None);
    }

    proptest! {
        #[test]
        fn they_sort_as_numbers_and_come_back(a in prop::num::f64::ANY, b in prop::num::f64::ANY, c in prop::num::f32::ANY) {
            for number in [a, b] {
                let back = f64::decode(&plain(number)).unwrap();
                prop_assert!(back == number || back.is_nan() && number.is_nan());
            }
            let back = f32::decode(&plain(c)).unwrap();
            prop_assert!(back == c || back.is_nan() && c.is_nan());
            if let Some(order) = a.partial_cmp(&b) {
                prop_assert_eq!(plain(a).cmp(&plain(b)), order);
            } else if !a.is_nan() {
                prop_assert!(plain(a) < plain(b));
            }
            let mut pair = Vec::new();
            (a, 7_u8).encode(&mut pair);
            prop_assert_eq!(<(f64, u8)>::decode(&pair).unwrap().1, 7);
        }
    }
}
