//! Members of an earlier attempt, of another job, and twice.

use super::*;

/// The members of an attempt that was taken over, and the one that took over, all alive.
#[test]
fn i2_members_of_an_earlier_attempt_neither_commit_nor_disturb() {
    let place = Place::new();
    let mut old = place.start(4, TWO);
    old.fill(0..40, b"committed");
    old.checkpoint().unwrap();
    let expected = all_of(&mut old);
    // The new attempt has other directories: the old one's are locked.
    let mut new = place.beside().start(4, TWO);
    assert!(all_of(&mut new) == expected);
    // The old committer commits nothing, and its members hear of it.
    old.fill_noise(0..40, 1, 1000);
    let error = old.checkpoint().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    eventually("the old members hear of it", PATIENCE, || {
        old.members.iter().all(|member| member.health().is_err_and(|error| error.kind() == ErrorKind::Fenced))
    });
    new.fill(0..10, b"new");
    new.checkpoint().unwrap();
    let expected = all_of(&mut new);
    new.settle();
    drop((old, new));
    assert_intact(&place);
    assert!(all_of(&mut place.start(4, TWO)) == expected);
}

/// The old members' committer is gone; they write on, whatever they can, while the new attempt
/// commits and collects.
#[test]
fn i3_what_a_forgotten_member_writes_is_an_orphan_and_goes() {
    let place = Place::new();
    let mut old = place.start(4, TWO);
    old.fill_noise(0..40, 0, 500);
    old.checkpoint().unwrap();
    old.post.be_silent(true);
    let mut new = place.beside().start(4, TWO);
    for round in 1..4 {
        // More than a delta takes, so that there is something to upload.
        old.fill_noise(0..200, round, 8000);
        old.members.iter().for_each(|member| {
            // Fails once it has found out.
            let _ = member.settle(PATIENCE);
        });
        new.fill_noise(0..40, round + 100, 3000);
        new.checkpoint().unwrap();
        new.materialize();
        new.checkpoint().unwrap();
        new.settle();
        assert_intact(&place);
    }
    let epoch = format!("data/{:020}/", old.job.epoch().0);
    let orphans = |place: &Place| place.0.names().iter().filter(|name| name.starts_with(&epoch)).count();
    assert!(orphans(&place) > 0, "the old members have written");
    let expected = all_of(&mut new);
    drop((old, new));
    // The sweep of a later attempt takes all that no retained checkpoint needs.
    let mut last = place.start(4, TWO);
    assert!(all_of(&mut last) == expected);
    last.checkpoint().unwrap();
    last.materialize();
    last.checkpoint().unwrap();
    eventually("the orphans are gone", PATIENCE, || {
        last.fill(0..4, b"v");
        last.checkpoint().unwrap();
        last.settle();
        orphans(&place) == 0
    });
}

#[test]
fn i2_a_member_of_an_attempt_that_was_taken_over_does_not_open() {
    let place = Place::new();
    let options = || place.options().subtasks(2).members([0..2]);
    let Opened { job, mut assignments, .. } = place.0.open(options());
    let old = assignments.remove(0);
    drop(job);
    let Opened { job, assignments, .. } = place.0.open(options());
    let error = Member::open(&old, place.location(), place.member_options(0), drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    let opened = Member::open(&assignments[0], place.location(), place.member_options(0), drop).unwrap();
    assert_eq!((opened.member.epoch(), opened.member.number()), (job.epoch(), 0));
}

#[test]
fn a_member_writes_into_no_other_job() {
    let (place, other) = (Place::new(), Place::new());
    let Opened { assignments, .. } = place.0.open(place.options().subtasks(2).members([0..2]));
    let open = |location| Member::open(&assignments[0], location, other.member_options(0), drop).unwrap_err();
    let error = open(other.location());
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let _same_epoch = other.0.open(other.options().subtasks(2).members([0..2]));
    let before = other.0.names();
    let error = open(other.location());
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert_eq!(other.0.names(), before);
}

#[test]
fn i2_of_two_processes_with_one_assignment_only_the_first_counts() {
    let place = Place::new();
    let mut cluster = place.start(2, &[0..2]);
    cluster.fill(0..10, b"v");
    cluster.checkpoint().unwrap();
    let (to_job, from_second) = std::sync::mpsc::channel::<bytes::Bytes>();
    let own = MemberOptions::new(place.0.dir.path().join("second")).memory(16_000_000);
    let outbox = move |frame| drop(to_job.send(frame));
    let second = Member::open(&cluster.assignments[0], place.location(), own, outbox).unwrap();
    let (member, mut stores) = (second.member, second.stores);
    // It cuts for a checkpoint, and its receipts arrive first.
    let pending = cluster.job.trigger("").unwrap();
    for store in &mut stores {
        put(store, "not in this", b"job").unwrap_or_default();
        store.cut(pending.id(), "").unwrap().wait().unwrap();
    }
    for frame in from_second.try_iter() {
        cluster.job.deliver(0, &frame).unwrap();
    }
    for store in &mut cluster.stores {
        store.cut(pending.id(), "").unwrap();
    }
    pending.wait().unwrap();
    assert_eq!(all_of(&mut cluster).len(), 10);
    // What the committer says to the first tells the second.
    let (to_second, from_job) = std::sync::mpsc::channel::<bytes::Bytes>();
    cluster.job.connect(0, move |frame| drop(to_second.send(frame))).unwrap();
    let _pending = cluster.job.trigger("").unwrap();
    member.deliver(&from_job.recv_timeout(PATIENCE).unwrap()).unwrap();
    eventually("the second knows", PATIENCE, || {
        member.health().is_err_and(|error| error.kind() == ErrorKind::Fenced)
    });
    drop(cluster);
    let mut cluster = place.start(2, &[0..2]);
    assert_eq!(all_of(&mut cluster).len(), 10);
}
