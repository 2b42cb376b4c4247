//! What works in one process works with members.

use super::*;

#[test]
fn i9_state_moves_between_any_numbers_of_members() {
    let place = Place::new();
    let mut expected = None;
    let layouts: &[(u32, &[Range<u32>])] = &[
        (4, TWO),
        (4, TWO),
        (3, &[1..3]),
        (2, &[]),
        (6, &[0..2, 2..3, 3..6]),
        (4, &[2..3, 0..2]),
        (1, &[0..1]),
    ];
    for (attempt, (subtasks, members)) in layouts.iter().enumerate() {
        let mut cluster = place.start(*subtasks, members);
        let found = all_of(&mut cluster);
        assert!(expected.is_none_or(|expected| found == expected), "attempt {attempt}");
        let attempt = attempt as u32;
        cluster.fill(0..40, format!("of attempt {attempt}").as_bytes());
        // Large enough for objects of their own.
        cluster.fill_noise(100 * attempt..100 * attempt + 4, attempt.into(), 3000);
        cluster.checkpoint().unwrap();
        if attempt.is_multiple_of(2) {
            cluster.materialize();
        }
        cluster.fill(30..50, b"after a base");
        let report = cluster.checkpoint().unwrap();
        assert_eq!(cluster.job.checkpoints().last().map(|checkpoint| checkpoint.id), Some(report.id));
        expected = Some(all_of(&mut cluster));
        cluster.fill(0..1000, b"in no checkpoint");
        drop(cluster);
        assert_intact(&place);
    }
}

#[test]
fn i1_every_process_learns_what_each_subtask_gave_to_its_cut() {
    let place = Place::new();
    let mut cluster = place.start(3, &[1..3]);
    cluster.fill(0..20, b"v");
    cluster.checkpoint().unwrap();
    drop(cluster);
    let options = place.options().subtasks(3).members([1..3]);
    let Opened { stores, metadata, subtask_metadata, assignments, .. } = place.0.open(options);
    assert_eq!(stores[0].restored_metadata(), Some(&b"of 0"[..]));
    assert_eq!(metadata.as_deref(), Some(&b"coordinator"[..]));
    let opened = Member::open(&assignments[0], place.location(), place.member_options(0), drop).unwrap();
    let of = |store: &alluvium::StateStore| store.restored_metadata().map(<[u8]>::to_vec);
    assert_eq!(
        opened.stores.iter().map(of).collect::<Vec<_>>(),
        [1, 2].map(|n| Some(format!("of {n}").into()))
    );
    assert_eq!((opened.metadata, opened.subtask_metadata), (metadata, subtask_metadata));
}

#[test]
fn i5_small_tails_travel_in_the_receipts_and_the_checkpoint_is_one_put() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill(0..20, b"small");
    cluster.checkpoint().unwrap();
    place.0.store.take_calls();
    for _ in 0..3 {
        cluster.fill(0..20, b"small");
        let report = cluster.checkpoint().unwrap();
        assert_eq!(report.puts, 1);
        assert_eq!(report.bytes_after_trigger, report.manifest_bytes);
    }
    let calls = place.0.store.take_calls();
    let puts: Vec<_> = calls.iter().filter(|call| call.writes() && call.op != Op::Delete).collect();
    assert!(puts.len() == 3 && puts.iter().all(|call| call.is_manifest_put()), "{puts:?}");
}

#[test]
fn i5_a_member_puts_its_own_large_deltas_as_one_object_for_all_its_subtasks() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill(0..4, b"v");
    cluster.checkpoint().unwrap();
    place.0.store.take_calls();
    let before: Vec<_> = cluster.members.iter().map(|member| member.stats().remote.puts).collect();
    let pending = cluster.job.trigger("").unwrap();
    cluster.fill_noise(0..40, 7, 1000);
    for store in &mut cluster.stores {
        store.cut(pending.id(), "").unwrap();
    }
    let report = pending.wait().unwrap();
    let data = place.0.store.take_calls().into_iter().filter(|call| call.writes() && call.is_data()).count();
    // Two that are cut one after the other may go apart, the second when the first is under way.
    assert!((2..=4).contains(&data), "{data} objects");
    for (member, before) in cluster.members.iter().zip(before) {
        assert!(member.stats().remote.puts > before, "each has put its own");
    }
    assert_eq!(report.puts, data as u64 + 1, "what the members have put is in the report");
    assert!(report.delta_bytes >= 40_000);
}

#[test]
fn i8_a_member_restores_only_what_its_ranges_overlap_and_takes_files_from_its_own_disk() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill_noise(0..400, 3, 2000);
    cluster.checkpoint().unwrap();
    cluster.materialize();
    cluster.checkpoint().unwrap();
    drop(cluster);
    let cluster = place.start(4, TWO);
    let local: u64 = cluster.restored.iter().map(|report| report.bytes_reused).sum();
    let fetched =
        |cluster: &Cluster| cluster.restored[1..].iter().map(|one| one.bytes_downloaded).sum::<u64>();
    assert!(local > 500_000 && fetched(&cluster) < local / 10, "{:?}", cluster.restored);
    assert_eq!(cluster.restored[0].bytes_downloaded, 0, "the committer holds nothing");
    drop(cluster);
    for member in 0..2 {
        std::fs::remove_dir_all(place.dir(member)).unwrap();
    }
    let mut cluster = place.start(4, TWO);
    let all = fetched(&cluster);
    assert!(all > local * 9 / 10, "{all} of {local}");
    for report in &cluster.restored[1..] {
        assert!(report.bytes_downloaded < all * 2 / 3, "{} of {all}", report.bytes_downloaded);
    }
    assert_eq!(all_of(&mut cluster).len(), 400);
}

#[test]
fn native_checkpoints_are_as_incremental_as_in_one_process() {
    let place = Place::new();
    let native = |options: JobOptions| options.mode(CheckpointMode::NativeIncremental);
    let mut cluster = place.start_with(4, TWO, native);
    cluster.fill_noise(0..400, 1, 5000);
    let full = cluster.checkpoint().unwrap().sst_bytes;
    cluster.fill(0..4, b"few");
    let few = cluster.checkpoint().unwrap().sst_bytes;
    assert!(full > 2_000_000 && few < full / 10, "{few} of {full}");
    let expected = all_of(&mut cluster);
    drop(cluster);
    let mut cluster = place.start_with(2, &[1..2], native);
    assert!(all_of(&mut cluster) == expected);
    cluster.checkpoint().unwrap();
    assert_intact(&place);
}

#[test]
fn a_savepoint_is_cut_by_all_members_and_can_be_gone_back_to() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill(0..40, b"saved");
    let pending = cluster.job.savepoint("kept", "").unwrap();
    for store in &mut cluster.stores {
        store.cut(pending.id(), "").unwrap();
    }
    let id = pending.wait().unwrap().id;
    let expected = all_of(&mut cluster);
    for round in 0..6 {
        cluster.fill(0..40, format!("later {round}").as_bytes());
        cluster.checkpoint().unwrap();
        cluster.materialize();
    }
    drop(cluster);
    let back = |options: JobOptions| options.restore_from(RestoreFrom::Savepoint("kept".into()));
    let mut cluster = place.start_with(3, &[0..1, 1..2], back);
    assert!(cluster.restored.iter().all(|report| report.checkpoint == Some(id)), "{:?}", cluster.restored);
    assert!(all_of(&mut cluster) == expected);
    cluster.checkpoint().unwrap();
    drop(cluster);
    assert!(all_of(&mut place.start(3, &[0..1, 1..2])) == expected);
}

#[test]
fn a_reader_reads_a_checkpoint_while_members_go_on() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill(0..40, b"read");
    let id = cluster.checkpoint().unwrap().id;
    let own = ReaderOptions::new().dir(place.0.dir.path().join("reader")).memory(16_000_000);
    let reader = CheckpointReader::open(place.0.url(), &RestoreFrom::Latest, own).unwrap();
    for round in 0..4 {
        cluster.fill_noise(0..40, round, 500);
        cluster.checkpoint().unwrap();
        cluster.materialize();
    }
    assert_eq!(reader.checkpoint(), id);
    let values: Vec<_> = reader.scan("words", b"").unwrap().map(|entry| entry.unwrap().2).collect();
    assert!(values.len() == 40 && values.iter().all(|value| value == b"read"), "{values:?}");
    reader.close().unwrap();
}

#[test]
fn i8_members_pack_what_they_wrote() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    for round in 0..60_u64 {
        cluster.fill(0..40, format!("small {round}").as_bytes());
        if round.is_multiple_of(3) {
            cluster.fill_noise(0..8, round, 2000);
        }
        cluster.checkpoint().unwrap();
        cluster.settle();
    }
    let inspection = inspect(place.0.url()).unwrap();
    let newest = inspection.records.iter().rev().find_map(|record| record.checkpoint.as_ref()).unwrap();
    // 60 manifests and 20 objects or more, had nobody packed.
    for subtask in &newest.subtasks {
        assert!((1..=40).contains(&subtask.deltas), "{subtask:?}");
    }
    let live = inspection.live_objects;
    assert!(live < 50, "{live} objects, {:?}", place.0.names());
    assert!(place.0.names().iter().any(|name| name.ends_with(".pack")));
    let expected = all_of(&mut cluster);
    drop(cluster);
    assert!(all_of(&mut place.start(4, TWO)) == expected);
}

#[test]
fn i3_what_members_have_retired_is_collected_and_nothing_else() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill_noise(0..100, 0, 300);
    let mut most = 0;
    for round in 1..12 {
        cluster.fill_noise(0..100, round, 300);
        cluster.checkpoint().unwrap();
        cluster.materialize();
        cluster.checkpoint().unwrap();
        cluster.settle();
        if round >= 4 {
            most = most.max(place.0.names().len());
        }
    }
    let expected = all_of(&mut cluster);
    cluster.job.clone().close().unwrap();
    eventually("members hear of the end", PATIENCE, || {
        cluster
            .members
            .iter()
            .all(|member| member.health().is_err_and(|error| error.kind() == ErrorKind::Closed))
    });
    drop(cluster);
    // Each round makes 4 bases of a file and an index, deltas and two manifests. Two checkpoints are retained.
    let left = place.0.names();
    assert!(left.len() < 60, "{} objects: {left:?}", left.len());
    assert_intact(&place);
    assert!(all_of(&mut place.start(4, TWO)) == expected);
}

#[test]
fn members_cut_early_ahead_of_an_announced_trigger() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill(0..4, b"v");
    cluster.checkpoint().unwrap();
    let sealed = |cluster: &Cluster| {
        let stores = cluster.members.iter().flat_map(|member| member.stats().stores);
        stores.map(|store| store.deltas_sealed).sum::<u64>()
    };
    let before = sealed(&cluster);
    cluster.fill_noise(0..100, 5, 500);
    assert_eq!(sealed(&cluster), before, "nothing cuts by itself");
    cluster.job.expect_trigger(Duration::from_millis(200));
    eventually("a write after the call cuts", PATIENCE, || {
        cluster.fill(0..4, b"v");
        sealed(&cluster) > before
    });
}

#[test]
fn i6_a_member_stays_within_its_memory_whether_or_not_anything_is_committed() {
    let place = Place::new();
    let mut cluster = place.start(2, &[0..2]);
    let member = cluster.members[0].clone();
    // What is written is many times what the deltas may hold. No checkpoint ever comes.
    let limit = member.stats().memory.deltas_limit;
    let mut written = 0;
    while written < 8 * limit {
        cluster.fill_noise(0..50, written, 4000);
        written += 200_000;
        let held = member.stats().memory.deltas;
        assert!(held <= limit + 3_000_000, "{held} bytes of {limit}");
    }
    // A checkpoint that is cut and not decided, by a committer that is not heard of, holds back no write.
    let pending = cluster.job.trigger("").unwrap();
    cluster.post.be_silent(true);
    for store in &mut cluster.stores {
        store.cut(pending.id(), "").unwrap();
    }
    while written < 12 * limit {
        cluster.fill_noise(0..50, written, 4000);
        written += 200_000;
    }
    cluster.post.be_silent(false);
    pending.wait().unwrap();
}

#[test]
fn a_store_that_has_finished_at_a_member_is_not_waited_for() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill(0..40, b"v");
    cluster.stores.remove(3).finish("its end").unwrap();
    for _ in 0..3 {
        cluster.put_first(b"v");
        cluster.checkpoint().unwrap();
    }
    // In the middle of a checkpoint, too.
    let pending = cluster.job.trigger("").unwrap();
    cluster.stores.remove(2).finish("its end").unwrap();
    for store in &mut cluster.stores {
        store.cut(pending.id(), "").unwrap();
    }
    pending.wait().unwrap();
    eventually("the committer knows that they have finished", PATIENCE, || {
        let stores: Vec<_> = cluster.job.status().subtasks.iter().map(|subtask| subtask.store).collect();
        stores == [StoreState::InUse, StoreState::InUse, StoreState::Finished, StoreState::Finished]
    });
    drop(cluster);
    let mut cluster = place.start(4, TWO);
    assert_eq!(all_of(&mut cluster).len(), 41);
    assert_eq!(cluster.stores[3].restored_metadata(), Some(&b"its end"[..]));
}

#[test]
fn a_job_that_needs_another_one_has_no_members_until_its_first_checkpoint() {
    let (place, other) = (Place::new(), StoredJob::new());
    let Opened { job, mut stores, .. } = other.open(other.options_in("local"));
    put_any(&mut stores, "taken", b"over");
    checkpoint(&job, &mut stores, "").unwrap();
    let source = || SourceJob::new(other.url(), RestoreFrom::Latest);
    let with_members = || place.options().subtasks(2).members([0..1]).start_from(source());
    let error = place.0.try_open(with_members()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("without members"), "{error}");
    assert!(place.0.names().is_empty(), "nothing was touched");
    let Opened { job, mut stores, .. } = place.0.open(place.options().subtasks(2).start_from(source()));
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    drop(stores);
    let mut cluster = place.start_with(2, &[0..1], |options| options.start_from(source()));
    assert_eq!(all_of(&mut cluster).len(), 1);
    cluster.checkpoint().unwrap();
}

#[test]
fn members_that_make_no_sense_are_refused_before_anything_happens() {
    let place = Place::new();
    for members in [vec![0..0], vec![1..5], vec![0..2, 1..3]] {
        let error = place.0.try_open(place.options().subtasks(4).members(members)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    assert!(place.0.names().is_empty());
    let cluster = place.start(2, &[0..1]);
    let error = cluster.job.deliver(1, b"").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert_eq!(cluster.job.connect(1, drop).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
