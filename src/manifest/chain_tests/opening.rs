//! Opening a chain: who may, and what is refused.

use super::*;

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
async fn an_open_does_not_look_for_a_phantom_for_ever() {
    let store = Scripted::new();
    store.list_phantoms(1000);
    let error = Chain::open(store.remote(1), OpenMode::CreateOrOpen, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    store.list_phantoms(0);
    let mut chain = open(&store.remote(2)).await;
    commit(&mut chain, 1).await.unwrap();
}
