//! The two formats in which state leaves and enters the system. Both begin with the states' descriptions
//! and end with a count and a checksum, so that a file that is cut short or damaged is noticed. Both say
//! nothing about where they come from, so the same state always gives the same bytes.
//!
//! - [`json`]: a line for each entry, to be read, filtered and written by other programs.
//! - [`raw`]: length-prefixed bytes, for size and speed.

mod json;
mod raw;

use std::io::{BufRead, Write};

use alluvium::StateDescription;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result, io};

pub(crate) use json::JsonWriter;
pub(crate) use raw::RawWriter;

/// The only version of both formats so far.
const VERSION: u16 = 1;
/// Longest key and value, in bytes: as the library stores it. A value is as long as a list may become where folds notice it late.
const MAX_KEY: u32 = 5 * (64 << 10);
const MAX_VALUE: u32 = 2 << 30;

/// What a file begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// Version of the format; its name tells what the file is.
    pub(crate) alluvium_export: u16,
    /// Key groups of the job: they decide where a key lives.
    pub(crate) max_parallelism: u16,
    /// Ascending by name.
    pub(crate) states: Vec<StateDescription>,
}

impl Header {
    pub(crate) fn new(max_parallelism: u16, states: Vec<StateDescription>) -> Self {
        Self { alluvium_export: VERSION, max_parallelism, states }
    }

    fn check(self) -> std::result::Result<Self, String> {
        if self.alluvium_export != VERSION {
            let found = self.alluvium_export;
            return Err(format!(
                "the export has version {found}, this build reads {VERSION}; use a newer version of alluvium"
            ));
        }
        for state in &self.states {
            // The id follows from the name.
            if state.renamed(state.name()).map_err(|error| error.to_string())? != *state {
                return Err(format!(
                    "state {:?} has the id of another name: names in the file stay as they are; use `import --rename`",
                    state.name()
                ));
            }
        }
        Ok(self)
    }
}

/// One entry of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Which of the header's states.
    pub(crate) state: usize,
    pub(crate) group: u16,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Writes one of the formats.
pub(crate) trait Sink {
    fn entry(&mut self, state: usize, group: u16, key: &[u8], value: &[u8]) -> std::io::Result<()>;
    /// Writes the end, and returns the number of entries.
    fn end(&mut self) -> std::io::Result<u64>;
}

/// Reads either of the formats: the header first, then entries until the end, which is checked.
pub(crate) enum EntryReader<R> {
    Json(json::JsonReader<R>),
    Raw(raw::RawReader<R>),
}

impl<R: BufRead> EntryReader<R> {
    /// Tells the format by its first byte.
    pub(crate) fn open(mut input: R, name: &str) -> Result<(Header, Self)> {
        let first = input.fill_buf().map_err(io(format!("read {name}")))?.first().copied();
        let damaged = |message: String| Failure::new(format!("{name}: {message}"));
        match first {
            None => Err(damaged("the file is empty".to_owned())),
            Some(byte) if byte == raw::MAGIC[0] => {
                let (header, reader) = raw::RawReader::open(input).map_err(damaged)?;
                Ok((header, Self::Raw(reader)))
            }
            Some(_) => {
                let (header, reader) = json::JsonReader::open(input).map_err(damaged)?;
                Ok((header, Self::Json(reader)))
            }
        }
    }

    /// The next entry; None at the end, which is then known to be the right one. What fails says where.
    pub(crate) fn next(&mut self) -> std::result::Result<Option<Entry>, String> {
        match self {
            Self::Json(reader) => reader.next(),
            Self::Raw(reader) => reader.next(),
        }
    }
}

/// Passes bytes on and keeps their CRC32C.
struct Checksummed<W> {
    inner: W,
    crc: u32,
}

impl<W: Write> Checksummed<W> {
    fn new(inner: W) -> Self {
        Self { inner, crc: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.inner.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn description(name: &str) -> StateDescription {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("job").to_str().unwrap().to_owned();
        let options = alluvium::JobOptions::new(dir.path().join("local"), alluvium::OpenMode::Create);
        let mut opened = alluvium::Job::open(&url, options.memory(16_000_000)).unwrap();
        opened.stores[0].state(&alluvium::StateOptions::new(name)).unwrap();
        let checkpoint = opened.job.trigger("").unwrap();
        opened.stores[0].cut(checkpoint.id(), "").unwrap();
        checkpoint.wait().unwrap();
        let options = alluvium::ReaderOptions::new().dir(dir.path());
        let reader = alluvium::CheckpointReader::open(&url, &alluvium::RestoreFrom::Latest, options).unwrap();
        let states = reader.states();
        reader.close().unwrap();
        states.into_iter().next().unwrap()
    }

    fn sample() -> (Header, Vec<Entry>) {
        let header = Header::new(128, vec![description("clicks"), description("words")]);
        let entry = |state, group, key: &[u8], value: &[u8]| Entry {
            state,
            group,
            key: key.to_vec(),
            value: value.to_vec(),
        };
        let entries = vec![
            entry(0, 0, b"", b""),
            entry(0, 127, b"page/1", b"\x00\xff"),
            entry(1, 5, "zürich".as_bytes(), "a \"quoted\"\nline".as_bytes()),
            entry(1, 5, b"\xfe", &[7; 300]),
        ];
        (header, entries)
    }

    fn write(raw: bool, header: &Header, entries: &[Entry]) -> Vec<u8> {
        let mut bytes = Vec::new();
        {
            let mut sink: Box<dyn Sink> = if raw {
                Box::new(RawWriter::begin(&mut bytes, header).unwrap())
            } else {
                Box::new(JsonWriter::begin(&mut bytes, header.clone()).unwrap())
            };
            for entry in entries {
                sink.entry(entry.state, entry.group, &entry.key, &entry.value).unwrap();
            }
            assert_eq!(sink.end().unwrap(), entries.len() as u64);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> std::result::Result<(Header, Vec<Entry>), String> {
        let (header, mut source) = EntryReader::open(bytes, "file").map_err(|failure| failure.to_string())?;
        let mut entries = Vec::new();
        while let Some(entry) = source.next()? {
            entries.push(entry);
        }
        Ok((header, entries))
    }

    #[test]
    fn golden_files_read_and_are_written_the_same() {
        for (raw, name) in [(false, "export-v1.jsonl"), (true, "export-v1.bin")] {
            let (header, entries) = sample();
            let written = write(raw, &header, &entries);
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
            if std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
                std::fs::write(&path, &written).unwrap();
            }
            let stored = std::fs::read(&path).unwrap();
            assert_eq!(read(&stored).unwrap(), (header, entries), "{name} reads differently");
            assert!(written == stored, "{name} is written differently");
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let (header, entries) = sample();
        for raw in [false, true] {
            let bytes = write(raw, &header, &entries);
            for len in 0..bytes.len() {
                // Without its last line end the text is whole.
                if !raw && len == bytes.len() - 1 {
                    continue;
                }
                let error = read(&bytes[..len]).expect_err("a file that is cut short");
                assert!(!error.is_empty());
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if let Ok((read, found)) = read(&flipped) {
                    // White space and the case of hexadecimal digits are free in JSON.
                    assert!(!raw && (read, found) == (header.clone(), entries.clone()), "bit {bit}");
                }
            }
            assert!(read(&[&bytes[..], b"x"].concat()).is_err(), "what comes after the end");
        }
    }

    #[test]
    fn an_error_says_where_and_what() {
        let (header, entries) = sample();
        let text = String::from_utf8(write(false, &header, &entries)).unwrap();
        let says = |text: &str, what: &[&str]| {
            let error = read(text.as_bytes()).unwrap_err();
            for what in what {
                assert!(error.contains(what), "{error:?} does not say {what:?}");
            }
        };
        says("", &["empty"]);
        says("hello\n", &["line 1", "header"]);
        says(&text.replacen("\"alluvium_export\":1", "\"alluvium_export\":9", 1), &["version 9"]);
        says(&text.replacen("\"group\":127", "\"group\":128", 1), &["line 3", "key group 128", "0 to 127"]);
        says(
            &text.replacen("\"state\":\"clicks\"", "\"state\":\"other\"", 1),
            &["line 2", "\"other\"", "clicks, words"],
        );
        says(
            &text.replacen("\"kind\":\"raw\",\"group\":0", "\"kind\":\"list\",\"group\":0", 1),
            &["line 2", "list", "raw"],
        );
        says(&text.replacen("\"entries\":4", "\"entries\":5", 1), &["4 entries", "5"]);
        let last = text.lines().last().unwrap();
        says(&text.replacen(&format!("{last}\n"), "", 1), &["ends without"]);
        says(&text.replacen("page/1", "page/2", 1), &["checksum"]);
        // Who writes such a file by hand may leave the checksum out.
        let by_hand = text.replacen("page/1", "page/2", 1).replacen(last, "{\"entries\":4}", 1);
        assert_eq!(read(by_hand.as_bytes()).unwrap().1[1].key, b"page/2");

        let raw = write(true, &header, &entries);
        let error = read(&raw[..raw.len() - 1]).unwrap_err();
        assert!(error.contains("byte") && error.contains("ends"), "{error}");
        let mut wrong = raw.clone();
        wrong[4] = 9;
        assert!(read(&wrong).unwrap_err().contains("version 9"));
    }
}
