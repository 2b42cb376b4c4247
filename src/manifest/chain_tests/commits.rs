//! Commits whose answers are lost, late or wrong.

use super::*;

#[tokio::test]
async fn a_commit_is_one_request() {
    let store = Scripted::new();
    let mut chain = open(&store.remote(1)).await;
    let before = store.requests();
    commit(&mut chain, 1).await.unwrap();
    assert_eq!(store.requests() - before, 1);
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
async fn a_draft_that_goes_back_is_refused() {
    let remote = Scripted::new().remote(1);
    let mut chain = open(&remote).await;
    commit(&mut chain, 2).await.unwrap();
    assert_eq!(commit(&mut chain, 1).await.unwrap_err().kind(), ErrorKind::Internal);
    commit(&mut chain, 3).await.unwrap();
}
