//! Many subtasks: what a checkpoint takes is counted in round trips and requests.

use std::collections::BTreeSet;

use super::*;

/// The objects that hold the deltas of a checkpoint, and how many references it has to them.
fn named(manifest: &Manifest) -> (BTreeSet<ObjectName>, usize) {
    let deltas = || manifest.checkpoint().unwrap().subtasks.iter().flat_map(|subtask| &subtask.deltas);
    (deltas().map(|delta| delta.object.clone()).collect(), deltas().count())
}

#[tokio::test]
async fn i5_a_checkpoint_takes_as_many_requests_whatever_the_number_of_subtasks() {
    for (subtasks, bytes) in [(2, 20 << 10), (64, 20 << 10), (256, 20 << 10), (256, 100 << 10)] {
        let mut process = Process::open(subtasks).await;
        for round in 0..3 {
            let Taken { report, round_trips, requests } = process.checkpoint(bytes).await;
            let what = format!("{subtasks} × {bytes}, round {round}: {round_trips}, {requests:?}");
            assert!(round_trips <= 3, "{what}");
            // Deltas that are sealed one after the other may go in as many objects as there are requests at a time,
            // before the others gather. How fast they are sealed says nothing.
            let sent = u64::from(subtasks) * bytes as u64;
            let most = u64::from(PARALLEL_DELTAS) + sent.div_ceil(MAX_OBJECT) + 1;
            assert!(requests.puts <= most, "{what}");
            assert_eq!(report.puts, requests.puts, "a shared request counts once: {what}");
            assert_eq!(requests.gets, 0, "{what}");
            assert!(report.bytes_after_trigger >= sent, "{what}");
            assert_eq!(report.bytes_after_trigger, requests.put_bytes, "{what}");
            process.settle().await;
        }
    }
}

#[tokio::test]
async fn i8_objects_of_many_subtasks_do_not_add_up_and_nothing_is_read_back() {
    let mut process = Process::open(64).await;
    let (mut most_objects, mut most_bytes) = (0, 0);
    for _ in 0..100 {
        // Less than travels inline, and more, in turns.
        process.checkpoint(2 << 10).await;
        let Taken { report, .. } = process.checkpoint(17 << 10).await;
        process.settle().await;
        let (objects, _) = named(&process.newest().await);
        most_objects = most_objects.max(objects.len());
        most_bytes = most_bytes.max(report.manifest_bytes);
    }
    // 122 MB: some 4 MiB and more in each, and a few small ones.
    assert!(most_objects < 50, "{most_objects} objects");
    assert!(most_bytes < 100_000, "a manifest of {most_bytes} bytes, without deltas in it");
    // Of 200 objects and manifests; so they were packed, and from memory.
    assert_eq!(process.packer.reads.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn i5_references_to_large_objects_of_many_subtasks_do_not_add_up() {
    let mut process = Process::open(32).await;
    let mut most = 0;
    for _ in 0..80 {
        process.checkpoint(70 << 10).await;
        process.settle().await;
        most = most.max(named(&process.newest().await).1);
    }
    assert!(most < 32 * 40, "{most} references of 32 subtasks");
    let (_, left) = named(&process.newest().await);
    assert!(left < 32 * 24, "{left} references after 80 deltas of each");
}

#[tokio::test]
async fn parts_of_bases_give_way_while_a_checkpoint_is_under_way() {
    let mut process = Process::open(1).await;
    assert!(!process.bases.gives_way());
    let (id, report) = process.trigger();
    for _ in 0..QUIET {
        tokio::task::yield_now().await;
    }
    assert!(process.bases.gives_way(), "the checkpoint has begun");
    process.cut_all(id, 10);
    let sealed = || process.stores.iter().all(Store::is_sealed);
    drive(&process.time, sealed, report).await.unwrap().unwrap();
    assert!(!process.bases.gives_way(), "it is durable");
}
