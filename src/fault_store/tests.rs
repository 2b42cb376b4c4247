use futures::{StreamExt, TryStreamExt, future, stream};
use object_store::memory::InMemory;
use object_store::{CopyOptions, PutMultipartOptions};

use super::*;

fn path(name: &str) -> Path {
    Path::from(name)
}

/// The names of all objects, behind the back of the faults.
async fn names(store: &FaultStore) -> Vec<String> {
    let listed: Vec<_> = store.inner.list(None).try_collect().await.unwrap();
    let mut names: Vec<_> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
    names.sort();
    names
}

async fn delete(store: &FaultStore, names: &[&str]) -> Vec<Result<Path>> {
    let paths: Vec<_> = names.iter().map(|name| Ok(path(name))).collect();
    store.delete_stream(stream::iter(paths).boxed()).collect().await
}

/// Each kind of request once, until one fails.
async fn work(store: &FaultStore) -> Result<()> {
    store.put(&path("a"), "a".into()).await?;
    let mut upload = store.put_multipart_opts(&path("b"), PutMultipartOptions::default()).await?;
    upload.put_part("bb".into()).await?;
    upload.complete().await?;
    store.copy_opts(&path("a"), &path("c"), CopyOptions::new()).await?;
    store.get(&path("c")).await?;
    store.list(None).try_collect::<Vec<_>>().await?;
    store.list_with_delimiter(None).await?;
    for answer in delete(store, &["a", "b"]).await {
        answer?;
    }
    let mut dropped = store.put_multipart_opts(&path("d"), PutMultipartOptions::default()).await?;
    dropped.abort().await
}

const WORK: [Op; 12] = [
    Op::Put,
    Op::Begin,
    Op::Part,
    Op::Complete,
    Op::Copy,
    Op::Get,
    Op::List,
    Op::List,
    Op::Delete,
    Op::Delete,
    Op::Begin,
    Op::Abort,
];

#[tokio::test]
async fn every_request_is_recorded_with_its_number() {
    let store = FaultStore::new(InMemory::new());
    work(&store).await.unwrap();
    let calls = store.take_calls();
    assert_eq!(calls.iter().map(|call| call.op).collect::<Vec<_>>(), WORK);
    assert!(calls.iter().map(|call| call.index).eq(0..WORK.len() as u64));
    let sent: Vec<_> = calls.iter().filter(|call| call.bytes > 0).map(|call| (call.op, call.bytes)).collect();
    assert_eq!(sent, [(Op::Put, 1), (Op::Part, 2), (Op::Complete, 2)]);
    store.get_range(&path("c"), 0..1).await.unwrap();
    let calls = store.calls();
    assert_eq!((calls.len(), calls[0].index, calls[0].range.clone()), (1, 12, Some(0..1)));
}

/// From one request on, before or after it is applied, the store is gone.
struct Crash {
    at: u64,
    applied: bool,
    over: bool,
}

impl FaultPolicy for Crash {
    fn before(&mut self, call: &Call) -> Fault {
        self.over |= call.index == self.at && !self.applied;
        if self.over { Fault::Fail } else { Fault::Pass }
    }

    fn after(&mut self, call: &Call) -> Answer {
        self.over |= call.index == self.at && self.applied;
        if self.over { Answer::Lost } else { Answer::Whole }
    }
}

#[tokio::test]
async fn a_policy_can_crash_at_each_request_before_and_after_it_is_applied() {
    let mut seen = Vec::new();
    for at in 0..WORK.len() as u64 {
        for applied in [false, true] {
            let store = FaultStore::new(InMemory::new());
            store.set_policy(Crash { at, applied, over: false });
            work(&store).await.unwrap_err();
            store.put(&path("later"), "x".into()).await.unwrap_err();
            seen.push(names(&store).await.join(" "));
        }
    }
    // A pair each: Put, Begin, Part, Complete, Copy, Get, List, List, Delete, Delete, Begin, Abort.
    let expected = [
        ["", "a"],
        ["a", "a"],
        ["a", "a"],
        ["a", "a b"],
        ["a b", "a b c"],
        ["a b c", "a b c"],
        ["a b c", "a b c"],
        ["a b c", "a b c"],
        ["a b c", "b c"],
        ["b c", "c"],
        ["c", "c"],
        ["c", "c"],
    ];
    // The second deletion of a bulk request is asked for after the first has failed, and fails as
    // well.
    assert_eq!(seen, expected.as_flattened());
}

#[tokio::test]
async fn plans_are_kept_in_order_and_an_outage_uses_none_up() {
    let store = FaultStore::new(InMemory::new());
    store.plan(Op::Put, Answer::Lost);
    store.plan(Op::Put, Fault::Denied);
    store.plan(Op::Get, Fault::Fail);
    store.set_outage(true);
    store.put(&path("a"), "a".into()).await.unwrap_err();
    assert_eq!(store.planned(), 3);
    store.set_outage(false);
    store.put(&path("a"), "a".into()).await.unwrap_err();
    let denied = store.put(&path("b"), "b".into()).await.unwrap_err();
    assert!(matches!(denied, Error::PermissionDenied { .. }), "{denied}");
    store.put(&path("c"), "c".into()).await.unwrap();
    assert_eq!((store.planned(), names(&store).await), (1, vec!["a".to_owned(), "c".to_owned()]));
}

#[tokio::test]
async fn a_plan_for_the_answer_leaves_the_policy_what_comes_before() {
    let (store, gate) = (FaultStore::new(InMemory::new()), Gate::closed());
    let held = gate.clone();
    store.rule(move |_| Fault::Hold(held.clone()));
    store.plan(Op::Put, Answer::Lost);
    let name = path("a");
    let mut put = Box::pin(store.put(&name, "a".into()));
    assert!(put.as_mut().now_or_never().is_none());
    assert_eq!((gate.waiting(), names(&store).await.len()), (1, 0));
    gate.open();
    put.await.unwrap_err();
    assert_eq!((store.planned(), names(&store).await.len()), (0, 1));
}

#[tokio::test]
async fn what_is_late_is_applied_on_delivery_and_meets_what_is_there_then() {
    let store = FaultStore::new(InMemory::new());
    let create = |name: &'static str| {
        let store = Arc::clone(&store);
        async move { store.put_opts(&path(name), "late".into(), PutMode::Create.into()).await }
    };
    store.put(&path("gone"), "x".into()).await.unwrap();
    (0..2).for_each(|_| store.plan(Op::Put, Fault::Late));
    store.plan(Op::Delete, Fault::Late);
    create("one").await.unwrap_err();
    create("two").await.unwrap_err();
    delete(&store, &["gone"]).await.pop().unwrap().unwrap_err();
    create("two").await.unwrap();
    assert_eq!(names(&store).await, ["gone", "two"]);
    assert_eq!(store.deliver().await, 2, "a create that finds its object has no effect");
    assert_eq!(names(&store).await, ["one", "two"]);
    assert_eq!(store.deliver().await, 0);
}

#[tokio::test]
async fn a_gate_holds_requests_and_answers_until_it_opens() {
    let store = FaultStore::new(InMemory::new());
    let [before, after] = [Gate::closed(), Gate::closed()];
    store.plan(Op::Put, Fault::Hold(before.clone()));
    store.plan(Op::Put, Answer::Hold(after.clone()));
    let (first, second) = (path("a"), path("b"));
    let mut first = Box::pin(store.put(&first, "a".into()));
    let mut second = Box::pin(store.put(&second, "b".into()));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    assert_eq!((before.waiting(), after.waiting(), names(&store).await), (1, 1, vec!["b".to_owned()]));
    before.open();
    first.await.unwrap();
    assert!(second.as_mut().now_or_never().is_none());
    after.open();
    second.await.unwrap();
    assert_eq!(names(&store).await, ["a", "b"]);
}

#[tokio::test]
async fn bodies_and_listings_arrive_as_planned() {
    let store = FaultStore::new(InMemory::new());
    let whole: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
    for name in ["a", "b"] {
        store.put(&path(name), whole.clone().into()).await.unwrap();
    }
    let long = [&whole[..], &whole[..2500]].concat();
    let cases =
        [(Answer::Short, whole[..2500].to_vec()), (Answer::Long, long), (Answer::Chunks, whole.clone())];
    for (answer, expected) in cases {
        store.plan(Op::Get, answer.clone());
        let bytes = store.get(&path("a")).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, expected, "{answer:?}");
    }
    for (answer, ends) in [(Answer::Cut, true), (Answer::Stall, false)] {
        store.plan(Op::Get, answer.clone());
        let mut body = store.get(&path("a")).await.unwrap().into_stream();
        assert_eq!(body.next().await.unwrap().unwrap().len(), 2500);
        assert_eq!(body.next().now_or_never().is_some(), ends, "{answer:?}");

        store.plan(Op::List, answer.clone());
        let mut listed = store.list(None);
        listed.next().await.unwrap().unwrap();
        assert_eq!(listed.next().now_or_never().map(|next| next.unwrap().is_err()), ends.then_some(true));

        store.plan(Op::List, answer.clone());
        let level = store.list_with_delimiter(None).now_or_never();
        assert_eq!(level.map(|answer| answer.is_err()), ends.then_some(true), "{answer:?}");
    }
    // An answer in one piece is lost, and its request is applied.
    store.plan(Op::Put, Answer::Cut);
    store.put(&path("c"), "c".into()).await.unwrap_err();

    for _ in 0..2 {
        store.plan(Op::List, Answer::listing(|objects| objects.retain(|meta| meta.location != path("b"))));
    }
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|meta| meta.location.as_ref()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(store.list_with_delimiter(None).await.unwrap().objects.len(), 2);
    assert_eq!(store.planned(), 0);
}

#[tokio::test]
async fn bytes_of_answers_count_until_they_are_dropped() {
    let store = FaultStore::new(InMemory::new());
    store.put(&path("a"), vec![7; 5000].into()).await.unwrap();
    let first = store.get(&path("a")).await.unwrap().bytes().await.unwrap();
    let second = store.get(&path("a")).await.unwrap().bytes().await.unwrap();
    assert_eq!(store.take_held(), (10_000, 10_000));
    drop(first);
    assert_eq!(store.take_held(), (5000, 10_000));
    drop(second);
    assert_eq!(store.take_held(), (0, 5000));
}

#[tokio::test]
async fn conditions_are_kept_or_broken_as_the_test_says() {
    for (conditions, second_succeeds, content) in [
        (Conditions::Honoured, false, "first"),
        (Conditions::Ignored, true, "second"),
        (Conditions::Racy, false, "first"),
        (Conditions::Lying, false, "second"),
    ] {
        let store = FaultStore::new(InMemory::new());
        store.set_conditions(conditions);
        let create = |text: &'static str| {
            let store = Arc::clone(&store);
            async move { store.put_opts(&path("a"), text.into(), PutMode::Create.into()).await.is_ok() }
        };
        assert!(create("first").await);
        assert_eq!(create("second").await, second_succeeds, "{conditions:?}");
        assert_eq!(store.get(&path("a")).await.unwrap().bytes().await.unwrap(), content, "{conditions:?}");
        if conditions == Conditions::Racy {
            store.delete(&path("a")).await.unwrap();
            assert_eq!(future::join(create("first"), create("second")).await, (true, true));
        }
    }
}
