//! The base index: which files make up a materialized RocksDB snapshot, and where their bytes are.
//!
//! ```text
//! magic "ALVB" | format version u16 | flags u16 (0) | body length u64 | body (postcard) | CRC32C u32
//! ```
//! Numbers outside the body are little-endian; the checksum covers everything before it. Small
//! files (CURRENT, MANIFEST, OPTIONS) are embedded, so that a base costs one object besides its new
//! SSTs.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::FileId;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{self, Fields, Frame};
use crate::ids::{DeltaSeq, Epoch, SubtaskIndex};
use crate::key_group::KeyGroupRange;
use crate::manifest::BaseRef;
use crate::remote::ObjectName;

const MAGIC: [u8; 4] = *b"ALVB";
const FORMAT: u16 = 1;

/// Longest file name that an index may hold; RocksDB's have at most some 25 characters.
const MAX_NAME_LEN: usize = 255;

/// A materialized snapshot of one subtask's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseIndex {
    /// The attempt that took it.
    pub(crate) epoch: Epoch,
    pub(crate) subtask: SubtaskIndex,
    /// What the subtask owned; the files may hold more (foreign key groups, until compacted).
    pub(crate) range: KeyGroupRange,
    /// The last delta that the snapshot contains.
    pub(crate) seq: DeltaSeq,
    /// A database that holds merge operands does not open without the operator of this name.
    pub(crate) merge_operator: String,
    /// Sorted by name.
    pub(crate) files: Vec<BaseFile>,
}

/// One file of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseFile {
    /// As RocksDB calls it; has no path in it.
    pub(crate) name: String,
    pub(crate) id: FileId,
    pub(crate) location: FileLocation,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileLocation {
    /// An object of its own.
    Object(ObjectName),
    /// In the index itself.
    Embedded(Bytes),
}

/// The body as version 1 stores it. Apart from the model, so that the model may change.
#[derive(Serialize, Deserialize)]
struct BodyV1<'a> {
    epoch: Epoch,
    subtask: SubtaskIndex,
    range: KeyGroupRange,
    seq: DeltaSeq,
    merge_operator: &'a str,
    #[serde(borrow)]
    files: Vec<FileV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct FileV1<'a> {
    name: &'a str,
    id: FileId,
    #[serde(borrow)]
    location: FileLocationV1<'a>,
}

#[derive(Serialize, Deserialize)]
enum FileLocationV1<'a> {
    Object(ObjectName),
    #[serde(borrow)]
    Embedded(&'a [u8]),
}

impl BaseIndex {
    /// Objects that hold files, each once, sorted.
    pub(crate) fn objects(&self) -> Vec<ObjectName> {
        let objects: BTreeSet<_> = self
            .files
            .iter()
            .filter_map(|file| match &file.location {
                FileLocation::Object(object) => Some(object.clone()),
                FileLocation::Embedded(_) => None,
            })
            .collect();
        objects.into_iter().collect()
    }

    /// Bytes of all files.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.id.size))
    }

    /// What a manifest says about this base when its encoded form lies in `object` at `offset`.
    pub(crate) fn reference(&self, object: ObjectName, offset: u64, encoded: &[u8]) -> BaseRef {
        BaseRef {
            object,
            offset,
            length: encoded.len() as u64,
            crc32c: crc32c::crc32c(encoded),
            seq: self.seq,
            state_bytes: self.state_bytes(),
            files: self.objects(),
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let files = self.files.iter().map(|file| FileV1 {
            name: &file.name,
            id: file.id,
            location: match &file.location {
                FileLocation::Object(object) => FileLocationV1::Object(object.clone()),
                FileLocation::Embedded(content) => FileLocationV1::Embedded(content),
            },
        });
        let body = BodyV1 {
            epoch: self.epoch,
            subtask: self.subtask,
            range: self.range,
            seq: self.seq,
            merge_operator: &self.merge_operator,
            files: files.collect(),
        };
        let body = postcard::to_stdvec(&body).expect("a body of plain values always encodes");
        let (flags, length) = (0_u16.to_le_bytes(), (body.len() as u64).to_le_bytes());
        frame::seal(MAGIC, FORMAT, &[&flags, &length, &body])
    }

    /// Reads an index; total over any bytes.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt), or [`UnsupportedVersion`](ErrorKind::UnsupportedVersion)
    /// for a format that this build does not know.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self> {
        let body = checked_body(bytes)?;
        let (body, rest): (BodyV1<'_>, _) = postcard::take_from_bytes(body)
            .map_err(|error| Error::corrupt("the body of a base index cannot be read").source(error))?;
        if !rest.is_empty() {
            return Err(Error::corrupt(format!("{} bytes are left after a base index", rest.len())));
        }
        if body.range.first > body.range.last {
            return Err(Error::corrupt(format!("a base index has the empty key-group range {}", body.range)));
        }
        let files = body.files.into_iter().map(|file| {
            let location = match file.location {
                FileLocationV1::Object(object) => FileLocation::Object(object),
                // The only check of it: a restore writes it to the disk as it is (I4).
                FileLocationV1::Embedded(content) if FileId::of_bytes(content) == file.id => {
                    FileLocation::Embedded(bytes.slice_ref(content))
                }
                FileLocationV1::Embedded(_) => {
                    return Err(
                        Error::corrupt("an embedded file does not match its checksum").object(file.name)
                    );
                }
            };
            Ok(BaseFile { name: file.name.to_owned(), id: file.id, location })
        });
        let index = Self {
            epoch: body.epoch,
            subtask: body.subtask,
            range: body.range,
            seq: body.seq,
            merge_operator: body.merge_operator.to_owned(),
            files: files.collect::<Result<_>>()?,
        };
        index.check_names()?;
        Ok(index)
    }

    /// The names become paths of a local directory: nothing but plain file names, each once.
    fn check_names(&self) -> Result<()> {
        let plain = |name: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.')
        };
        if let Some(file) = self.files.iter().find(|file| !plain(&file.name)) {
            return Err(Error::corrupt(format!(
                "{:?} is not a file name that a base index may hold",
                file.name
            )));
        }
        match self.files.iter().zip(self.files.iter().skip(1)).find(|(a, b)| a.name >= b.name) {
            Some((_, file)) => Err(Error::corrupt(format!(
                "{:?} is out of order in a base index, or there twice",
                file.name
            ))),
            None => Ok(()),
        }
    }
}

/// Checks everything around the body.
fn checked_body(bytes: &[u8]) -> Result<&[u8]> {
    let short = || Error::corrupt(format!("a base index of {} bytes is cut short", bytes.len()));
    let frame = Frame::parse(MAGIC, bytes).ok_or_else(|| {
        if MAGIC.starts_with(bytes.get(..4).unwrap_or(bytes)) {
            return short();
        }
        Error::corrupt("this is not a base index: its magic number is missing")
    })?;
    let format = frame.format;
    if format != FORMAT {
        let message = format!("base index of format {format}; this build reads format {FORMAT}");
        return Err(Error::new(ErrorKind::UnsupportedVersion, message).advise("use a newer build"));
    }
    if !frame.is_intact() {
        return Err(Error::corrupt("a base index does not match its checksum"));
    }
    let mut fields = Fields(frame.payload);
    let flags = u16::from_le_bytes(fields.take().ok_or_else(short)?);
    let length = u64::from_le_bytes(fields.take().ok_or_else(short)?);
    let body = fields.0;
    // A flag would stand for something that this build does not know.
    if length != body.len() as u64 || flags != 0 {
        return Err(Error::corrupt("the header of a base index does not fit what follows"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Nonce;
    use crate::key_group::KeyGroup;
    use crate::remote::DataKind;

    fn object(n: u64) -> ObjectName {
        ObjectName::data(Epoch(7), SubtaskIndex(3), Nonce([0xab; 16]), DataKind::Sst, n)
    }

    /// What `tests/golden/base-v1.bin` holds.
    fn sample() -> BaseIndex {
        let embedded = |name: &str, content: &'static [u8]| BaseFile {
            name: name.to_owned(),
            id: FileId::of_bytes(content),
            location: FileLocation::Embedded(Bytes::from_static(content)),
        };
        let stored = |name: &str, content: &[u8], n| BaseFile {
            name: name.to_owned(),
            id: FileId::of_bytes(content),
            location: FileLocation::Object(object(n)),
        };
        BaseIndex {
            epoch: Epoch(9),
            subtask: SubtaskIndex(3),
            range: KeyGroupRange { first: KeyGroup(32), last: KeyGroup(63) },
            seq: DeltaSeq(1234),
            merge_operator: "alluvium.merge.v1".to_owned(),
            files: vec![
                stored("000012.sst", b"twelve", 1),
                stored("000013.sst", b"thirteen", 400),
                embedded("CURRENT", b"MANIFEST-000005\n"),
                embedded("MANIFEST-000005", &[0xff; 300]),
                embedded("OPTIONS-000007", b""),
            ],
        }
    }

    /// Replaces the body and makes header and checksum fit it.
    fn reseal(body: &[u8]) -> Bytes {
        let mut bytes =
            [&MAGIC[..], &FORMAT.to_le_bytes(), &[0; 2], &(body.len() as u64).to_le_bytes(), body].concat();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.into()
    }

    #[test]
    fn golden_file_reads_and_writes_the_same() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/base-v1.bin");
        if std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
            std::fs::write(path, sample().encode()).unwrap();
        }
        let golden = Bytes::from(std::fs::read(path).unwrap());
        assert_eq!(BaseIndex::decode(&golden).unwrap(), sample());
        assert_eq!(sample().encode(), golden);
    }

    #[test]
    fn a_reference_says_what_is_reachable() {
        let mut index = sample();
        let mut again = index.files[0].clone();
        again.name = "000014.sst".to_owned();
        index.files.insert(2, again);
        let encoded = index.encode();
        let reference = index.reference(object(5), 77, &encoded);
        assert_eq!(reference.files, [object(1), object(400)]);
        assert_eq!(reference.state_bytes, 6 + 8 + 6 + 16 + 300);
        assert_eq!((reference.offset, reference.length), (77, encoded.len() as u64));
        assert_eq!(reference.crc32c, crc32c::crc32c(&encoded));
        assert_eq!(reference.seq, DeltaSeq(1234));
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let mut bytes = sample().encode().to_vec();
        bytes[4] = 2;
        let error = BaseIndex::decode(&bytes.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert!(error.to_string().contains("format 2"), "{error}");
    }

    #[test]
    fn i4_every_flip_and_every_truncation_is_an_error() {
        let golden = sample().encode();
        for at in 0..golden.len() {
            for bit in 0..8 {
                let mut bytes = golden.to_vec();
                bytes[at] ^= 1 << bit;
                BaseIndex::decode(&bytes.into()).unwrap_err();
            }
            BaseIndex::decode(&golden.slice(..at)).unwrap_err();
        }
        BaseIndex::decode(&[&golden[..], b"x"].concat().into()).unwrap_err();
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        let too_long = "x".repeat(256);
        for wrong in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\0", "é.sst", &too_long] {
            let mut index = sample();
            index.files = vec![BaseFile { name: wrong.to_owned(), ..index.files[0].clone() }];
            let error = BaseIndex::decode(&index.encode()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{wrong:?}");
        }
        let mut twice = sample();
        twice.files[1].name = twice.files[0].name.clone();
        BaseIndex::decode(&twice.encode()).unwrap_err();
    }

    #[test]
    fn an_embedded_file_must_match_its_checksum() {
        let mut index = sample();
        index.files[2].id.hash[0] ^= 1;
        let error = BaseIndex::decode(&index.encode()).unwrap_err();
        assert!(error.to_string().contains("CURRENT"), "{error}");
        let mut backwards = sample();
        backwards.range = KeyGroupRange { first: KeyGroup(2), last: KeyGroup(1) };
        BaseIndex::decode(&backwards.encode()).unwrap_err();
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = BaseIndex::decode(&Bytes::from(body.clone()));
            // A body with a valid frame around it gets further.
            if let Ok(index) = BaseIndex::decode(&reseal(&body)) {
                prop_assert_eq!(BaseIndex::decode(&index.encode()).unwrap(), index);
            }
        }

        #[test]
        fn a_damaged_body_under_a_valid_checksum_never_panics(at in 0..400_usize, byte: u8) {
            let golden = sample().encode();
            let mut body = checked_body(&golden).unwrap().to_vec();
            let at = at % body.len();
            body[at] = byte;
            if let Ok(index) = BaseIndex::decode(&reseal(&body)) {
                prop_assert_eq!(BaseIndex::decode(&index.encode()).unwrap(), index);
            }
        }

        #[test]
        fn what_is_written_reads_back(
            files in prop::collection::btree_map(
                "[A-Za-z0-9_-][A-Za-z0-9._-]{0,30}",
                (any::<bool>(), prop::collection::vec(any::<u8>(), 0..50)),
                0..10,
            ),
            seq: u64,
            merge_operator in ".{0,20}",
        ) {
            let files = files.into_iter().zip(0..).map(|((name, (embed, content)), n)| BaseFile {
                name,
                id: FileId::of_bytes(&content),
                location: if embed { FileLocation::Embedded(content.into()) } else { FileLocation::Object(object(n)) },
            });
            let index = BaseIndex { seq: DeltaSeq(seq), merge_operator, files: files.collect(), ..sample() };
            prop_assert_eq!(BaseIndex::decode(&index.encode()).unwrap(), index);
        }
    }
}
