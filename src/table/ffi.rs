//! The calls of RocksDB's C interface that the `rocksdb` crate leaves out, as safe functions: the files of a
//! database with their sequence numbers, and taking in files that another database has written.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::path::PathBuf;
use std::ptr;

use librocksdb_sys as ffi;
use rocksdb::{AsRawPtr, DB};

/// A failure, as RocksDB hands it to C: "<code>: <detail>".
#[derive(Debug)]
pub(super) struct Status(String);

impl AsRef<str> for Status {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Status {}

/// An SST file that a database's MANIFEST names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveFile {
    pub(super) path: PathBuf,
    pub(super) level: usize,
    pub(super) bytes: u64,
    /// The least and the greatest key. Range tombstones count, and their ends, which they leave out, as well.
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
    /// As the MANIFEST has them.
    pub(super) seqs: (u64, u64),
}

impl LiveFile {
    /// Whether both may have something in one place.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.last >= other.first && self.first <= other.last
    }
}

/// The database's SST files: level by level from 0, in level 0 the newest first, below by their keys.
pub(super) fn live_files(db: &DB) -> Vec<LiveFile> {
    let text = |text: *const c_char| {
        if text.is_null() {
            return String::new();
        }
        // SAFETY: RocksDB's names are strings with a NUL at the end that live as long as the list, which is
        // destroyed only after the last call.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    let bytes = |data: *const c_char, len: usize| {
        if data.is_null() {
            return Vec::new();
        }
        // SAFETY: RocksDB has just given this length of a key that lives as long as the list.
        unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec()
    };
    // SAFETY: the database is open as long as `db` is borrowed. The list is a copy of its own, which only this
    // function knows; it is read at indexes below its count, and destroyed once.
    unsafe {
        let list = ffi::rocksdb_livefiles(db.as_raw_ptr());
        if list.is_null() {
            return Vec::new();
        }
        let one = |index| {
            let directory = text(ffi::rocksdb_livefiles_directory(list, index));
            // The name begins with a slash.
            let name = text(ffi::rocksdb_livefiles_name(list, index));
            let (mut first_len, mut last_len) = (0, 0);
            let first = ffi::rocksdb_livefiles_smallestkey(list, index, &raw mut first_len);
            let last = ffi::rocksdb_livefiles_largestkey(list, index, &raw mut last_len);
            LiveFile {
                path: PathBuf::from(directory).join(name.trim_start_matches('/')),
                level: usize::try_from(ffi::rocksdb_livefiles_level(list, index)).unwrap_or_default(),
                bytes: ffi::rocksdb_livefiles_size(list, index) as u64,
                first: bytes(first, first_len),
                last: bytes(last, last_len),
                seqs: (
                    ffi::rocksdb_livefiles_smallest_seqno(list, index),
                    ffi::rocksdb_livefiles_largest_seqno(list, index),
                ),
            }
        };
        let files = (0..ffi::rocksdb_livefiles_count(list)).map(one).collect();
        ffi::rocksdb_livefiles_destroy(list);
        files
    }
}

/// Takes in `files` that another database has written, by hard links and under the sequence numbers that are in
/// them: all or none. No key may be in what the database has; where a key is in several of the files, the
/// older ones come first.
pub(super) fn ingest_db_generated(db: &DB, files: &[PathBuf]) -> Result<(), Status> {
    let path = |path: &PathBuf| CString::new(path.as_os_str().as_encoded_bytes());
    let paths = files.iter().map(path).collect::<Result<Vec<_>, _>>();
    let paths = paths.map_err(|_| Status("Invalid argument: a path with a NUL in it".to_owned()))?;
    let pointers: Vec<*const c_char> = paths.iter().map(|path| path.as_ptr()).collect();
    let mut error: *mut c_char = ptr::null_mut();
    // SAFETY: the database is open as long as `db` is borrowed, and RocksDB synchronises calls on it itself.
    // `pointers` are as many strings with a NUL at the end as is said, which outlive the call. The options are
    // made here, used by this one call, and destroyed once.
    unsafe {
        let options = ffi::rocksdb_ingestexternalfileoptions_create();
        ffi::rocksdb_ingestexternalfileoptions_set_allow_db_generated_files(options, 1);
        ffi::rocksdb_ingestexternalfileoptions_set_link_files(options, 1);
        // What is looked at to find the files' borders would push out what is needed.
        ffi::rocksdb_ingestexternalfileoptions_set_fill_cache(options, 0);
        ffi::rocksdb_ingest_external_file(
            db.as_raw_ptr(),
            pointers.as_ptr(),
            pointers.len(),
            options,
            &raw mut error,
        );
        ffi::rocksdb_ingestexternalfileoptions_destroy(options);
    }
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a failure is a string with a NUL at the end that RocksDB has allocated for its caller, who frees
    // it, here once and after it was copied.
    unsafe {
        let status = CStr::from_ptr(error).to_string_lossy().into_owned();
        ffi::rocksdb_free(error.cast());
        Err(Status(status))
    }
}
