//! The raw format, all little-endian:
//!
//! ```text
//! header   magic "ALVX", version u16, length of the header u32, header (JSON)
//! entries  1u8, index of the state u16, key group u16, length of the key u32, of the value u32, key, value
//! end      0u8, number of entries u64, crc32c of everything before it u32
//! ```

use std::io::{BufRead, Read, Write};

use super::{Checksummed, Entry, Header, MAX_KEY, MAX_VALUE, Sink, VERSION};

pub(super) const MAGIC: [u8; 4] = *b"ALVX";
/// Longest header in bytes: some 10,000 states.
const MAX_HEADER: u32 = 16 << 20;
const ENTRY: u8 = 1;
const END: u8 = 0;

pub(crate) struct RawWriter<W> {
    out: Checksummed<W>,
    entries: u64,
}

impl<W: Write> RawWriter<W> {
    pub(crate) fn begin(out: W, header: &Header) -> std::io::Result<Self> {
        let header = serde_json::to_vec(header)?;
        let mut out = Checksummed::new(out);
        out.put(&MAGIC)?;
        out.put(&VERSION.to_le_bytes())?;
        out.put(&length(&header)?.to_le_bytes())?;
        out.put(&header)?;
        Ok(Self { out, entries: 0 })
    }
}

impl<W: Write> Sink for RawWriter<W> {
    fn entry(&mut self, state: usize, group: u16, key: &[u8], value: &[u8]) -> std::io::Result<()> {
        let state = u16::try_from(state).map_err(std::io::Error::other)?;
        self.out.put(&[ENTRY])?;
        self.out.put(&state.to_le_bytes())?;
        self.out.put(&group.to_le_bytes())?;
        self.out.put(&length(key)?.to_le_bytes())?;
        self.out.put(&length(value)?.to_le_bytes())?;
        self.out.put(key)?;
        self.out.put(value)?;
        self.entries += 1;
        Ok(())
    }

    fn end(&mut self) -> std::io::Result<u64> {
        self.out.put(&[END])?;
        let entries = self.entries.to_le_bytes();
        self.out.put(&entries)?;
        let crc = self.out.crc.to_le_bytes();
        self.out.put(&crc)?;
        self.out.inner.flush()?;
        Ok(self.entries)
    }
}

fn length(bytes: &[u8]) -> std::io::Result<u32> {
    u32::try_from(bytes.len()).map_err(std::io::Error::other)
}

pub(crate) struct RawReader<R> {
    input: R,
    states: usize,
    max_parallelism: u16,
    entries: u64,
    /// Of everything that was read.
    crc: u32,
    at: u64,
}

impl<R: BufRead> RawReader<R> {
    pub(super) fn open(input: R) -> Result<(Header, Self), String> {
        let mut reader = Self { input, states: 0, max_parallelism: 0, entries: 0, crc: 0, at: 0 };
        if reader.take::<4>()? != MAGIC {
            return Err("the file is not an export of alluvium".to_owned());
        }
        let version = u16::from_le_bytes(reader.take()?);
        if version != VERSION {
            return Err(format!("the export has version {version}, this build reads {VERSION}"));
        }
        let length = u32::from_le_bytes(reader.take()?);
        let header = reader.bytes(length, MAX_HEADER, "the header")?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|error| format!("the header does not read: {error}"))?;
        let header = header.check()?;
        (reader.states, reader.max_parallelism) = (header.states.len(), header.max_parallelism);
        Ok((header, reader))
    }

    pub(super) fn next(&mut self) -> Result<Option<Entry>, String> {
        let at = self.at;
        match self.take::<1>()? {
            [ENTRY] => self.entry().map(Some).map_err(|error| format!("entry at byte {at}: {error}")),
            [END] => self.end().map(|()| None),
            [tag] => Err(format!("byte {at} is {tag}, which begins neither an entry nor the end")),
        }
    }

    fn entry(&mut self) -> Result<Entry, String> {
        let state = usize::from(u16::from_le_bytes(self.take()?));
        let group = u16::from_le_bytes(self.take()?);
        let (key, value) = (u32::from_le_bytes(self.take()?), u32::from_le_bytes(self.take()?));
        if state >= self.states {
            return Err(format!("there is no state {state}: the header has {}", self.states));
        }
        if group >= self.max_parallelism {
            return Err(format!("there is no key group {group} of {}", self.max_parallelism));
        }
        let key = self.bytes(key, MAX_KEY, "the key")?;
        let value = self.bytes(value, MAX_VALUE, "the value")?;
        self.entries += 1;
        Ok(Entry { state, group, key, value })
    }

    fn end(&mut self) -> Result<(), String> {
        let entries = u64::from_le_bytes(self.take()?);
        let crc = self.crc;
        let expected = u32::from_le_bytes(self.take()?);
        if entries != self.entries {
            return Err(format!("the file has {} entries where its end says {entries}", self.entries));
        }
        if crc != expected {
            return Err(format!(
                "the checksum of the file is {crc:08x} where its end says {expected:08x}: it is damaged"
            ));
        }
        match self.input.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err(format!("something comes after the end, at byte {}", self.at)),
            Err(error) => Err(format!("cannot read byte {}: {error}", self.at)),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|error| self.unreadable(&error))?;
        self.passed(&bytes);
        Ok(bytes)
    }

    /// Reads `length` bytes. Nothing is allocated for what is not there.
    fn bytes(&mut self, length: u32, longest: u32, what: &str) -> Result<Vec<u8>, String> {
        if length > longest {
            return Err(format!("{what} has {length} bytes, more than {longest}"));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(u64::from(length)).read_to_end(&mut bytes);
        read.map_err(|error| self.unreadable(&error))?;
        self.passed(&bytes);
        if bytes.len() != length as usize {
            return Err(format!("the file ends at byte {}, within {what}: it is not whole", self.at));
        }
        Ok(bytes)
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.at += bytes.len() as u64;
    }

    fn unreadable(&self, error: &std::io::Error) -> String {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            format!("the file ends soon after byte {}: it is not whole", self.at)
        } else {
            format!("cannot read byte {}: {error}", self.at)
        }
    }
}
