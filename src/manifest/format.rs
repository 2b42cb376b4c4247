//! A manifest's bytes.
//!
//! ```text
//! header   magic "ALVM", format u16, kind u8, flags u8, inline length u64, inline crc32c u32,
//!          body length u32, crc32c of the header so far u32                     (little-endian)
//! inline   the deltas that travel in this manifest, one after the other
//! body     the manifest itself (postcard, see wire.rs)
//! footer   crc32c of the body u32
//! ```
//!
//! The inline deltas come before the body so that the body can name their offsets. The header
//! stands alone: 28 bytes tell an open record from a checkpoint.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::model::{Manifest, RecordKind};
use super::wire::Body;
use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 4] = *b"ALVM";
const FORMAT: u16 = 1;
pub(crate) const HEADER_LEN: u64 = 28;
const FOOTER_LEN: u64 = 4;

/// Deltas that travel in a manifest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inline {
    parts: Vec<Bytes>,
    len: u64,
}

impl Inline {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes` and returns their offset in the manifest.
    pub(crate) fn push(&mut self, bytes: Bytes) -> u64 {
        let offset = HEADER_LEN + self.len;
        self.len += bytes.len() as u64;
        self.parts.push(bytes);
        offset
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn range(&self) -> Range<u64> {
        HEADER_LEN..HEADER_LEN + self.len
    }
}

/// What the first bytes of a manifest say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: RecordKind,
    inline_len: u64,
    inline_crc32c: u32,
    body_len: u32,
}

impl Header {
    /// Reads the first [`HEADER_LEN`] bytes of a manifest.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields(bytes);
        if fields.take::<4>()? != MAGIC {
            return Err(Error::corrupt("not a manifest"));
        }
        let format = u16::from_le_bytes(fields.take()?);
        if format > FORMAT {
            return Err(newer(format!("manifest has format {format}, this build reads up to {FORMAT}")));
        }
        let [kind, flags] = fields.take()?;
        let inline_len = u64::from_le_bytes(fields.take()?);
        let inline_crc32c = u32::from_le_bytes(fields.take()?);
        let body_len = u32::from_le_bytes(fields.take()?);
        let checked = bytes.len() - fields.0.len();
        let crc = u32::from_le_bytes(fields.take()?);
        if bytes.get(..checked).map(crc32c::crc32c) != Some(crc) {
            return Err(Error::corrupt("checksum of the manifest's header does not match"));
        }
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
        Ok(Self { kind, inline_len, inline_crc32c, body_len })
    }

    fn encode(self, buffer: &mut BytesMut) {
        let start = buffer.len();
        buffer.put_slice(&MAGIC);
        buffer.put_u16_le(FORMAT);
        buffer.put_u8(match self.kind {
            RecordKind::Open => 1,
            RecordKind::Checkpoint => 2,
        });
        buffer.put_u8(0);
        buffer.put_u64_le(self.inline_len);
        buffer.put_u32_le(self.inline_crc32c);
        buffer.put_u32_le(self.body_len);
        let crc = crc32c::crc32c(buffer.get(start..).unwrap_or_default());
        buffer.put_u32_le(crc);
    }
}

/// Reads fixed-size fields from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) =
            self.0.split_first_chunk::<N>().ok_or_else(|| Error::corrupt("manifest is cut off"))?;
        self.0 = rest;
        Ok(*field)
    }
}

fn newer(message: String) -> Error {
    Error::new(ErrorKind::UnsupportedVersion, message).advice("use a newer version of alluvium")
}

/// The bytes of `manifest` with the deltas that it carries.
///
/// # Errors
/// Internal, if the manifest breaks a rule of its own: such a thing must not be written.
pub(crate) fn encode(manifest: &Manifest, inline: &Inline) -> Result<Bytes> {
    let refuse = |error: Error| Error::internal("a manifest would break its own rules").source(error);
    manifest.validate(inline.range()).map_err(refuse)?;
    let body = postcard::to_stdvec(&Body::of(manifest)?)
        .map_err(|error| Error::internal("cannot serialize a manifest").source(error))?;
    let body_len = u32::try_from(body.len())
        .map_err(|_| Error::internal("a manifest of more than 4 GiB is not written"))?;
    let header = Header {
        kind: manifest.record.kind(),
        inline_len: inline.len,
        inline_crc32c: inline.parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part)),
        body_len,
    };
    let mut buffer = BytesMut::with_capacity((HEADER_LEN + inline.len + FOOTER_LEN) as usize + body.len());
    header.encode(&mut buffer);
    inline.parts.iter().for_each(|part| buffer.put_slice(part));
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
        return Err(Error::corrupt("checksum of the deltas inside the manifest does not match"));
    }
    let body = part(inline_end..body_end)?;
    if part(body_end..body_end + FOOTER_LEN)? != crc32c::crc32c(body).to_le_bytes() {
        return Err(Error::corrupt("checksum of the manifest's body does not match"));
    }
    let (wire, rest) = postcard::take_from_bytes::<Body>(body)
        .map_err(|error| Error::corrupt("manifest's body does not read").source(error))?;
    if !rest.is_empty() {
        return Err(Error::corrupt("manifest's body is longer than what it holds"));
    }
    let manifest = wire.manifest()?;
    if manifest.record.kind() != header.kind {
        return Err(Error::corrupt("manifest's header and body differ in what they are"));
    }
    manifest.validate(HEADER_LEN..inline_end)?;
    Ok(manifest)
}
