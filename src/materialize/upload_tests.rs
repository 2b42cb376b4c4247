//! What an upload does where the disk is not to be trusted.

use std::fs::{self, File};
use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::env::Env;
use crate::error::ErrorKind;
use crate::fault_store::{Fault, FaultStore, Op};
use crate::ids::{DeltaSeq, Epoch, Nonce, SubtaskIndex};
use crate::key_group::{KeyGroup, KeyGroupRange};
use crate::remote::{DataKind, ObjectName, Remote, RetryPolicy};
use crate::table::TableFiles;

const RANGE: KeyGroupRange = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(3) };

/// The hash is known from a run that failed; what the next one reads from the disk is something
/// else, though size and time are the same.
#[tokio::test]
async fn i4_bytes_that_are_not_those_that_were_identified_make_no_base() {
    for size in [1000, 9 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        fs::write(&path, vec![1; size]).unwrap();
        let faulty = FaultStore::new(InMemory::new());
        let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
        let remote = Remote::new(Arc::clone(&faulty) as _, "job".into(), Env::default()).with_retry(retry);
        let names = NameSource::new(Epoch(1), SubtaskIndex(0), Nonce([7; 16]));
        let uploader = Uploader {
            remote: Arc::new(remote),
            names: Arc::new(names),
            traffic: None,
            parallel: 1,
            parts: 1,
            sharers: 1,
            copies: None,
        };
        let known = Known::default();
        let files = TableFiles::of_dir(dir.path());
        let upload = async || uploader.upload(&files, RANGE, DeltaSeq(1), "", &known).await;

        faulty.plan(if size > 1000 { Op::Begin } else { Op::Put }, Fault::Fail);
        assert_eq!(upload().await.unwrap_err().kind(), ErrorKind::StoreUnavailable);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let mut bytes = vec![1; size];
        bytes[size / 2] ^= 1;
        fs::write(&path, bytes).unwrap();
        File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        let error = upload().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("000001.sst"), "{error}");
        assert_eq!(known.len(), 0, "no base may refer to it");

        // Whatever the files are now: what was built from a database that has lost bytes is not to
        // be trusted.
        fs::write(&path, vec![1; size]).unwrap();
        assert_eq!(upload().await.unwrap_err().to_string(), error.to_string());
    }
}

#[tokio::test]
async fn i4_a_new_file_that_is_not_what_was_written_makes_no_base_and_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("000001.sst");
    fs::write(&path, vec![1; 1000]).unwrap();
    let files = TableFiles::of_dir(dir.path());
    let store = Arc::new(InMemory::new());
    let remote = Arc::new(Remote::new(Arc::clone(&store) as _, "job".into(), Env::default()));
    let uploader = Uploader {
        remote: Arc::clone(&remote),
        names: Arc::new(NameSource::new(Epoch(1), SubtaskIndex(0), Nonce([7; 16]))),
        traffic: None,
        parallel: 1,
        parts: 1,
        sharers: 1,
        copies: None,
    };
    let rotten: Vec<u8> = (0..1000).map(|at| if at == 700 { 3 } else { 1 }).collect();
    fs::write(&path, &rotten).unwrap();
    let known = Known::default();
    let error = uploader.upload(&files, RANGE, DeltaSeq(1), "", &known).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.object_name().unwrap().ends_with("000001.sst"), "{error}");
    assert!(error.to_string().contains("open the job again"), "{error}");
    assert_eq!(remote.counters().puts, 0);
    assert_eq!(known.damage().unwrap().to_string(), error.to_string());

    // A content that a base has already was checked when it came from there.
    let known = Known::default();
    known.begun(ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce([7; 16]), DataKind::Sst, 77));
    let object = ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce([7; 16]), DataKind::Sst, 77);
    assert!(known.uploaded(FileId::of_bytes(&rotten), object.clone()));
    let uploaded = uploader.upload(&files, RANGE, DeltaSeq(1), "", &known).await.unwrap();
    assert_eq!(uploaded.index.objects(), [object]);
}
