//! What makes two files the same: their size and a strong checksum of their content, never their
//! name. After a restore RocksDB gives the same file numbers to other content; systems that reused
//! uploaded files by name have corrupted checkpoints that way.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const READ: &str = "read a file to checksum it";

/// Bytes that are read at a time: few enough to stay in the processor's cache between the two
/// checksums.
const BUFFER: usize = 128 * 1024;

/// Identity of a file's content: its length and BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct FileId {
    /// Length in bytes.
    pub(crate) size: u64,
    /// BLAKE3 of the content, 256 bits.
    pub(crate) hash: [u8; 32],
}

impl FileId {
    pub(crate) fn of_bytes(content: &[u8]) -> Self {
        Self { size: content.len() as u64, hash: *blake3::hash(content).as_bytes() }
    }

    /// Reads the whole file; blocks.
    pub(crate) fn of_file(path: &Path) -> Result<Self> {
        let read = || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(path)?)?;
            Ok(Self { size: hasher.count(), hash: *hasher.finalize().as_bytes() })
        };
        read().map_err(|error| Error::disk(READ, path, error))
    }

    /// As [`FileId::of_file`], with the CRC32C of the same bytes.
    pub(crate) fn with_crc32c(path: &Path) -> Result<(Self, u32)> {
        let read = || {
            let (mut file, mut buffer) = (File::open(path)?, vec![0; BUFFER]);
            let (mut hasher, mut crc32c) = (blake3::Hasher::new(), 0);
            loop {
                let read = match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                let bytes = buffer.get(..read).unwrap_or_default();
                hasher.update(bytes);
                crc32c = crc32c::crc32c_append(crc32c, bytes);
            }
            Ok((Self { size: hasher.count(), hash: *hasher.finalize().as_bytes() }, crc32c))
        };
        read().map_err(|error| Error::disk(READ, path, error))
    }
}

impl fmt::Debug for FileId {
    /// The first 8 digits are enough for a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B:", self.size)?;
        self.hash.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_bytes_have_one_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sst");
        for content in [b"".as_slice(), b"a", &[7; 200_000]] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(FileId::of_file(&path).unwrap(), FileId::of_bytes(content));
            let both = (FileId::of_bytes(content), crc32c::crc32c(content));
            assert_eq!(FileId::with_crc32c(&path).unwrap(), both);
        }
        assert_ne!(FileId::of_bytes(b"a"), FileId::of_bytes(b"b"));
    }

    #[test]
    fn the_hash_is_blake3() {
        // Test vector of the BLAKE3 project for the empty input.
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(blake3::Hash::from_bytes(FileId::of_bytes(b"").hash).to_hex().as_str(), empty);
    }

    #[test]
    fn an_absent_file_is_named() {
        let error = FileId::of_file(Path::new("/nowhere/000001.sst")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/000001.sst"), "{error}");
    }
}
