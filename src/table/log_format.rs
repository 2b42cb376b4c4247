//! The format of RocksDB's logs, as far as it takes to see whether one is intact: its MANIFEST is
//! one.
//!
//! A log is a sequence of blocks of 32 KiB, each filled with records: a masked CRC32C of what
//! follows the length, the length of the payload, a type, and the payload. No record crosses the
//! end of a block (`db/log_format.h` in RocksDB).

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

const BLOCK: usize = 32 * 1024;
const CHECKSUM: usize = 4;
/// Checksum, length, type.
const HEADER: usize = CHECKSUM + 2 + 1;

/// Whether every record of a log reads that ends where a record does.
pub(super) fn is_intact(log: &[u8]) -> bool {
    let mut at = 0;
    while at < log.len() {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            // Too small for a record: filled with zeros.
            let filled = log.get(at..log.len().min(at + left)).unwrap_or_default();
            if filled.len() < left || filled.iter().any(|byte| *byte != 0) {
                return false;
            }
            at += left;
            continue;
        }
        let Some(length) = record(log.get(at..).unwrap_or_default(), left) else { return false };
        at += length;
    }
    true
}

/// The length of the intact record that `log` begins with, within the `left` bytes of its block.
fn record(log: &[u8], left: usize) -> Option<usize> {
    let (stored, rest) = log.split_first_chunk::<CHECKSUM>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length));
    // The type counts as well.
    let checked = rest.get(..1 + length)?;
    let intact = HEADER + length <= left && mask(crc32c::crc32c(checked)) == u32::from_le_bytes(*stored);
    intact.then_some(HEADER + length)
}

/// Keeps checksums of data that holds checksums apart.
fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(log: &mut Vec<u8>, mut payload: &[u8]) {
        loop {
            let left = BLOCK - log.len() % BLOCK;
            if left < HEADER {
                log.resize(log.len() + left, 0);
                continue;
            }
            let (now, rest) = payload.split_at(payload.len().min(left - HEADER));
            let typed: Vec<u8> = [1].iter().chain(now).copied().collect();
            log.extend(mask(crc32c::crc32c(&typed)).to_le_bytes());
            log.extend(u16::try_from(now.len()).unwrap().to_le_bytes());
            log.extend(typed);
            payload = rest;
            if payload.is_empty() {
                return;
            }
        }
    }

    #[test]
    fn records_that_fill_blocks_are_read() {
        for size in [0, 1, BLOCK - HEADER - 1, BLOCK - HEADER, BLOCK - HEADER - 6, 3 * BLOCK] {
            let mut log = Vec::new();
            push(&mut log, &vec![7; size]);
            push(&mut log, b"last");
            assert!(is_intact(&log), "{size}");
        }
        assert!(is_intact(&[]));
        assert!(!is_intact(&[0; 7]), "zeros are no record");
    }

    proptest! {
        #[test]
        fn i4_no_flip_and_no_cut_passes_and_no_bytes_make_it_panic(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..200),
            at in any::<prop::sample::Index>(),
            noise in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut log = Vec::new();
            payloads.iter().for_each(|payload| push(&mut log, payload));
            prop_assert!(is_intact(&log));
            let at = at.index(log.len());
            log[at] ^= 0x20;
            prop_assert!(!is_intact(&log));
            log[at] ^= 0x20;
            log.pop();
            prop_assert!(!is_intact(&log));
            is_intact(&noise);
        }
    }
}
