//! The chain over a store that answers as each test says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::chain::{Chain, CommitDraft, Committed, Opened};
use super::format::{self, Inline};
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
async fn a_commit_is_one_request() {
    let store = Scripted::new();
    let mut chain = open(&store.remote(1)).await;
    let before = store.requests();
    commit(&mut chain, 1).await.unwrap();
    assert_eq!(store.requests() - before, 1);
}

#[tokio::test]
async fn the_caller_says_whether_the_job_exists() {
    let remote = Scripted::new().remote(1);
    assert_eq!(refused(&remote, OpenMode::Existing).await.kind(), ErrorKind::NotFound);
    assert!(all_objects(&remote).await.is_empty(), "a mistyped URL leaves no trace");
    Chain::open(Arc::clone(&remote), OpenMode::Create, None).await.unwrap();
    let before = all_objects(&remote).await;
    assert_eq!(refused(&remote, OpenMode::Create).await.kind(), ErrorKind::AlreadyExists);
    assert_eq!(all_objects(&remote).await, before);
    Chain::open(Arc::clone(&remote), OpenMode::Existing, None).await.unwrap();
    Chain::open(Arc::clone(&remote), OpenMode::CreateOrOpen, None).await.unwrap();
    assert_eq!(versions(&remote).await, [1, 2, 3]);
}

#[tokio::test]
async fn max_parallelism_is_fixed_at_the_start() {
    let remote = Scripted::new().remote(1);
    let wish = |groups| Some(MaxParallelism::new(groups).unwrap());
    let open = |groups| Chain::open(Arc::clone(&remote), OpenMode::CreateOrOpen, groups);
    assert_eq!(open(wish(64)).await.unwrap().chain.max_parallelism().get(), 64);
    assert_eq!(open(None).await.unwrap().chain.max_parallelism().get(), 64);
    assert_eq!(open(wish(128)).await.map(|_| ()).unwrap_err().kind(), ErrorKind::Incompatible);
    assert_eq!(versions(&remote).await, [1, 2]);
}

#[tokio::test]
async fn a_place_of_something_else_is_left_alone() {
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt};

    for (name, kind) in [
        ("holiday.jpg", ErrorKind::ForeignData),
        ("photos/holiday.jpg", ErrorKind::ForeignData),
        ("data/numbers.csv", ErrorKind::ForeignData),
        ("manifest/latest", ErrorKind::ForeignData),
        (data(1, DataKind::Delta, 1).to_string().as_str(), ErrorKind::Corrupt),
    ] {
        let store = Scripted::new();
        let remote = store.remote(1);
        store.put(&Path::from(format!("jobs/a/{name}")), "x".into()).await.unwrap();
        for mode in [OpenMode::Create, OpenMode::Existing, OpenMode::CreateOrOpen] {
            let error = refused(&remote, mode).await;
            assert_eq!(error.kind(), kind, "{name}: {error}");
            assert!(name.starts_with(error.object_name().unwrap()), "{error}");
        }
        let left = store.list_with_delimiter(Some(&Path::from("jobs/a"))).await.unwrap();
        assert_eq!(left.objects.len() + left.common_prefixes.len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_leftover_probe_is_no_hindrance() {
    let remote = Scripted::new().remote(1);
    put(&remote, &ObjectName::probe(Version(1), nonce(1)), "x").await;
    open(&remote).await;
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    let store = Scripted::new();
    store.ignore_conditions();
    let remote = store.remote(1);
    assert_eq!(refused(&remote, OpenMode::CreateOrOpen).await.kind(), ErrorKind::UnsafeStore);
    assert!(versions(&remote).await.is_empty());
}

#[tokio::test]
async fn i2_an_earlier_attempt_is_fenced_for_good() {
    let store = Scripted::new();
    let mut first = open(&store.remote(1)).await;
    commit(&mut first, 1).await.unwrap();
    let remote = store.remote(2);
    let mut second = open(&remote).await;
    let error = commit(&mut first, 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("epoch 3"), "{error}");
    let before = store.requests();
    assert_eq!(commit(&mut first, 3).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(store.requests(), before, "a fenced attempt asks no more");
    assert_eq!(first.stopped().unwrap().kind(), ErrorKind::Fenced);
    commit(&mut second, 1).await.unwrap();
    assert_eq!(versions(&remote).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn i2_of_many_that_start_at_once_one_is_left() {
    let store = Scripted::new();
    let opens = (0..16).map(|seed| {
        let remote = store.remote(seed);
        tokio::spawn(async move { Chain::open(remote, OpenMode::CreateOrOpen, None).await })
    });
    let mut chains = Vec::new();
    for open in futures::future::join_all(opens).await {
        match open.unwrap() {
            Ok(opened) => chains.push(opened.chain),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Fenced | ErrorKind::StoreUnavailable), "{error}");
            }
        }
    }
    let commits =
        chains.into_iter().map(|mut chain| tokio::spawn(async move { commit(&mut chain, 1).await }));
    let results = futures::future::join_all(commits).await;
    let won: Vec<_> = results.into_iter().filter_map(|result| result.unwrap().ok()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(read_newest(&store.remote(99)).await.unwrap().as_ref(), Some(&*won[0].manifest));
}

#[tokio::test]
async fn a_lost_answer_is_no_verdict() {
    for answers in [
        vec![Put::AnswerLost],
        vec![Put::Lost],
        vec![Put::Lost, Put::AnswerLost],
        vec![Put::Late, Put::Works],
        vec![Put::Lost, Put::Late],
    ] {
        let store = Scripted::new();
        let remote = store.remote(1);
        let mut chain = open(&remote).await;
        store.script(answers.clone());
        let committed = commit(&mut chain, 1).await.unwrap();
        assert_eq!(committed.manifest.version, Version(2), "{answers:?}");
        store.deliver().await;
        commit(&mut chain, 2).await.unwrap();
        let (stored, _) = read_manifest(&remote, Version(2)).await.unwrap();
        assert_eq!(stored, *committed.manifest);
        assert_eq!(versions(&remote).await, [1, 2, 3]);
    }
}

#[tokio::test]
async fn an_open_survives_lost_answers_too() {
    for answers in [vec![Put::AnswerLost], vec![Put::Lost], vec![Put::Late, Put::Lost]] {
        let store = Scripted::new();
        store.script(answers);
        let mut chain = open(&store.remote(1)).await;
        store.deliver().await;
        commit(&mut chain, 1).await.unwrap();
        assert_eq!(chain.epoch(), Epoch(1));
    }
}

#[tokio::test]
async fn i6_a_commit_that_failed_is_made_up_for_by_the_next() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut chain = open(&remote).await;
    store.script([Put::Lost; 3]);
    assert_eq!(commit(&mut chain, 1).await.unwrap_err().kind(), ErrorKind::StoreUnavailable);
    let committed = commit(&mut chain, 2).await.unwrap();
    assert_eq!((committed.manifest.version, committed.adopted.len()), (Version(2), 0));
}

#[tokio::test]
async fn a_commit_that_was_applied_after_all_is_adopted() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut chain = open(&remote).await;
    store.script([Put::AnswerLost]);
    store.fail_reads(9);
    assert_eq!(commit(&mut chain, 1).await.unwrap_err().kind(), ErrorKind::StoreUnavailable);
    store.fail_reads(0);

    let drafted = draft(&chain, 2, 1);
    let committed = chain.commit(drafted).await.unwrap();
    assert_eq!(committed.adopted, [id(1, 1)]);
    assert_eq!(committed.manifest.version, Version(3));
    // Drafted for version 2, and moved with all that it carries.
    assert_eq!(inline_delta(&remote, &committed.manifest).await, "delta of checkpoint 2");
    let (first, _) = read_manifest(&remote, Version(2)).await.unwrap();
    assert_eq!(inline_delta(&remote, &first).await, "delta of checkpoint 1");
    assert_eq!(committed.manifest.parent, first.nonce);
    assert_eq!(committed.dropped.iter().map(|dropped| dropped.id).collect::<Vec<_>>(), [id(1, 1)]);
    assert_eq!(chain.take_dropped().len(), 1);
}

#[tokio::test]
async fn what_was_adopted_is_told_though_the_commit_that_found_out_fails() {
    let store = Scripted::new();
    let mut chain = open(&store.remote(1)).await;
    store.script([Put::AnswerLost]);
    store.fail_reads(9);
    commit(&mut chain, 1).await.unwrap_err();
    store.fail_reads(0);
    store.script([Put::Lost; 3]);
    commit(&mut chain, 2).await.unwrap_err();
    assert_eq!(commit(&mut chain, 3).await.unwrap().adopted, [id(1, 1)]);
    assert_eq!(chain.take_adopted(), [], "told once");
}

#[tokio::test]
async fn an_open_does_not_look_for_a_phantom_for_ever() {
    let store = Scripted::new();
    store.list_phantoms(1000);
    let error = Chain::open(store.remote(1), OpenMode::CreateOrOpen, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    store.list_phantoms(0);
    let mut chain = open(&store.remote(2)).await;
    commit(&mut chain, 1).await.unwrap();
}

#[tokio::test]
async fn a_request_that_arrives_after_it_was_given_up_is_adopted() {
    let store = Scripted::new();
    let mut chain = open(&store.remote(1)).await;
    store.script([Put::Late, Put::Lost, Put::Lost]);
    commit(&mut chain, 1).await.unwrap_err();
    store.script([Put::Lost, Put::Late, Put::Lost]);
    commit(&mut chain, 2).await.unwrap_err();
    store.deliver().await;
    let committed = commit(&mut chain, 3).await.unwrap();
    // Both were late, the first came first.
    assert_eq!(committed.adopted, [id(1, 1)]);
    assert_eq!(committed.manifest.version, Version(3));
}

#[tokio::test]
async fn a_commit_that_is_cancelled_is_resolved_by_the_next() {
    let store = Scripted::new();
    let mut chain = open(&store.remote(1)).await;
    store.script([Put::Hangs]);
    let drafted = draft(&chain, 1, 2);
    tokio::time::timeout(Duration::from_millis(20), chain.commit(drafted)).await.unwrap_err();
    assert_eq!(commit(&mut chain, 2).await.unwrap().adopted, [id(1, 1)]);
}

#[tokio::test]
async fn a_commit_has_a_deadline() {
    let store = Scripted::new();
    let mut chain = open(&store.remote(1)).await.with_deadline(Duration::from_millis(20));
    store.script([Put::Hangs]);
    let error = commit(&mut chain, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
    assert!(error.to_string().contains("20ms"), "{error}");
    assert_eq!(commit(&mut chain, 2).await.unwrap().adopted, [id(1, 1)]);
}

#[tokio::test]
async fn i2_a_success_after_doubt_in_a_hole_does_not_count() {
    let store = Scripted::new();
    let mut first = open(&store.remote(1)).await;
    store.script([Put::AnswerLost]);
    store.fail_reads(9);
    commit(&mut first, 1).await.unwrap_err();
    store.fail_reads(0);
    let remote = store.remote(2);
    let mut second = open(&remote).await;
    let drafted = draft(&second, 1, 1);
    second.commit(drafted).await.unwrap();
    // Garbage collection takes what the first had committed without knowing it.
    remote.delete(vec![ObjectName::manifest(Version(2))]).await.unwrap();
    assert_eq!(commit(&mut first, 2).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(read_newest(&remote).await.unwrap().unwrap().version, Version(4));
    commit(&mut second, 2).await.unwrap();
}

#[tokio::test]
async fn what_the_protocol_rules_out_stops_the_attempt() {
    let remote = Scripted::new().remote(1);
    let mut chain = open(&remote).await;
    let record = checkpoint(id(1, 7), vec![subtask(None, vec![])]);
    let mut other = chain.head().next(nonce(0xdd), record, Version(0));
    let mut inline = Inline::new();
    other.carry(chain.head(), None, &mut inline).unwrap();
    let bytes = format::encode(&other, &inline).unwrap();
    put(&remote, &ObjectName::manifest(Version(2)), bytes).await;
    assert_eq!(commit(&mut chain, 1).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(commit(&mut chain, 2).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn i4_a_damaged_head_is_an_error_that_names_it() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut chain = open(&remote).await;
    let committed = commit(&mut chain, 1).await.unwrap();
    let name = ObjectName::manifest(committed.manifest.version);
    let whole = remote.get(&name).await.unwrap();
    let mut flipped = whole.to_vec();
    flipped[40] ^= 1;
    let mut newer = whole.to_vec();
    newer[4] = 9;
    for (bytes, kind) in [
        (flipped, ErrorKind::Corrupt),
        (whole[..60].to_vec(), ErrorKind::Corrupt),
        (Vec::new(), ErrorKind::Corrupt),
        (newer, ErrorKind::UnsupportedVersion),
    ] {
        remote.delete(vec![name.clone()]).await.unwrap();
        put(&remote, &name, bytes).await;
        let error = refused(&remote, OpenMode::CreateOrOpen).await;
        assert_eq!((error.kind(), error.object_name()), (kind, Some(name.to_string().as_str())), "{error}");
        assert_eq!(versions(&remote).await, [1, 2], "nothing was written");
    }
    // A manifest under another's name.
    remote.delete(vec![name.clone()]).await.unwrap();
    let other = remote.get(&ObjectName::manifest(Version(1))).await.unwrap();
    put(&remote, &name, other).await;
    assert_eq!(refused(&remote, OpenMode::CreateOrOpen).await.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_damaged_or_lost_checkpoint_leaves_the_others() {
    let remote = Scripted::new().remote(1);
    let mut chain = open(&remote).await;
    for number in 1..=3 {
        let drafted = draft(&chain, number, 3);
        chain.commit(drafted).await.unwrap();
    }
    let names = [2, 3].map(|version| ObjectName::manifest(Version(version)));
    remote.delete(names.to_vec()).await.unwrap();
    put(&remote, &names[1], "something else").await;
    let opened = Chain::open(Arc::clone(&remote), OpenMode::Existing, None).await.unwrap();
    let mut kinds = Vec::new();
    for found in &opened.checkpoints {
        let read = found.read(&remote).await;
        kinds.push(read.map(|manifest| manifest.version).map_err(|error| error.kind()));
    }
    assert_eq!(kinds, [Err(ErrorKind::MissingObject), Err(ErrorKind::Corrupt), Ok(Version(4))]);
}

#[tokio::test]
async fn i3_a_lost_part_of_the_list_of_retained_checkpoints_stops_no_open_and_drops_nothing() {
    let remote = Scripted::new().remote(1);
    let mut chain = open(&remote).await;
    for number in 1..=40 {
        let drafted = draft(&chain, number, 100);
        chain.commit(drafted).await.unwrap();
    }
    // It carries the list of the first sixteen.
    remote.delete(vec![ObjectName::manifest(Version(18))]).await.unwrap();
    let Opened { mut chain, checkpoints, .. } =
        Chain::open(Arc::clone(&remote), OpenMode::Existing, None).await.unwrap();
    let known: Vec<_> = checkpoints.iter().map(|found| found.retained.version.0).collect();
    assert_eq!(known, (18..=41).collect::<Vec<_>>());
    let mut commit = async |number, keep| {
        let drafted = draft(&chain, number, keep);
        chain.commit(drafted).await.unwrap();
        (chain.head().retained.oldest().0, chain.roots().live().has_gaps())
    };
    assert_eq!(commit(1, 100).await, (0, true), "what cannot be named is not dropped");
    for number in 2..40 {
        assert_eq!(commit(number, 100).await, (0, true));
    }
    let (oldest, gaps) = commit(40, 5).await;
    assert!(oldest > 17 && !gaps, "by now it would have been dropped");
}

#[tokio::test]
async fn a_draft_that_goes_back_is_refused() {
    let remote = Scripted::new().remote(1);
    let mut chain = open(&remote).await;
    commit(&mut chain, 2).await.unwrap();
    assert_eq!(commit(&mut chain, 1).await.unwrap_err().kind(), ErrorKind::Internal);
    commit(&mut chain, 3).await.unwrap();
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
