//! JSON lines: the header, one entry a line, and at the end `{"entries":N,"crc32c":"…"}`, where the
//! checksum is that of all bytes before that line.

use std::io::{BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use super::{Checksummed, Entry, Header, MAX_KEY, MAX_VALUE, Sink};
use crate::display::tagged::Tagged;

/// No line is longer: a value in which every byte is escaped, and some room for the rest.
const MAX_LINE: u64 = 6 * MAX_VALUE as u64 + (1 << 20);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine {
    state: String,
    kind: String,
    group: u16,
    key: Tagged,
    value: Tagged,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndLine {
    entries: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32c: Option<String>,
}

pub(crate) struct JsonWriter<W> {
    out: Checksummed<W>,
    header: Header,
    entries: u64,
}

impl<W: Write> JsonWriter<W> {
    pub(crate) fn begin(out: W, header: Header) -> std::io::Result<Self> {
        let line = serde_json::to_string(&header)?;
        let mut writer = Self { out: Checksummed::new(out), header, entries: 0 };
        writer.line(&line)?;
        Ok(writer)
    }

    fn line(&mut self, line: &str) -> std::io::Result<()> {
        self.out.put(line.as_bytes())?;
        self.out.put(b"\n")
    }
}

impl<W: Write> Sink for JsonWriter<W> {
    fn entry(&mut self, state: usize, group: u16, key: &[u8], value: &[u8]) -> std::io::Result<()> {
        let state = self.header.states.get(state).ok_or_else(|| std::io::Error::other("no such state"))?;
        let (state, kind) = (state.name().to_owned(), state.kind().to_owned());
        let line = EntryLine { state, kind, group, key: Tagged::of(key), value: Tagged::of(value) };
        self.entries += 1;
        self.line(&serde_json::to_string(&line)?)
    }

    fn end(&mut self) -> std::io::Result<u64> {
        let crc32c = Some(format!("{:08x}", self.out.crc));
        let line = serde_json::to_string(&EndLine { entries: self.entries, crc32c })?;
        self.line(&line)?;
        self.out.inner.flush()?;
        Ok(self.entries)
    }
}

pub(crate) struct JsonReader<R> {
    input: R,
    header: Header,
    line: u64,
    entries: u64,
    crc: u32,
    /// The bytes of the line before the one that was read last.
    buffer: Vec<u8>,
}

impl<R: BufRead> JsonReader<R> {
    pub(super) fn open(input: R) -> Result<(Header, Self), String> {
        let header = Header { alluvium_export: 0, max_parallelism: 0, states: Vec::new() };
        let mut reader = Self { input, header, line: 0, entries: 0, crc: 0, buffer: Vec::new() };
        reader.read_line()?;
        let header: Header = serde_json::from_slice(&reader.buffer)
            .map_err(|error| format!("line 1 is not the header of an export: {error}"))?;
        reader.header = header.check()?;
        reader.crc = crc32c::crc32c(&reader.buffer);
        Ok((reader.header.clone(), reader))
    }

    pub(super) fn next(&mut self) -> Result<Option<Entry>, String> {
        self.read_line()?;
        let line = self.line;
        if self.buffer.is_empty() {
            return Err(format!(
                "the file ends without its last line, after {} entries: it is not whole",
                self.entries
            ));
        }
        let entry = match serde_json::from_slice::<EntryLine>(&self.buffer) {
            Ok(entry) => entry,
            Err(error) => {
                return match serde_json::from_slice::<EndLine>(&self.buffer) {
                    Ok(end) => self.end(&end).map(|()| None),
                    Err(_) => Err(format!("line {line} is not an entry: {error}")),
                };
            }
        };
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.entries += 1;
        self.entry(entry).map(Some).map_err(|error| format!("line {line}: {error}"))
    }

    fn entry(&self, line: EntryLine) -> Result<Entry, String> {
        let Header { states, max_parallelism, .. } = &self.header;
        let state = states.iter().position(|state| state.name() == line.state).ok_or_else(|| {
            let names: Vec<_> = states.iter().map(alluvium::StateDescription::name).collect();
            format!("the header has no state {:?}; it has {}", line.state, names.join(", "))
        })?;
        let kind = states[state].kind();
        if line.kind != kind {
            return Err(format!("state {:?} is {kind}, not {}", line.state, line.kind));
        }
        if line.group >= *max_parallelism {
            let (group, last) = (line.group, max_parallelism.saturating_sub(1));
            return Err(format!("there is no key group {group}: groups are 0 to {last}"));
        }
        let key = line.key.bytes().map_err(|error| format!("key: {error}"))?;
        let value = line.value.bytes().map_err(|error| format!("value: {error}"))?;
        if key.len() > MAX_KEY as usize || value.len() > MAX_VALUE as usize {
            return Err("key or value are too long".to_owned());
        }
        Ok(Entry { state, group: line.group, key, value })
    }

    fn end(&mut self, end: &EndLine) -> Result<(), String> {
        if end.entries != self.entries {
            return Err(format!(
                "the file has {} entries where its last line says {}: some are missing or too many",
                self.entries, end.entries
            ));
        }
        if let Some(crc) = &end.crc32c
            && u32::from_str_radix(crc, 16) != Ok(self.crc)
        {
            return Err(format!(
                "the checksum of the file is {:08x} where its last line says {crc}: it is damaged, or was changed by hand (then remove crc32c)",
                self.crc
            ));
        }
        self.read_line()?;
        if self.buffer.is_empty() { Ok(()) } else { Err(format!("line {} comes after the end", self.line)) }
    }

    /// Reads the next line with its line end; empty at the end of the file.
    fn read_line(&mut self) -> Result<(), String> {
        self.buffer.clear();
        self.line += 1;
        let mut limited = (&mut self.input).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|error| format!("cannot read line {}: {error}", self.line))?;
        if read as u64 == MAX_LINE {
            return Err(format!("line {} is too long", self.line));
        }
        Ok(())
    }
}
