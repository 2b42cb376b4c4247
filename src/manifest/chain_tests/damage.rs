//! Damaged and lost manifests.

use super::*;

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
