//! Reads that take memory while the store does not answer.

use super::*;

/// What reads have renewed goes into the delta at the barrier, however little memory there is.
#[test]
fn i6_a_cut_does_not_wait_for_the_memory_that_reads_take() {
    let line = Line::new();
    let Opened { job, mut stores, .. } = line.open(line.options().checkpoint_timeout(LONG));
    let ttl = Ttl::new(Duration::from_secs(3600)).update(TtlUpdate::OnReadAndWrite);
    let map = stores[0].register(MapState::<u64, Vec<u8>>::descriptor("map").ttl(ttl)).unwrap();
    stores[0].set_key(&1_u64).unwrap();
    for n in 0..2_000 {
        map.put(&mut stores[0], &n, &noise(n, 1000)).unwrap();
    }
    checkpoint_at_last(&job, &mut stores, "all");
    job.settle(LONG).unwrap();

    let gate = Gate::closed();
    let held = gate.clone();
    line.store.rule(move |call| match call.op {
        Op::Put => Fault::Hold(held.clone()),
        _ => Fault::Pass,
    });
    let mut n = 0;
    while stores[0].try_reserve().is_ok() {
        n += 1;
        put(&mut stores[0], &format!("key {n}"), &noise(n, 1000)).unwrap();
    }
    stores[0].set_key(&1_u64).unwrap();
    // Less than a delta: beyond that a read hands over what has gathered, and waits for memory as a
    // write does.
    for n in 0..90 {
        assert_eq!(map.get(&stores[0], &n).unwrap(), Some(noise(n, 1000)));
    }
    let renewed = stores[0].stats().renewed_bytes;
    assert!(renewed > 80_000 && renewed < DELTA, "{renewed} bytes have gathered");
    let pending = job.trigger("").unwrap();
    let (told, cut) = mpsc::channel();
    std::thread::scope(|scope| {
        let (store, id) = (&mut stores[0], pending.id());
        scope.spawn(move || told.send(store.cut(id, "").map(drop)).unwrap());
        let outcome = cut.recv_timeout(LONG);
        line.store.heal();
        gate.open();
        outcome.expect("the cut waits for memory").unwrap();
    });
    assert_eq!(stores[0].stats().renewed_bytes, 0);
    pending.wait().unwrap();
    assert_eq!(map.get(&stores[0], &7).unwrap(), Some(noise(7, 1000)));
}

/// Reads hand over what they make young and wait for memory as writes do; cuts come in the midst of
/// it.
#[test]
fn i6_reads_that_make_young_and_cuts_wait_for_no_more_than_memory_and_lose_nothing() {
    const ENTRIES: u64 = 4_000;
    let (line, clock) = (Line::new(), ManualClock::at(1_000));
    let options = || line.options().checkpoint_timeout(LONG).env(clock.env());
    let descriptor = || {
        let ttl = Ttl::new(Duration::from_millis(100)).update(TtlUpdate::OnReadAndWrite);
        MapState::<u64, Vec<u8>>::descriptor("map").ttl(ttl)
    };
    let Opened { job, mut stores, .. } = line.open(options());
    let map = stores[0].register(descriptor()).unwrap();
    stores[0].set_key(&1_u64).unwrap();
    for n in 0..ENTRIES {
        map.put(&mut stores[0], &n, &noise(n, 1000)).unwrap();
    }
    checkpoint_at_last(&job, &mut stores, "all");
    job.settle(LONG).unwrap();

    // All of them are read shortly before they expire, while no upload gets through.
    clock.set(1_090);
    let gate = Gate::closed();
    let held = gate.clone();
    line.store.rule(move |call| if call.op == Op::Put { Fault::Hold(held.clone()) } else { Fault::Pass });
    let waits = || job.stats().memory.deltas >= job.stats().memory.deltas_limit;
    let (job_there, (done, outcome)) = (job.clone(), mpsc::channel());
    std::thread::spawn(move || {
        let mut pending = None;
        for n in 0..ENTRIES {
            assert_eq!(map.get(&stores[0], &n).unwrap(), Some(noise(n, 1000)), "{n}");
            let held = stores[0].stats().held_bytes;
            assert!(held < MEMORY / 4 + 4 * DELTA, "{held} bytes are held after {n} reads");
            // One before memory is full, one after it was, each with what reads have gathered.
            if n == 450 || n == ENTRIES - 250 {
                pending.take().map(PendingCheckpoint::wait).transpose().unwrap();
                let next = job_there.trigger("").unwrap();
                stores[0].cut(next.id(), "").unwrap();
                pending = Some(next);
            }
        }
        pending.take().map(PendingCheckpoint::wait).transpose().unwrap();
        // It holds the local directory.
        drop(job_there);
        done.send(stores).unwrap();
    });
    // Long enough for reads that wait for nothing to go far beyond it.
    for _ in 0..100 {
        eventually("reads fill the memory", LONG, waits);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(outcome.try_recv().is_err(), "they wait");
    line.store.heal();
    gate.open();
    let mut stores = outcome.recv_timeout(LONG).expect("reads and cuts wait for each other");
    assert!(job.stats().stores[0].blocked_writes > 0);
    assert_bounded(&job);
    checkpoint_at_last(&job, &mut stores, "young");
    drop((job, stores));

    let Opened { mut stores, .. } = line.open(options());
    let map = stores[0].register(descriptor()).unwrap();
    stores[0].set_key(&1_u64).unwrap();
    clock.set(1_189);
    let found: Vec<_> = map.iter(&stores[0]).unwrap().map(Result::unwrap).collect();
    assert!(found.iter().map(|(n, _)| *n).eq(0..ENTRIES), "{} of them are young", found.len());
    assert!(found.iter().all(|(n, value)| *value == noise(*n, 1000)));
    clock.set(1_190);
    assert!(map.is_empty(&stores[0]).unwrap());
}
