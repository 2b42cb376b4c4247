//! Messages that are lost, and processes that fail.

use super::*;

#[test]
fn i6_messages_that_are_lost_cost_time_and_nothing_else() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill(0..40, b"v");
    cluster.checkpoint().unwrap();
    for round in 0_u64..3 {
        cluster.fill_noise(0..40, round, 100 * round as usize);
        // The trigger, receipts, and whatever else.
        cluster.post.be_silent(true);
        let before = cluster.post.lost.load(Ordering::Relaxed);
        let pending = cluster.job.trigger("").unwrap();
        for store in &mut cluster.stores {
            store.cut(pending.id(), "").unwrap();
        }
        eventually("something is lost both ways", PATIENCE, || {
            cluster.post.lost.load(Ordering::Relaxed) >= before + 6
        });
        assert_eq!(cluster.job.due(), Some(pending.id()));
        cluster.post.be_silent(false);
        pending.wait().unwrap();
        // Without the word of the commit the members would hold what they have sent in receipts.
        eventually("the members hear of the commit", PATIENCE, || {
            cluster.members.iter().all(|member| {
                member.due().is_none() && member.stats().stores.iter().all(|store| store.held_bytes == 0)
            })
        });
    }
    let expected = all_of(&mut cluster);
    drop(cluster);
    assert!(all_of(&mut place.start(2, &[])) == expected);
}

#[test]
fn an_operator_at_a_member_finds_what_is_due_and_what_has_ended() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    let pending = cluster.job.trigger("").unwrap();
    let due = |cluster: &Cluster| cluster.stores.iter().map(alluvium::StateStore::due).collect::<Vec<_>>();
    eventually("all stores see it", PATIENCE, || due(&cluster).iter().all(|due| *due == Some(pending.id())));
    assert!(cluster.members.iter().all(|member| member.due() == Some(pending.id())));
    pending.abort();
    assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::Aborted);
    eventually("all stores see its end", PATIENCE, || due(&cluster).iter().all(Option::is_none));
    cluster.checkpoint().unwrap();
}

#[test]
fn a_checkpoint_that_is_late_names_the_subtasks_of_members_that_it_waits_for() {
    let place = Place::new();
    let late = |options: JobOptions| options.checkpoint_timeout(Duration::from_millis(500));
    let mut cluster = place.start_with(4, TWO, late);
    cluster.fill(0..40, b"v");
    cluster.checkpoint().unwrap();
    let pending = cluster.job.trigger("").unwrap();
    for store in &mut cluster.stores[..3] {
        store.cut(pending.id(), "").unwrap();
    }
    let error = pending.wait().unwrap_err();
    assert!(error.to_string().contains("1 of 4 subtasks have not cut: 3 (last for"), "{error}");
    // What was offered to it belongs to the next one.
    cluster.fill(0..4, b"w");
    cluster.checkpoint().unwrap();
    let expected = all_of(&mut cluster);
    drop(cluster);
    assert!(all_of(&mut place.start(4, TWO)) == expected);
}

#[test]
fn a_store_that_is_dropped_at_a_member_ends_the_next_checkpoint_and_the_attempt() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.checkpoint().unwrap();
    assert!(matches!(cluster.job.status().health(), Health::Well));
    drop(cluster.stores.pop());
    eventually("the committer hears of it", PATIENCE, || {
        cluster.job.health().is_err_and(|error| error.to_string().contains("subtask 3"))
    });
    let status = cluster.job.status();
    assert_eq!((status.subtasks[3].store, status.subtasks[3].owes), (StoreState::Dropped, Owes::Nothing));
    assert_eq!(cluster.job.trigger("").unwrap_err().kind(), ErrorKind::Closed);
    eventually("the members hear of the end", PATIENCE, || {
        cluster.members.iter().all(|member| member.health().is_err())
    });
}

#[test]
fn a_member_that_fails_ends_the_attempt_for_all() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill(0..40, b"v");
    let pending = cluster.job.trigger("").unwrap();
    // Its local directory is gone.
    let gone = cluster.members.remove(1);
    let stores: Vec<_> = cluster.stores.drain(2..).collect();
    drop(stores);
    drop(gone);
    let error = pending.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert!(cluster.job.health().is_err());
    eventually("the other member hears of the end", PATIENCE, || cluster.members[0].health().is_err());
}

#[test]
fn i4_a_damaged_message_is_an_error_and_nothing_else() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n", &noise(1, 300)] {
        assert_eq!(cluster.job.deliver(0, bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(cluster.members[0].deliver(bytes).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    cluster.checkpoint().unwrap();
}

#[test]
fn i6_a_member_goes_on_through_an_outage_of_the_store() {
    let place = Place::new();
    let mut cluster = place.start(4, TWO);
    cluster.fill(0..40, b"v");
    cluster.checkpoint().unwrap();
    place.0.store.rule(|call| if call.writes() && call.is_data() { Fault::Fail } else { Fault::Pass });
    let failed = Arc::new(AtomicU64::new(0));
    let pending = cluster.job.trigger("").unwrap();
    cluster.fill_noise(0..40, 9, 1000);
    for store in &mut cluster.stores {
        store.cut(pending.id(), "").unwrap();
    }
    let seen = Arc::clone(&failed);
    place.0.store.rule(move |call| {
        if !(call.writes() && call.is_data()) {
            return Fault::Pass;
        }
        seen.fetch_add(1, Ordering::Relaxed);
        Fault::Fail
    });
    eventually("uploads fail", PATIENCE, || failed.load(Ordering::Relaxed) > 4);
    place.0.store.heal();
    pending.wait().unwrap();
    let expected = all_of(&mut cluster);
    drop(cluster);
    assert!(all_of(&mut place.start(4, TWO)) == expected);
}
