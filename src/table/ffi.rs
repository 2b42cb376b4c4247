//! The calls of RocksDB's C interface that the `rocksdb` crate leaves out, as safe functions: the
//! files of a database with their sequence numbers and their checksums, taking in files that
//! another database has written, a flush that does not wait for compaction, and hearing of errors
//! in the background.

#![allow(unsafe_code, reason = "a C interface; each block says why it is sound")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use librocksdb_sys as ffi;
use rocksdb::{AsRawPtr, DB, Options};

use super::status::Status;
use super::trouble::Trouble;

/// An SST file that a database's MANIFEST names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveFile {
    pub(super) path: PathBuf,
    pub(super) level: usize,
    pub(super) bytes: u64,
    /// The least and the greatest key. Range tombstones count, including their exclusive end keys.
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
    /// As the MANIFEST has them.
    pub(super) seqs: (u64, u64),
}

impl LiveFile {
    /// Whether the key ranges of both overlap.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.last >= other.first && self.first <= other.last
    }
}

/// Changes an option of an open database.
pub(super) fn set_db_option(db: &DB, name: &CStr, value: &CStr) -> Result<(), Status> {
    let (names, values) = ([name.as_ptr()], [value.as_ptr()]);
    let mut error: *mut c_char = ptr::null_mut();
    // SAFETY: the database is open as long as `db` is borrowed. Both arrays have one string each,
    // with a NUL at its end, and live until the call is over; RocksDB copies what it needs.
    unsafe {
        ffi::rocksdb_set_db_options(db.as_raw_ptr(), 1, names.as_ptr(), values.as_ptr(), &raw mut error);
    }
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: an error is a string with a NUL at its end that the caller has to free, once.
    unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        ffi::rocksdb_free(error.cast());
        Err(Status::from(text))
    }
}

/// The database's SST files: level by level from 0, in level 0 the newest first, below by their
/// keys.
pub(super) fn live_files(db: &DB) -> Vec<LiveFile> {
    let text = |text: *const c_char| {
        if text.is_null() {
            return String::new();
        }
        // SAFETY: RocksDB's names are strings with a NUL at the end that live as long as the list,
        // which is destroyed only after the last call.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    let bytes = |data: *const c_char, len: usize| {
        if data.is_null() {
            return Vec::new();
        }
        // SAFETY: RocksDB has just given this length of a key that lives as long as the list.
        unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec()
    };
    // SAFETY: the database is open as long as `db` is borrowed. The list is a copy of its own,
    // which only this function knows; it is read at indexes below its count, and destroyed once.
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

/// Takes in `files` that another database has written, by hard links and under the sequence numbers
/// that are in them: all or none. No key may be in what the database has; where a key is in several
/// of the files, the older ones come first.
pub(super) fn ingest_db_generated(db: &DB, files: &[PathBuf]) -> Result<(), Status> {
    let path = |path: &PathBuf| CString::new(path.as_os_str().as_encoded_bytes());
    let paths = files.iter().map(path).collect::<Result<Vec<_>, _>>();
    let paths = paths.map_err(|_| Status::from("Invalid argument: a path with a NUL in it".to_owned()))?;
    let pointers: Vec<*const c_char> = paths.iter().map(|path| path.as_ptr()).collect();
    let mut error: *mut c_char = ptr::null_mut();
    // SAFETY: the database is open as long as `db` is borrowed, and RocksDB synchronises calls on
    // it itself. `pointers` are as many strings with a NUL at the end as is said, which outlive the
    // call. The options are made here, used by this one call, and destroyed once.
    unsafe {
        let options = ffi::rocksdb_ingestexternalfileoptions_create();
        ffi::rocksdb_ingestexternalfileoptions_set_allow_db_generated_files(options, 1);
        ffi::rocksdb_ingestexternalfileoptions_set_link_files(options, 1);
        // Blocks read to find the files' borders would evict blocks that are needed.
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
    result(error)
}

/// Begins a flush in the background and returns at once, however crowded level 0 is.
pub(super) fn begin_flush(db: &DB) -> Result<(), Status> {
    let mut error: *mut c_char = ptr::null_mut();
    // SAFETY: the database is open as long as `db` is borrowed, and RocksDB synchronises calls on
    // it itself. The options are made here, used by this one call, and destroyed once.
    unsafe {
        let options = ffi::rocksdb_flushoptions_create();
        ffi::rocksdb_flushoptions_set_wait(options, 0);
        // Without this the call would wait until the new file does not slow down writes.
        ffi::rocksdb_flushoptions_set_allow_write_stall(options, 1);
        ffi::rocksdb_flush(db.as_raw_ptr(), options, &raw mut error);
        ffi::rocksdb_flushoptions_destroy(options);
    }
    result(error)
}

/// The error that a call has left in its out-parameter, if any.
fn result(error: *mut c_char) -> Result<(), Status> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a failure is a string with a NUL at the end that RocksDB has allocated for its
    // caller, who frees it, here once and after it was copied.
    unsafe {
        let status = CStr::from_ptr(error).to_string_lossy().into_owned();
        ffi::rocksdb_free(error.cast());
        Err(Status::from(status))
    }
}

/// Writes the memtable into a file and waits for that, even if level 0 is so full that writes are
/// held back afterwards. RocksDB's own way is to wait for compaction first, which may be for ever
/// on a full disk.
pub(super) fn flush_at_once(db: &DB) -> Result<(), Status> {
    let mut error: *mut c_char = ptr::null_mut();
    // SAFETY: the database is open as long as `db` is borrowed. The options are made here, used by
    // this one call, and destroyed once.
    unsafe {
        let options = ffi::rocksdb_flushoptions_create();
        ffi::rocksdb_flushoptions_set_wait(options, 1);
        ffi::rocksdb_flushoptions_set_allow_write_stall(options, 1);
        ffi::rocksdb_flush(db.as_raw_ptr(), options, &raw mut error);
        ffi::rocksdb_flushoptions_destroy(options);
    }
    result(error)
}

/// A file that belongs to a database at one moment.
#[derive(Debug)]
pub(super) struct StorageFile {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) bytes: u64,
    /// Whether more is written to it: only its first `bytes` are of that moment.
    pub(super) grows: bool,
    /// What it held at that moment, where that may be replaced.
    pub(super) content: Option<Vec<u8>>,
    /// Of an SST file as it was written, where RocksDB knows it.
    pub(super) crc32c: Option<u32>,
}

/// The name under which RocksDB keeps the checksums that we have it compute (`table/options.rs`).
const CRC32C: &str = "FileChecksumCrc32c";

/// All files of the database as of one moment, without what is in the memtable. They stay what they
/// are only while deletions are held back.
pub(super) fn storage_files(db: &DB) -> Result<Vec<StorageFile>, Status> {
    let mut error: *mut c_char = ptr::null_mut();
    // SAFETY: the database is open as long as `db` is borrowed. The options are made here, used by
    // this one call, and destroyed once.
    let list = unsafe {
        let options = ffi::rocksdb_livefiles_storage_info_options_create();
        ffi::rocksdb_livefiles_storage_info_options_set_include_checksum_info(options, 1);
        ffi::rocksdb_livefiles_storage_info_options_set_wal_size_for_flush(options, u64::MAX);
        let list = ffi::rocksdb_get_livefiles_storage_info(db.as_raw_ptr(), options, &raw mut error);
        ffi::rocksdb_livefiles_storage_info_options_destroy(options);
        list
    };
    result(error)?;
    if list.is_null() {
        return Err(Status::from("Corruption: RocksDB gives no list of its files".to_owned()));
    }
    // SAFETY: the list is a copy of its own, which only this function knows; it is read at indexes
    // below its count, and destroyed once, after the last of them was read.
    unsafe {
        let count = ffi::rocksdb_livefiles_storage_info_count(list);
        let files = (0..count).map(|index| storage_file(list, index)).collect();
        ffi::rocksdb_livefiles_storage_info_destroy(list);
        Ok(files)
    }
}

/// # Safety
/// `list` is not destroyed, and `index` below its count.
unsafe fn storage_file(list: *const ffi::rocksdb_livefiles_storage_info_t, index: usize) -> StorageFile {
    // SAFETY: RocksDB gives strings with a NUL at the end, and the content with its length; all of
    // them live as long as the list. A checksum of this kind is a string of 4 bytes, which may be
    // NULs, and the one behind it is.
    unsafe {
        let text = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
        let mut length = 0;
        let content = ffi::rocksdb_livefiles_storage_info_replacement_contents(list, index, &raw mut length);
        let content = (length > 0 && !content.is_null())
            .then(|| std::slice::from_raw_parts(content.cast::<u8>(), length).to_vec());
        let kind = text(ffi::rocksdb_livefiles_storage_info_file_checksum_func_name(list, index));
        let crc32c = (kind == CRC32C).then(|| {
            let checksum = ffi::rocksdb_livefiles_storage_info_file_checksum(list, index);
            u32::from_be_bytes(checksum.cast::<[u8; 4]>().read())
        });
        StorageFile {
            name: text(ffi::rocksdb_livefiles_storage_info_relative_filename(list, index)),
            dir: PathBuf::from(text(ffi::rocksdb_livefiles_storage_info_directory(list, index))),
            bytes: ffi::rocksdb_livefiles_storage_info_size(list, index),
            grows: ffi::rocksdb_livefiles_storage_info_trim_to_size(list, index) != 0,
            content,
            crc32c,
        }
    }
}

/// Has RocksDB tell `trouble` of errors in its background, and of compactions that went well.
pub(super) fn listen(options: &mut Options, trouble: Arc<Trouble>) {
    unsafe extern "C" fn drop_state(state: *mut c_void) {
        // SAFETY: `state` is what `Arc::into_raw` gave below. RocksDB destroys its listener once.
        drop(unsafe { Arc::from_raw(state.cast_const().cast::<Trouble>()) });
    }
    unsafe extern "C" fn failed(state: *mut c_void, _reason: u32, status: *mut ffi::rocksdb_status_ptr_t) {
        let mut error: *mut c_char = ptr::null_mut();
        // SAFETY: `state` as above, borrowed; the listener outlives its calls. `status` is valid
        // during this one.
        let trouble = unsafe {
            ffi::rocksdb_status_ptr_get_error(status, &raw mut error);
            &*state.cast_const().cast::<Trouble>()
        };
        if let Err(status) = result(error) {
            trouble.begin(status);
        }
    }
    unsafe extern "C" fn compacted(
        state: *mut c_void,
        _db: *mut ffi::rocksdb_t,
        info: *const ffi::rocksdb_compactionjobinfo_t,
    ) {
        let mut error: *mut c_char = ptr::null_mut();
        // SAFETY: as above; `info` is valid during this call.
        let trouble = unsafe {
            ffi::rocksdb_compactionjobinfo_status(info, &raw mut error);
            &*state.cast_const().cast::<Trouble>()
        };
        if result(error).is_ok() {
            trouble.end();
        }
    }
    unsafe extern "C" fn flush(
        _: *mut c_void,
        _: *mut ffi::rocksdb_t,
        _: *const ffi::rocksdb_flushjobinfo_t,
    ) {
    }
    unsafe extern "C" fn compaction(
        _: *mut c_void,
        _: *mut ffi::rocksdb_t,
        _: *const ffi::rocksdb_compactionjobinfo_t,
    ) {
    }
    unsafe extern "C" fn part(_: *mut c_void, _: *const ffi::rocksdb_subcompactionjobinfo_t) {}
    unsafe extern "C" fn ingested(
        _: *mut c_void,
        _: *mut ffi::rocksdb_t,
        _: *const ffi::rocksdb_externalfileingestioninfo_t,
    ) {
    }
    unsafe extern "C" fn stall(_: *mut c_void, _: *const ffi::rocksdb_writestallinfo_t) {}
    unsafe extern "C" fn sealed(_: *mut c_void, _: *const ffi::rocksdb_memtableinfo_t) {}
    // SAFETY: RocksDB calls each of the functions with what its own header declares; there is one
    // for every event, because it does not ask. None of them unwinds. The options take the listener
    // over, and share it with the databases that are opened with them.
    unsafe {
        let state = Arc::into_raw(trouble).cast_mut().cast::<c_void>();
        let listener = ffi::rocksdb_eventlistener_create(
            state,
            Some(drop_state),
            Some(flush),
            Some(flush),
            Some(compaction),
            Some(compacted),
            Some(part),
            Some(part),
            Some(ingested),
            Some(failed),
            Some(stall),
            Some(sealed),
        );
        ffi::rocksdb_options_add_eventlistener(options.as_raw_ptr(), listener);
    }
}
