//! The contribution of one subtask to a checkpoint. It is a plain value, because it may come from
//! another process than the one that commits.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{CheckpointId, DeltaSeq, Nonce, SubtaskIndex};
use crate::key_group::KeyGroupRange;
use crate::manifest::{BaseRef, DeltaRef, Elements, Origin, StateInfo};

/// What one subtask contributes to a checkpoint: its base and deltas, by reference where they are
/// durable and inline where they are small, with the metadata of its own cut. A checkpoint is
/// committed once the receipts of all subtasks are in ([`Job::submit`](crate::Job::submit)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub(crate) checkpoint: CheckpointId,
    pub(crate) subtask: SubtaskIndex,
    pub(crate) range: KeyGroupRange,
    pub(crate) instance: Nonce,
    pub(crate) seq: DeltaSeq,
    /// Of a rescaled subtask that has no base of its own yet.
    pub(crate) origins: Vec<Origin>,
    pub(crate) base: Option<ReceiptBase>,
    pub(crate) deltas: Vec<ReceiptDelta>,
    pub(crate) metadata: Vec<u8>,
    #[serde(with = "as_list")]
    pub(crate) states: Arc<[StateInfo]>,
    pub(crate) cost: ReceiptCost,
    /// State that is not keyed. Last, because format 1 ends before it.
    #[serde(with = "as_list")]
    pub(crate) elements: Arc<[Elements]>,
}

/// The base of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReceiptBase {
    Stored(BaseRef),
    /// A small index travels in the manifest; the reference's place is filled in at the commit.
    Inline {
        index: Bytes,
        reference: BaseRef,
    },
}

/// A delta of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReceiptDelta {
    Stored(DeltaRef),
    Inline { seq: DeltaSeq, entries: u64, crc32c: u32, bytes: Bytes },
}

impl ReceiptDelta {
    /// The first and the last delta that it stands for.
    pub(super) fn range(&self) -> (DeltaSeq, DeltaSeq) {
        match self {
            Self::Stored(delta) => (delta.first, delta.last),
            Self::Inline { seq, .. } => (*seq, *seq),
        }
    }
}

/// What the receipt cost, for the checkpoint's report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReceiptCost {
    /// Time that the operator's thread spent in the cut.
    pub(crate) cut_micros: u64,
    /// Bytes and requests PUT after the cut, before the receipt.
    pub(crate) late_bytes: u64,
    pub(crate) largest_object: u64,
    pub(crate) puts: u64,
    /// New SST bytes (native mode).
    pub(crate) sst_bytes: u64,
}

/// A shared list as a list.
mod as_list {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(list: &Arc<[T]>, to: S) -> Result<S::Ok, S::Error> {
        (**list).serialize(to)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Arc<[T]>, D::Error> {
        Vec::deserialize(from).map(Arc::from)
    }
}

/// First bytes of an encoded receipt: magic and format version. No [frame](crate::frame), which has
/// two bytes for the format and its checksum at the end.
const MAGIC: [u8; 4] = *b"ALVR";
const FORMAT: u8 = 2;
/// The format that ends before the elements.
const BEFORE_ELEMENTS: u8 = 1;
/// The formats that are read.
const FORMATS: [u8; 2] = [BEFORE_ELEMENTS, FORMAT];

impl Receipt {
    /// The checkpoint that it belongs to.
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// The subtask that it comes from.
    pub fn subtask(&self) -> SubtaskIndex {
        self.subtask
    }

    /// The bytes that another process reads with [`Receipt::from_bytes`]: `ALVR`, format version,
    /// CRC32C (little-endian) of the rest, postcard.
    ///
    /// # Errors
    /// None are known; the signature leaves room for the codec's.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let body = postcard::to_stdvec(self)
            .map_err(|error| Error::internal("a receipt cannot be encoded").source(error))?;
        let mut bytes = Vec::with_capacity(body.len() + 9);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads what [`Receipt::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) on any other bytes,
    /// [`UnsupportedVersion`](crate::ErrorKind::UnsupportedVersion) on a newer format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let corrupt = |message: &str| Error::corrupt(message).object("receipt");
        let rest = bytes.strip_prefix(&MAGIC).ok_or_else(|| corrupt("this is not a receipt"))?;
        let (format, rest) = rest.split_first().ok_or_else(|| corrupt("the receipt is cut short"))?;
        if !FORMATS.contains(format) {
            return Err(Error::new(
                crate::ErrorKind::UnsupportedVersion,
                format!("receipt format {format} is unknown; this build reads 1 to {FORMAT}"),
            )
            .object("receipt")
            .advise("run the same version of alluvium in all processes"));
        }
        let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("the receipt is cut short"))?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(corrupt("the receipt's checksum does not match"));
        }
        let mut body = Cow::Borrowed(body);
        if *format == BEFORE_ELEMENTS {
            // An empty list.
            body.to_mut().push(0);
        }
        postcard::from_bytes(&body).map_err(|error| corrupt("the receipt cannot be decoded").source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, StateId};
    use crate::key_group::KeyGroup;
    use crate::manifest::{Segment, Spread, ValueInfo};
    use crate::remote::{DataKind, ObjectName};

    fn sample() -> Receipt {
        let object = |kind, n| ObjectName::data(Epoch(3), SubtaskIndex(1), Nonce([5; 16]), kind, n);
        let reference = BaseRef {
            object: object(DataKind::Base, 2),
            offset: 0,
            length: 300,
            crc32c: 7,
            seq: DeltaSeq(4),
            state_bytes: 4096,
            files: vec![object(DataKind::Sst, 1)],
        };
        Receipt {
            checkpoint: CheckpointId { epoch: Epoch(3), number: 17 },
            subtask: SubtaskIndex(1),
            range: KeyGroupRange { first: KeyGroup(64), last: KeyGroup(127) },
            instance: Nonce([5; 16]),
            seq: DeltaSeq(6),
            origins: Vec::new(),
            base: Some(ReceiptBase::Inline { index: Bytes::from_static(b"index"), reference }),
            deltas: vec![
                ReceiptDelta::Stored(DeltaRef {
                    object: object(DataKind::Delta, 3),
                    offset: 1,
                    length: 2,
                    crc32c: 3,
                    first: DeltaSeq(5),
                    last: DeltaSeq(5),
                    entries: 9,
                }),
                ReceiptDelta::Inline {
                    seq: DeltaSeq(6),
                    entries: 1,
                    crc32c: 8,
                    bytes: Bytes::from_static(b"delta"),
                },
            ],
            metadata: b"offset 40000".to_vec(),
            elements: [Elements {
                state: StateId::of("offsets"),
                spread: Spread::Deal,
                items: vec![Bytes::from_static(b"0:17")],
            }]
            .into(),
            states: [StateInfo {
                id: StateId::of("clicks"),
                name: "clicks".into(),
                kind: 1,
                merge: 0,
                key: "str".into(),
                namespace: String::new(),
                map_key: String::new(),
                value: ValueInfo { codec: "postcard".into(), schema: 2, ..ValueInfo::default() },
                ttl: None,
            }]
            .into(),
            cost: ReceiptCost { cut_micros: 90, late_bytes: 1, largest_object: 2, puts: 3, sst_bytes: 4 },
        }
    }

    /// Of a subtask that was rescaled and has no base yet.
    fn rescaled() -> Receipt {
        let sample = sample();
        let Some(ReceiptBase::Inline { reference, .. }) = sample.base else { panic!("it has a base") };
        let KeyGroupRange { first, last } = sample.range;
        let range = KeyGroupRange { first: KeyGroup(0), last };
        let (seq, deltas) = (reference.seq, Vec::new());
        let segment = Segment { subtask: SubtaskIndex(0), range, after: seq, deltas, seq };
        let owned = KeyGroupRange { first, last };
        let origin = Origin { owned, base: Some(reference), segments: vec![segment] };
        Receipt { base: None, origins: vec![origin], ..sample }
    }

    #[test]
    fn golden() {
        for (name, sample) in [("receipt-v2.bin", sample()), ("receipt-rescaled-v2.bin", rescaled())] {
            let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
                std::fs::write(&path, sample.to_bytes().unwrap()).unwrap();
            }
            let golden = std::fs::read(path).unwrap();
            assert_eq!(Receipt::from_bytes(&golden).unwrap(), sample);
            assert_eq!(sample.to_bytes().unwrap(), golden);
        }
    }

    #[test]
    fn golden_of_format_1_is_read() {
        for (name, sample) in [("receipt-v1.bin", sample()), ("receipt-rescaled-v1.bin", rescaled())] {
            let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
            let expected = Receipt { elements: Vec::new().into(), ..sample };
            assert_eq!(Receipt::from_bytes(&std::fs::read(path).unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn i4_a_flipped_or_missing_byte_is_an_error() {
        let bytes = sample().to_bytes().unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            assert!(Receipt::from_bytes(&flipped).is_err(), "byte {at}");
            assert!(Receipt::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_says_so() {
        let mut bytes = sample().to_bytes().unwrap();
        bytes[4] = 3;
        let error = Receipt::from_bytes(&bytes).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::UnsupportedVersion);
    }

    #[test]
    fn other_serde_formats_work_as_well() {
        let text = serde_json::to_string(&sample()).unwrap();
        assert_eq!(serde_json::from_str::<Receipt>(&text).unwrap(), sample());
    }
}
