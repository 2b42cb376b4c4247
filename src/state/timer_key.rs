//! The stored keys of timers, which sort in the order in which timers fire.
//!
//! ```text
//! domain (1 byte) ‖ timestamp (8 bytes, big-endian, sign bit flipped) ‖ key ‖ namespace
//! ```
//!
//! Key and namespace are in the part form of their [`KeyCodec`](crate::state::KeyCodec), so that
//! timers of one time sort by key, then by namespace. Nothing is stored as the value.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

/// By which clock a timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TimeDomain {
    /// The time of the records: a timer fires when the watermark has reached it.
    Event = 0,
    /// The time of the machine, milliseconds since 1970.
    Processing = 1,
}

impl TimeDomain {
    /// The first byte of its timers' keys.
    pub(crate) fn prefix(self) -> u8 {
        self as u8
    }

    fn from_prefix(prefix: u8) -> Option<Self> {
        match prefix {
            0 => Some(Self::Event),
            1 => Some(Self::Processing),
            _ => None,
        }
    }
}

/// Writes the stored key of a timer to the empty buffer; `scoped` is key and namespace.
pub(super) fn encode_into(buffer: &mut Vec<u8>, domain: TimeDomain, timestamp: i64, scoped: &[u8]) {
    buffer.push(domain.prefix());
    buffer.extend_from_slice(&order_preserving(timestamp));
    buffer.extend_from_slice(scoped);
}

/// The timers of `domain` up to and at `time` are those with stored keys below this one.
pub(super) fn end_of_due(domain: TimeDomain, time: i64) -> Vec<u8> {
    let mut end = Vec::with_capacity(9);
    match time.checked_add(1) {
        Some(next) => encode_into(&mut end, domain, next, &[]),
        None => end.extend_from_slice(&end_of(domain)),
    }
    end
}

/// The first key behind all timers of `domain`.
pub(super) fn end_of(domain: TimeDomain) -> [u8; 1] {
    [domain.prefix() + 1]
}

/// Domain, timestamp, and key and namespace of a stored key. None if it is not that of a timer.
pub(crate) fn decode(bytes: &[u8]) -> Option<(TimeDomain, i64, &[u8])> {
    let (prefix, rest) = bytes.split_first()?;
    let (timestamp, scoped) = rest.split_first_chunk()?;
    Some((TimeDomain::from_prefix(*prefix)?, (u64::from_be_bytes(*timestamp) ^ SIGN) as i64, scoped))
}

const SIGN: u64 = 1 << 63;

fn order_preserving(timestamp: i64) -> [u8; 8] {
    (timestamp as u64 ^ SIGN).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key_codec::KeyCodec;
    use super::*;

    fn encode(domain: TimeDomain, timestamp: i64, key: &str, namespace: u16) -> Vec<u8> {
        let (mut scoped, mut bytes) = (Vec::new(), Vec::new());
        (key, namespace).encode_part(&mut scoped);
        encode_into(&mut bytes, domain, timestamp, &scoped);
        bytes
    }

    fn any_time() -> impl Strategy<Value = i64> {
        prop_oneof![Just(i64::MIN), Just(-1), Just(0), Just(1), Just(i64::MAX), any::<i64>()]
    }

    #[test]
    fn the_layout_is_part_of_the_format() {
        assert_eq!(
            encode(TimeDomain::Processing, 0x0102, "ab", 7),
            [1, 0x80, 0, 0, 0, 0, 0, 1, 2, b'a', b'b', 0, 1, 0, 7]
        );
        assert_eq!(encode(TimeDomain::Event, -1, "", 7)[..9], [0, 0x7f, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn what_is_no_timer_is_refused() {
        let timer = encode(TimeDomain::Event, 5, "k", 7);
        assert!((0..9).all(|len| decode(&timer[..len]).is_none()));
        assert_eq!(decode(&[&[2][..], &timer[1..]].concat()), None);
    }

    proptest! {
        #[test]
        fn timers_come_back(processing: bool, timestamp in any_time(), scoped: Vec<u8>) {
            let domain = if processing { TimeDomain::Processing } else { TimeDomain::Event };
            let mut bytes = Vec::new();
            encode_into(&mut bytes, domain, timestamp, &scoped);
            prop_assert_eq!(decode(&bytes), Some((domain, timestamp, scoped.as_slice())));
        }

        #[test]
        fn they_sort_by_time_then_key_then_namespace(
            a in (any_time(), "[\0-c]{0,4}", any::<u16>()),
            b in (any_time(), "[\0-c]{0,4}", any::<u16>()),
            until in any_time(),
        ) {
            let of = |(time, key, namespace): &(i64, String, u16)| {
                encode(TimeDomain::Event, *time, key, *namespace)
            };
            prop_assert_eq!(of(&a).cmp(&of(&b)), a.cmp(&b));
            prop_assert_eq!(of(&a) < end_of_due(TimeDomain::Event, until), a.0 <= until);
            prop_assert!(of(&a).as_slice() < end_of(TimeDomain::Event).as_slice());
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
