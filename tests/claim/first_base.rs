//! The first base of the new job: what is copied, what is sent, what waits for it.

use super::*;

#[test]
fn within_one_store_the_store_copies_and_what_it_cannot_is_sent() {
    let is_sst = |call: &Call| call.path.ends_with(".sst");
    for copies_work in [true, false] {
        let world = World::new(CheckpointMode::Changelog);
        if !copies_work {
            world.store.rule(|call| if call.op == Op::Copy { Fault::Denied } else { Fault::Pass });
        }
        world.store.take_calls();
        let Opened { job, mut stores, .. } = world.start(&world.store, world.options());
        checkpoint(&job, &mut stores, "").unwrap();
        let calls = world.store.take_calls();
        let copied = calls.iter().filter(|call| call.op == Op::Copy && is_sst(call)).count();
        let sent = calls.iter().filter(|call| call.op == Op::Put && is_sst(call)).count();
        assert_eq!(copied, 2, "each subtask has one file from the source's base");
        if copies_work {
            assert!(sent <= 2, "only what the replay has made is sent: {sent}");
        } else {
            assert!(sent >= 2, "{sent}");
        }
        drop((job, stores));
        world.assert_independent(&world.store, &world.expected);
    }
}

#[derive(Debug, Default)]
struct Told(AtomicUsize);

impl CheckpointListener for Told {
    fn independent(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn i3_the_first_checkpoint_waits_for_the_copies_and_the_source_may_go_on_meanwhile() {
    let mut world = World::new(CheckpointMode::Changelog);
    let gate = Gate::closed();
    let held = gate.clone();
    world.store.rule(move |call| match call.op {
        Op::Copy | Op::Put if call.path.starts_with("b/data/") && call.path.ends_with(".sst") => {
            Fault::Hold(held.clone())
        }
        _ => Fault::Pass,
    });
    let told = Arc::new(Told::default());
    let listener = Arc::clone(&told) as Arc<dyn CheckpointListener>;
    let Opened { job, mut stores, .. } = world.start(&world.store, world.options().listener(listener));
    eventually("copies are under way", Duration::from_secs(20), || gate.waiting() > 0);
    put_any(&mut stores, "new", b"1");
    let pending = job.trigger("").unwrap();
    stores.iter_mut().for_each(|store| drop(store.cut(pending.id(), "").unwrap()));
    let at_cut = contents(&mut stores, "words");
    // Operators are not held up, and the source collects as it likes.
    for n in 0..500_u64 {
        put_any(&mut stores, &format!("later {n}"), &noise(n, 50));
    }
    let source = world.opened.as_mut().unwrap();
    for n in 0..12_u64 {
        for key in 0..100 {
            put_any(&mut source.stores, &format!("key {key}"), &noise(n * 100 + key, 100));
        }
        materialize(&source.job);
        checkpoint(&source.job, &mut source.stores, "").unwrap();
    }
    source.job.clone().close().unwrap();
    assert!(job.checkpoints().is_empty() && !job.is_independent());
    assert_eq!((world.pins(), told.0.load(Ordering::SeqCst)), (1, 0));
    gate.open();
    pending.wait().unwrap();
    assert!(job.is_independent());
    drop((job, stores));
    assert_eq!(told.0.load(Ordering::SeqCst), 1);
    world.delete_source();
    world.assert_independent(&world.store, &at_cut);
}

#[test]
fn i3_a_crash_before_the_first_checkpoint_leaves_nothing_that_the_next_attempt_does_not_collect() {
    let world = World::new(CheckpointMode::Changelog);
    let of_epoch = |epoch: u64| {
        let names = names_of(&dynamic(&world.store), "b");
        names.iter().filter(|name| name.starts_with(&format!("data/{epoch:020}/"))).count()
    };
    for attempt in 1..4 {
        let Opened { job, mut stores, .. } = world.start(&world.store, world.options());
        assert_eq!(job.epoch().0, attempt);
        assert!(contents(&mut stores, "words") == world.expected);
        job.settle(Duration::from_secs(30)).unwrap();
        assert!(of_epoch(attempt) >= 4, "the first base is there");
        assert_eq!(world.pins(), 1, "that of an earlier attempt is gone");
        // Crashes.
    }
    let Opened { job, mut stores, .. } = world.start(&world.store, world.options());
    checkpoint(&job, &mut stores, "").unwrap();
    eventually("orphans go", Duration::from_secs(20), || (1..4).all(|epoch| of_epoch(epoch) == 0));
    eventually("pins go", Duration::from_secs(20), || world.pins() == 0);
    drop((job, stores));
    world.assert_independent(&world.store, &world.expected);
}

#[test]
fn i6_an_outage_while_the_first_base_is_sent_costs_time_only() {
    let world = World::new(CheckpointMode::Changelog);
    world.other.rule(|call| if call.path.ends_with(".sst") { Fault::Fail } else { Fault::Pass });
    let Opened { job, mut stores, .. } =
        world.start(&world.other, world.options().checkpoint_timeout(Duration::from_millis(300)));
    for _ in 0..3 {
        let error = checkpoint(&job, &mut stores, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
    }
    job.health().unwrap();
    world.other.heal();
    eventually("a checkpoint completes", Duration::from_secs(30), || {
        checkpoint(&job, &mut stores, "").is_ok()
    });
    assert!(job.is_independent());
    drop((job, stores));
    world.assert_independent(&world.other, &world.expected);
}
