//! What an upload does where the disk is not to be trusted.

use std::fs::{self, File};
use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::env::Env;
use crate::error::ErrorKind;
use crate::ids::{DeltaSeq, Epoch, Nonce, SubtaskIndex};
use crate::key_group::{KeyGroup, KeyGroupRange};
use crate::remote::faulty::{Fault, Faulty, Op};
use crate::remote::{Remote, RetryPolicy};

const RANGE: KeyGroupRange = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(3) };

/// The hash is known from a run that failed; what the next one reads from the disk is something else,
/// though size and time are the same.
#[tokio::test]
async fn i4_bytes_that_are_not_those_that_were_identified_make_no_base() {
    for size in [1000, 9 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        fs::write(&path, vec![1; size]).unwrap();
        let faulty = Faulty::new(InMemory::new());
        let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
        let remote = Remote::new(Arc::clone(&faulty) as _, "job".into(), Env::default()).with_retry(retry);
        let names = NameSource::new(Epoch(1), SubtaskIndex(0), Nonce([7; 16]));
        let uploader = Uploader {
            remote: Arc::new(remote),
            names: Arc::new(names),
            limiter: None,
            parallel: 1,
            parts: 1,
            sharers: 1,
            copies: None,
        };
        let known = Known::default();
        let upload = async || uploader.upload(dir.path(), RANGE, DeltaSeq(1), "", &known).await;

        faulty.plan(if size > 1000 { Op::Begin } else { Op::Put }, Fault::Before);
        assert_eq!(upload().await.unwrap_err().kind(), ErrorKind::StoreUnavailable);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let mut bytes = vec![1; size];
        bytes[size / 2] ^= 1;
        fs::write(&path, bytes).unwrap();
        File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        let error = upload().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
        assert!(error.to_string().contains("000001.sst"), "{error}");
        assert_eq!(known.len(), 0, "no base may refer to it");

        // Read anew, it is a file like any other.
        let uploaded = upload().await.unwrap();
        assert_eq!(uploaded.index.files[0].id, FileId::of_file(&path).unwrap());
    }
}
