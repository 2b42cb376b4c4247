//! The chain over a store that answers as each test says.

mod commits;
mod damage;
mod opening;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::chain::{Chain, CommitDraft, Committed, Opened};
use super::format;
use super::inline::Inline;
use super::model::Manifest;
use super::open::OpenMode;
use super::read::{list_chain, read_kind, read_manifest, read_newest};
use super::samples::{checkpoint, data, delta, id, nonce, subtask};
use super::scripted::{Put, Scripted};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Epoch, Version};
use crate::key_group::MaxParallelism;
use crate::manifest::RecordKind;
use crate::remote::{Created, DataKind, ObjectName, Remote};

async fn open(remote: &Arc<Remote>) -> Chain {
    Chain::open(Arc::clone(remote), OpenMode::CreateOrOpen, None).await.unwrap().chain
}

async fn refused(remote: &Arc<Remote>, mode: OpenMode) -> Error {
    Chain::open(Arc::clone(remote), mode, None).await.map(|_| ()).unwrap_err()
}

/// Checkpoint `number`, which carries delta 1 of subtask 0 inline.
fn draft(chain: &Chain, number: u64, keep: usize) -> CommitDraft {
    let mut inline = Inline::new();
    let text = format!("delta of checkpoint {number}");
    let length = text.len() as u64;
    let offset = inline.push(Bytes::from(text));
    let here = ObjectName::manifest(chain.next_version());
    let record = checkpoint(
        id(chain.epoch().0, number),
        vec![subtask(None, vec![delta(here, offset, length, 1, number)])],
    );
    CommitDraft { record, inline, keep }
}

async fn commit(chain: &mut Chain, number: u64) -> Result<Committed> {
    let draft = draft(chain, number, 2);
    chain.commit(draft).await
}

async fn versions(remote: &Remote) -> Vec<u64> {
    list_chain(remote).await.unwrap().iter().map(|entry| entry.version.0).collect()
}

async fn all_objects(remote: &Remote) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ObjectName::FOLDERS {
        names.extend(remote.list(folder).await.unwrap().into_iter().map(|listed| listed.name));
    }
    names
}

async fn put(remote: &Remote, name: &ObjectName, bytes: impl Into<Bytes>) {
    assert!(matches!(remote.create(name, bytes.into()).await, Created::Created));
}

/// The inline delta of a manifest, found by its reference.
async fn inline_delta(remote: &Remote, manifest: &Manifest) -> String {
    let delta = &manifest.checkpoint().unwrap().subtasks[0].deltas[0];
    let bytes = remote.get_range(&delta.object, delta.offset..delta.offset + delta.length).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn what_was_committed_is_found_by_the_next_attempt() {
    let remote = Scripted::new().remote(1);
    let mut chain = open(&remote).await;
    assert_eq!((chain.epoch(), chain.next_version()), (Epoch(1), Version(2)));
    for number in 1..=3 {
        let committed = commit(&mut chain, number).await.unwrap();
        assert_eq!(committed.manifest.version, Version(number + 1));
        assert_eq!(committed.dropped.len(), usize::from(number == 3));
        assert!(committed.adopted.is_empty());
        let (stored, bytes) = read_manifest(&remote, committed.manifest.version).await.unwrap();
        assert_eq!((&stored, bytes.len() as u64), (&*committed.manifest, committed.bytes));
    }
    assert_eq!(chain.take_dropped().iter().map(|dropped| dropped.version).collect::<Vec<_>>(), [Version(2)]);

    let Opened { chain, checkpoints, .. } =
        Chain::open(Arc::clone(&remote), OpenMode::Existing, None).await.unwrap();
    assert_eq!(chain.epoch(), Epoch(5));
    let ids: Vec<_> = checkpoints.iter().map(|found| found.retained.id).collect();
    assert_eq!(ids, [id(1, 2), id(1, 3)]);
    let newest = &checkpoints[1].read(&remote).await.unwrap();
    assert_eq!(inline_delta(&remote, newest).await, "delta of checkpoint 3");
    assert_eq!(read_kind(&remote, Version(5)).await.unwrap(), Some(RecordKind::Open));
    assert_eq!(read_kind(&remote, Version(4)).await.unwrap(), Some(RecordKind::Checkpoint));
    assert_eq!(read_kind(&remote, Version(6)).await.unwrap(), None);
}

#[tokio::test]
async fn the_chain_works_in_a_local_directory() {
    let directory = tempfile::tempdir().unwrap();
    let url = directory.path().join("job").display().to_string();
    let (store, root) = crate::remote::open_url(&url, [], true).unwrap();
    let remote = Arc::new(Remote::new(store, root, crate::env::Env::default()));
    let mut first = open(&remote).await;
    commit(&mut first, 1).await.unwrap();
    let opens = (0..16).map(|_| {
        let remote = Arc::clone(&remote);
        tokio::spawn(async move { Chain::open(remote, OpenMode::Existing, None).await })
    });
    let mut won = 0;
    for open in futures::future::join_all(opens).await {
        if let Ok(mut opened) = open.unwrap() {
            assert_eq!(opened.checkpoints.last().unwrap().retained.id.epoch, Epoch(1));
            won += usize::from(commit(&mut opened.chain, 1).await.is_ok());
        }
    }
    assert_eq!(won, 1);
    assert_eq!(commit(&mut first, 2).await.unwrap_err().kind(), ErrorKind::Fenced);
}
