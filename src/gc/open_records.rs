//! Which versions of a chain are open records, written down so that not every attempt has to read them all.
//!
//! Open records are never deleted (I2), so there is one for each start that ever was, and only its header tells one
//! from a checkpoint that an earlier attempt has left behind. What a sweep has learned is kept in an object
//! `opened/<epoch>`, of which the newest counts. It is a memo and no more: a version that is in it is never deleted,
//! one that is not is looked at. If it is damaged, all are looked at again.
//!
//! ```text
//! magic "ALVO", format u16, versions as differences, ascending (postcard), crc32c of all before u32   (little-endian)
//! ```

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::frame::{self, Frame};
use crate::ids::{Epoch, Version};

const MAGIC: [u8; 4] = *b"ALVO";
const FORMAT: u16 = 1;

/// A memo is written once a sweep has learned of so many records that the one before did not know. So each
/// attempt reads fewer than that, and not every start writes one.
const WORTH_WRITING: usize = 16;

/// What is known of the open records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OpenRecords {
    pub(super) versions: BTreeSet<Version>,
    /// The attempt that wrote the object that they were read from or written to.
    pub(super) written: Option<Epoch>,
    /// How many of them are in that object.
    pub(super) in_object: usize,
}

impl OpenRecords {
    /// Whether `epoch` should write down what it knows. Once at most: no object's name is used twice.
    pub(super) fn worth_writing(&self, epoch: Epoch) -> bool {
        let new = self.versions.len().saturating_sub(self.in_object);
        new >= WORTH_WRITING && self.written.is_none_or(|written| written < epoch)
    }

    /// Takes in what the object of `epoch` says.
    pub(super) fn read(&mut self, epoch: Epoch, versions: BTreeSet<Version>) {
        self.written = Some(epoch);
        self.in_object = versions.len();
        self.versions.extend(versions);
    }

    /// They are in the object of `epoch`.
    pub(super) fn wrote(&mut self, epoch: Epoch) {
        self.written = Some(epoch);
        self.in_object = self.versions.len();
    }
}

pub(super) fn encode(versions: &BTreeSet<Version>) -> Result<Bytes> {
    let mut last = 0;
    let differences: Vec<u64> =
        versions.iter().map(|version| version.0 - std::mem::replace(&mut last, version.0)).collect();
    let body = postcard::to_stdvec(&differences)
        .map_err(|error| Error::internal("a list of versions cannot be encoded").source(error))?;
    Ok(frame::seal(MAGIC, FORMAT, &[&body]))
}

pub(super) fn decode(bytes: &[u8]) -> Result<BTreeSet<Version>> {
    let frame = Frame::parse(MAGIC, bytes).ok_or_else(not_one)?;
    if !frame.is_intact() {
        return Err(Error::corrupt("checksum of a list of open records does not match"));
    }
    let format = frame.format;
    if format != FORMAT {
        let message = format!("list of open records has format {format}, this build reads {FORMAT}");
        return Err(Error::new(ErrorKind::UnsupportedVersion, message));
    }
    let (differences, rest) = postcard::take_from_bytes::<Vec<u64>>(frame.payload)
        .map_err(|error| Error::corrupt("list of open records does not read").source(error))?;
    let mut versions = BTreeSet::new();
    let mut last = 0_u64;
    for difference in differences {
        let next = last.checked_add(difference).filter(|next| *next > last);
        last = next.ok_or_else(|| Error::corrupt("open records are not in ascending order"))?;
        versions.insert(Version(last));
    }
    if rest.is_empty() { Ok(versions) } else { Err(not_one()) }
}

fn not_one() -> Error {
    Error::corrupt("not a list of open records")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn versions(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<Version> {
        numbers.into_iter().map(Version).collect()
    }

    #[test]
    fn golden_file_reads_and_is_written_the_same() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/opened-v1.bin");
        let sample = versions([1, 5, 6, 300, 70_000]);
        let encoded = encode(&sample).unwrap();
        if !path.exists() && std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &encoded).unwrap();
        }
        let stored = std::fs::read(&path).unwrap();
        assert_eq!(decode(&stored).unwrap(), sample, "reads differently");
        assert_eq!(encoded, stored, "is written differently");
    }

    #[test]
    fn i4_every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode(&versions([3, 9, 1_000])).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped).unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]).unwrap_err().kind(), ErrorKind::Corrupt, "{len} bytes");
        }
    }

    #[test]
    fn one_is_written_for_every_sixteen_records_and_once_by_an_attempt() {
        let mut known = OpenRecords { versions: versions(1..=15), ..OpenRecords::default() };
        assert!(!known.worth_writing(Epoch(15)));
        known.versions.insert(Version(16));
        assert!(known.worth_writing(Epoch(16)));
        known.wrote(Epoch(16));
        known.versions.extend(versions(17..40));
        assert!(!known.worth_writing(Epoch(16)), "its name is used");
        assert!(known.worth_writing(Epoch(39)));
        let mut next = OpenRecords::default();
        next.read(Epoch(39), versions(1..40));
        assert!(!next.worth_writing(Epoch(40)));
    }

    proptest! {
        #[test]
        fn any_list_reads_back(numbers in proptest::collection::btree_set(1..=u64::MAX, 0..50)) {
            let list = versions(numbers);
            prop_assert_eq!(decode(&encode(&list).unwrap()).unwrap(), list);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
