//! A manifest's bytes.
//!
//! ```text
//! header   magic "ALVM", format u16, kind u8, flags u8, inline length u64, inline crc32c u32,
//!          body length u32, crc32c of the header so far u32                     (little-endian)
//! inline   the deltas that travel in this manifest, and what it says for later ones, one after the other
//! body     the manifest itself (see body.rs; in format 1 postcard, see wire_v1.rs)
//! footer   crc32c of the body u32
//! ```
//!
//! Inline bytes come before the body, so that the body can name their offsets. The header is a
//! [`frame`] of its own, because 28 bytes tell an open record from a checkpoint.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::errors::newer;
use super::inline::Inline;
use super::model::{Manifest, RecordKind};
use super::{body, wire_v1};
use crate::error::{Error, Result};
use crate::frame::{self, Fields, Frame};

const MAGIC: [u8; 4] = *b"ALVM";
/// The newest format. Formats 1 and 2 are read for ever; 2 is also written, where it has words for all.
const FORMAT: u16 = 3;
pub(crate) const HEADER_LEN: u64 = Inline::START;
const FOOTER_LEN: u64 = 4;

/// What the first bytes of a manifest say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    format: u16,
    pub kind: RecordKind,
    inline_len: u64,
    inline_crc32c: u32,
    body_len: u32,
}

impl Header {
    /// Reads the first [`HEADER_LEN`] bytes of a manifest.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let cut_off = || Error::corrupt("manifest is cut off");
        let header = bytes.get(..HEADER_LEN as usize).unwrap_or(bytes);
        let frame = Frame::parse(MAGIC, header).ok_or_else(|| match bytes.starts_with(&MAGIC) {
            true => cut_off(),
            false => Error::corrupt("not a manifest"),
        })?;
        let format = frame.format;
        if format > FORMAT {
            return Err(newer(format!("manifest has format {format}, this build reads up to {FORMAT}")));
        }
        if !frame.is_intact() {
            return Err(Error::corrupt("checksum of the manifest's header does not match"));
        }
        let mut fields = Fields(frame.payload);
        let [kind, flags] = fields.take().ok_or_else(cut_off)?;
        let inline_len = u64::from_le_bytes(fields.take().ok_or_else(cut_off)?);
        let inline_crc32c = u32::from_le_bytes(fields.take().ok_or_else(cut_off)?);
        let body_len = u32::from_le_bytes(fields.take().ok_or_else(cut_off)?);
        if format == 0 {
            return Err(Error::corrupt("manifest has format 0"));
        }
        if flags != 0 {
            return Err(newer(format!("manifest has flags {flags:#04x} that this build does not know")));
        }
        let kind = match kind {
            1 => RecordKind::Open,
            2 => RecordKind::Checkpoint,
            other => return Err(newer(format!("manifest is of kind {other}, unknown to this build"))),
        };
        Ok(Self { format, kind, inline_len, inline_crc32c, body_len })
    }

    fn encode(self, buffer: &mut BytesMut) {
        let kind = match self.kind {
            RecordKind::Open => 1,
            RecordKind::Checkpoint => 2,
        };
        let flags = 0;
        frame::append(
            buffer,
            MAGIC,
            self.format,
            &[
                &[kind, flags],
                &self.inline_len.to_le_bytes(),
                &self.inline_crc32c.to_le_bytes(),
                &self.body_len.to_le_bytes(),
            ],
        );
    }
}

/// The bytes of `manifest` with the deltas that it carries.
///
/// # Errors
/// Internal, if the manifest breaks a rule of its own: such a thing must not be written.
pub(crate) fn encode(manifest: &Manifest, inline: &Inline) -> Result<Bytes> {
    let refuse = |error: Error| Error::internal("a manifest would break its own rules").source(error);
    // Before it is written. A manifest that breaks a rule would be the newest one, and no job could open it.
    manifest.validate(inline.range()).map_err(refuse)?;
    let plain = manifest.checkpoint().is_none_or(|record| !record.needs_format_3());
    let format = if plain { 2 } else { FORMAT };
    let body = body::encode(manifest, format)?;
    let body_len = u32::try_from(body.len())
        .map_err(|_| Error::internal("a manifest of more than 4 GiB is not written"))?;
    let header = Header {
        format,
        kind: manifest.record.kind(),
        inline_len: inline.len(),
        inline_crc32c: inline.parts().fold(0, |crc, part| crc32c::crc32c_append(crc, part)),
        body_len,
    };
    let mut buffer = BytesMut::with_capacity((HEADER_LEN + inline.len() + FOOTER_LEN) as usize + body.len());
    header.encode(&mut buffer);
    inline.parts().for_each(|part| buffer.put_slice(part));
    buffer.put_slice(&body);
    buffer.put_u32_le(crc32c::crc32c(&body));
    Ok(buffer.freeze())
}

/// Reads what [`encode`] wrote. Every bit is checked.
pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest> {
    let header = Header::decode(bytes)?;
    let cut_off = || Error::corrupt(format!("manifest of {} bytes is not as long as it says", bytes.len()));
    let inline_end = HEADER_LEN.checked_add(header.inline_len).ok_or_else(cut_off)?;
    let body_end = inline_end.checked_add(u64::from(header.body_len)).ok_or_else(cut_off)?;
    if body_end.checked_add(FOOTER_LEN) != Some(bytes.len() as u64) {
        return Err(cut_off());
    }
    // The sum of all parts is the length of a slice, so each part fits a usize.
    let part = |range: Range<u64>| bytes.get(range.start as usize..range.end as usize).ok_or_else(cut_off);
    if crc32c::crc32c(part(HEADER_LEN..inline_end)?) != header.inline_crc32c {
        return Err(Error::corrupt("checksum of what travels in the manifest does not match"));
    }
    let body = part(inline_end..body_end)?;
    if part(body_end..body_end + FOOTER_LEN)? != crc32c::crc32c(body).to_le_bytes() {
        return Err(Error::corrupt("checksum of the manifest's body does not match"));
    }
    let mut manifest = match header.format {
        1 => wire_v1::decode(body)?,
        format => body::decode(header.kind, format, body)?,
    };
    // A sweep trusts the header alone: it deletes what the header calls a checkpoint.
    if manifest.record.kind() != header.kind {
        return Err(Error::corrupt("manifest's header and body differ in what they are"));
    }
    manifest.read_carried(bytes)?;
    manifest.validate(HEADER_LEN..inline_end)?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::retained::{Entry, RetainedList};
    use super::super::samples::{any_manifest, data, nonce, rich, with_operators};
    use super::*;
    use crate::error::ErrorKind;
    use crate::ids::Version;
    use crate::key_group::MaxParallelism;
    use crate::remote::DataKind;

    /// Set ALLUVIUM_WRITE_GOLDEN to write a missing file; one that exists is never changed, because
    /// manifests like it are out there.
    fn golden(name: &str, manifest: &Manifest, inline: &Inline) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let encoded = encode(manifest, inline).unwrap();
        if !path.exists() && std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &encoded).unwrap();
        }
        let stored = std::fs::read(&path).unwrap();
        assert_eq!(&decode(&stored).unwrap(), manifest, "{name} reads differently");
        assert_eq!(encoded, stored, "{name} is written differently");
    }

    fn open() -> Manifest {
        Manifest::open(Version(10), nonce(0xcc), Some(&rich().0), MaxParallelism::default())
    }

    #[test]
    fn golden_files_read_and_are_written_the_same() {
        golden("manifest-open-v2.bin", &open(), &Inline::new());
        let (manifest, inline) = rich();
        golden("manifest-checkpoint-v2.bin", &manifest, &inline);
        let (manifest, inline) = with_operators();
        golden("manifest-operators-v3.bin", &manifest, &inline);
    }

    fn version_1(name: &str) -> Vec<u8> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        std::fs::read(path).unwrap()
    }

    /// As format 1 says it: no more of retained checkpoints than which they are.
    fn plainly(manifest: Manifest) -> Manifest {
        let entries = manifest.retained.tail().iter().map(|entry| Entry { facts: None, ..*entry });
        Manifest { retained: RetainedList::plain(entries.collect()), ..manifest }
    }

    #[test]
    fn golden_files_of_format_1_are_read() {
        assert_eq!(decode(&version_1("manifest-open-v1.bin")).unwrap(), plainly(open()));
        let read = decode(&version_1("manifest-checkpoint-v1.bin")).unwrap();
        assert_eq!(read, plainly(rich().0));
        assert_eq!(read.checkpoint().unwrap().states.known(), rich().0.checkpoint().unwrap().states.known());
    }

    #[test]
    fn i4_every_flipped_bit_and_every_cut_of_format_1_is_noticed() {
        for bytes in [version_1("manifest-checkpoint-v1.bin"), version_1("manifest-open-v1.bin")] {
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&flipped).is_err(), "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert_eq!(decode(&bytes[..len]).unwrap_err().kind(), ErrorKind::Corrupt, "{len} bytes");
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        // I4. All of it, not a sample: the bytes are few.
        let [rich, named] =
            [rich(), with_operators()].map(|(manifest, inline)| encode(&manifest, &inline).unwrap());
        for bytes in [rich, named, encode(&open(), &Inline::new()).unwrap()] {
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let error = decode(&flipped).unwrap_err();
                let format = (4..6).contains(&(bit / 8)) && error.kind() == ErrorKind::UnsupportedVersion;
                assert!(format || error.kind() == ErrorKind::Corrupt, "bit {bit}: {error}");
            }
            for len in 0..bytes.len() {
                assert_eq!(decode(&bytes[..len]).unwrap_err().kind(), ErrorKind::Corrupt, "{len} bytes");
            }
            assert_eq!(decode(&[&bytes[..], b"x"].concat()).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_newer_format_says_so() {
        let mut bytes = encode(&open(), &Inline::new()).unwrap().to_vec();
        bytes[4] = 4;
        let error = decode(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert!(error.to_string().contains("format 4"), "{error}");
    }

    #[test]
    fn the_oldest_format_that_has_words_for_it_is_written() {
        let format = |(manifest, inline): (Manifest, Inline)| encode(&manifest, &inline).unwrap()[4];
        assert_eq!((format(rich()), format(with_operators())), (2, 3));
        let (mut manifest, inline) = with_operators();
        let super::super::model::Record::Checkpoint(record) = &mut manifest.record else { unreachable!() };
        record.operators.clear();
        record.subtasks.truncate(2);
        record.states = Default::default();
        assert_eq!(format((manifest.clone(), inline.clone())), 3, "it has elements");
        let super::super::model::Record::Checkpoint(record) = &mut manifest.record else { unreachable!() };
        record.subtasks.iter_mut().for_each(|subtask| subtask.elements = [].into());
        assert_eq!(format((manifest, inline)), 2);
    }

    #[test]
    fn the_header_tells_the_kind() {
        let (manifest, inline) = rich();
        let bytes = encode(&manifest, &inline).unwrap();
        let header = Header::decode(&bytes[..HEADER_LEN as usize]).unwrap();
        assert_eq!(header.kind, RecordKind::Checkpoint);
        let bytes = encode(&open(), &Inline::new()).unwrap();
        assert_eq!(Header::decode(&bytes[..HEADER_LEN as usize]).unwrap().kind, RecordKind::Open);
    }

    #[test]
    fn inline_bytes_lie_where_their_references_say() {
        let (manifest, inline) = rich();
        let bytes = encode(&manifest, &inline).unwrap();
        let delta = &manifest.checkpoint().unwrap().subtasks[0].deltas[2];
        let place = delta.offset as usize..(delta.offset + delta.length) as usize;
        assert_eq!(&bytes[place], b"the bytes of delta five");
    }

    #[test]
    fn a_file_of_a_base_costs_a_few_bytes() {
        // I5: a state of 100 GB has thousands of files, and every checkpoint names them all.
        let (mut manifest, inline) = rich();
        let small = encode(&manifest, &inline).unwrap().len();
        let super::super::model::Record::Checkpoint(record) = &mut manifest.record else { unreachable!() };
        let files = &mut record.subtasks[0].base.as_mut().unwrap().files;
        files.extend((0..1600).map(|n| data(4, DataKind::Sst, 100 + n)));
        let per_file = (encode(&manifest, &inline).unwrap().len() - small) as f64 / 1600.0;
        assert!(per_file <= 1.1, "{per_file} bytes per file");
    }

    #[test]
    fn what_breaks_the_rules_is_not_written() {
        let (mut manifest, inline) = rich();
        manifest.retained = RetainedList::default();
        assert_eq!(encode(&manifest, &inline).unwrap_err().kind(), ErrorKind::Internal);
    }

    /// Wraps any body in correct lengths and checksums.
    fn forge(format: u16, kind: RecordKind, inline: &[u8], body: &[u8]) -> Vec<u8> {
        let mut buffer = BytesMut::new();
        let (inline_len, inline_crc32c) = (inline.len() as u64, crc32c::crc32c(inline));
        Header { format, kind, inline_len, inline_crc32c, body_len: body.len() as u32 }.encode(&mut buffer);
        buffer.put_slice(inline);
        buffer.put_slice(body);
        buffer.put_u32_le(crc32c::crc32c(body));
        buffer.to_vec()
    }

    proptest! {
        #[test]
        fn any_manifest_reads_back((manifest, inline) in any_manifest()) {
            let bytes = encode(&manifest, &inline).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap(), manifest);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
        }

        /// Checksums do not protect from what was written wrongly, so the body's reader has to be total too.
        #[test]
        fn forged_bodies_are_read_or_refused(
            (manifest, inline) in any_manifest(),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
            cut in proptest::option::of(any::<proptest::sample::Index>()),
        ) {
            let bytes = encode(&manifest, &inline).unwrap();
            let body_start = (HEADER_LEN + inline.len()) as usize;
            let mut body = bytes[body_start..bytes.len() - FOOTER_LEN as usize].to_vec();
            for (at, value) in changes {
                let at = at.index(body.len());
                body[at] = value;
            }
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len()));
            }
            let format = u16::from(bytes[4]);
            let forged = forge(format, manifest.record.kind(), &bytes[HEADER_LEN as usize..body_start], &body);
            if let Ok(read) = decode(&forged) {
                // What is accepted obeys the rules.
                prop_assert!(read.validate(HEADER_LEN..body_start as u64).is_ok());
            }
        }

        #[test]
        fn forged_bodies_of_format_1_are_read_or_refused(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
            cut in proptest::option::of(any::<proptest::sample::Index>()),
        ) {
            let bytes = version_1("manifest-checkpoint-v1.bin");
            let header = Header::decode(&bytes).unwrap();
            let body_start = (HEADER_LEN + header.inline_len) as usize;
            let mut body = bytes[body_start..bytes.len() - FOOTER_LEN as usize].to_vec();
            for (at, value) in changes {
                let at = at.index(body.len());
                body[at] = value;
            }
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len()));
            }
            let forged = forge(1, header.kind, &bytes[HEADER_LEN as usize..body_start], &body);
            if let Ok(read) = decode(&forged) {
                prop_assert!(read.validate(HEADER_LEN..body_start as u64).is_ok());
            }
        }

        #[test]
        fn forged_noise_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for kind in [RecordKind::Open, RecordKind::Checkpoint] {
                for format in [1, 2, 3] {
                    let _ = decode(&forge(format, kind, b"", &body));
                }
            }
        }
    }
}
