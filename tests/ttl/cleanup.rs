//! What has expired leaves the table, the changelog and the checkpoints.

use super::*;

/// What is there for a program without TTLs, which hides nothing.
fn on_disk(place: &ClockedJob) -> (usize, usize, usize) {
    let mut opened = place.open();
    let (value, list, map) =
        (register(&mut opened, value()), register(&mut opened, list()), register(&mut opened, map()));
    let store = &mut opened.stores[0];
    let (mut values, mut elements, mut fields) = (0, 0, 0);
    for group in store.range().groups() {
        values += value.keys::<u64>(store, group).unwrap().count();
        for key in list.keys::<u64>(store, group).unwrap() {
            store.set_key(&key.unwrap()).unwrap();
            elements += list.get(store).unwrap().len();
        }
        for key in map.keys::<u64>(store, group).unwrap() {
            store.set_key(&key.unwrap()).unwrap();
            fields += map.iter(store).unwrap().count();
        }
    }
    (values, elements, fields)
}

#[test]
fn compaction_removes_what_has_expired() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let mut opened = place.open();
        let (value, list, map) = (
            register(&mut opened, value().ttl(ttl())),
            register(&mut opened, list().ttl(ttl())),
            register(&mut opened, map().ttl(ttl())),
        );
        let forever = register(&mut opened, ValueState::<Vec<u8>>::descriptor("forever"));
        let timers = opened.stores[0].timer_service(TimerService::<u64>::descriptor("timers")).unwrap();
        let raw = opened.stores[0].state(&StateOptions::new("raw")).unwrap();
        let write = |opened: &mut Opened, keys: std::ops::Range<u64>| {
            let store = &mut opened.stores[0];
            for key in keys {
                store.set_key(&key).unwrap();
                value.put(store, &key).unwrap();
                list.append(store, &key).unwrap();
                map.put(store, "a", &key).unwrap();
                map.put(store, &format!("{key}"), &key).unwrap();
            }
        };
        write(&mut opened, 0..3_000);
        let store = &mut opened.stores[0];
        for key in 0..100_u64 {
            store.set_key(&key).unwrap();
            forever.put(store, &vec![1; 10]).unwrap();
            timers.register(store, TimeDomain::Event, 1, &()).unwrap();
            // Bytes that would be an expired cell.
            let group = store.group_of(&key.to_be_bytes());
            store.put(raw, group, &key.to_be_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0, 0, 7]).unwrap();
        }
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        opened.job.settle(Duration::from_secs(30)).unwrap();
        opened.job.compact().unwrap();
        let before = opened.stores[0].stats().table;
        assert!(before.keys > 12_000, "{before:?}");

        place.clock.set(1_005);
        write(&mut opened, 2_000..2_500);
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        opened.job.settle(Duration::from_secs(30)).unwrap();
        place.clock.set(1_010);
        opened.job.compact().unwrap();
        let after = opened.stores[0].stats().table;
        // 500 keys with 4 entries each, 300 that never expire, and the marker.
        assert!(after.keys < 2_400, "{after:?}");
        assert!(after.live_sst_bytes < before.live_sst_bytes / 3, "{before:?} {after:?}");

        let store = &mut opened.stores[0];
        for key in 0..100_u64 {
            store.set_key(&key).unwrap();
            assert!(forever.contains(store).unwrap());
            assert_eq!(
                timers.pop_due(store, TimeDomain::Event, 1).unwrap().map(|timer| timer.timestamp),
                Some(1)
            );
            let group = store.group_of(&key.to_be_bytes());
            assert!(store.get(raw, group, &key.to_be_bytes()).unwrap().is_some());
        }
        materialize(&opened.job);
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        drop(opened);
        // A list keeps the elements that live.
        assert_eq!(on_disk(&place), (500, 500, 1_000));
    }
}

/// Without `retain`, and whether it is read or not.
#[test]
fn a_list_that_is_always_appended_to_stops_growing() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let mut opened = place.open();
        let list = register(&mut opened, list().ttl(ttl()));
        for round in 0..20_u64 {
            place.clock.set(1_000 + round);
            let store = &mut opened.stores[0];
            for key in 0..10_u64 {
                store.set_key(&key).unwrap();
                list.append(store, &round).unwrap();
                if key == 0 {
                    let expected: Vec<_> = (round.saturating_sub(9)..=round).collect();
                    assert_eq!(list.get(store).unwrap(), expected);
                }
            }
            checkpoint(&opened.job, &mut opened.stores, "").unwrap();
            opened.job.settle(Duration::from_secs(30)).unwrap();
            if round % 5 == 4 {
                opened.job.compact().unwrap();
            }
        }
        materialize(&opened.job);
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        drop(opened);
        assert_eq!(
            on_disk(&place),
            (0, 100, 0),
            "{mode:?}: those of 10 milliseconds are there, and no others"
        );
    }
}

#[test]
fn lists_that_were_only_appended_to_leave_the_disk_in_one_compaction() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let mut opened = place.open();
        let list = register(&mut opened, ListState::<Vec<u8>>::descriptor("bytes").ttl(ttl()));
        let store = &mut opened.stores[0];
        for key in 0..200_u64 {
            store.set_key(&key).unwrap();
            for part in 0..5 {
                list.append(store, &noise(key * 5 + part, 500)).unwrap();
            }
        }
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        opened.job.settle(Duration::from_secs(30)).unwrap();
        place.clock.set(1_010);
        opened.job.compact().unwrap();
        let after = opened.stores[0].stats().table;
        assert!(after.live_sst_bytes < 20_000, "{mode:?}: {after:?}");
    }
}

#[test]
fn deltas_lose_what_has_expired_and_uncover_nothing() {
    let place = ClockedJob::new(CheckpointMode::Changelog);
    // Values without a time, which would never expire.
    let mut opened = place.open();
    let old = register(&mut opened, value());
    for key in 0..1_000_u64 {
        opened.stores[0].set_key(&key).unwrap();
        old.put(&mut opened.stores[0], &key).unwrap();
    }
    materialize(&opened.job);
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);

    let mut opened = place.open();
    let (value, list) = (register(&mut opened, value().ttl(ttl())), register(&mut opened, list().ttl(ttl())));
    let sealed = |opened: &mut Opened, now: u64| {
        let before = opened.stores[0].stats().sealed_bytes;
        let store = &mut opened.stores[0];
        for key in 0..1_000_u64 {
            store.set_key(&key).unwrap();
            value.put(store, &(u64::MAX - key)).unwrap();
            list.append(store, &key).unwrap();
        }
        place.clock.set(now);
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        opened.job.settle(Duration::from_secs(30)).unwrap();
        opened.stores[0].stats().sealed_bytes - before
    };
    let expired = sealed(&mut opened, 1_500);
    let fresh = sealed(&mut opened, 1_500);
    assert!(expired < fresh / 2, "{expired} bytes where all has expired, {fresh} where nothing has");
    drop(opened);
    assert_eq!(on_disk(&place), (1_000, 1_000, 0));

    // The same, with no younger values on top.
    place.clock.set(1_600);
    let mut opened = place.open();
    let value = register(&mut opened, self::value().ttl(ttl()));
    for key in 0..1_000_u64 {
        opened.stores[0].set_key(&key).unwrap();
        value.put(&mut opened.stores[0], &key).unwrap();
    }
    place.clock.set(1_700);
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);
    assert_eq!(on_disk(&place).0, 0, "the values below must not show through");
}

#[test]
fn after_expiry_compaction_and_a_base_on_demand_the_checkpoint_of_a_quiet_job_shrinks() {
    let job = ClockedJob::new(CheckpointMode::Changelog);
    let Opened { job: running, mut stores, .. } = job.open();
    let mut rng = StdRng::seed_from_u64(7);
    let values = ValueState::<Vec<u8>>::descriptor("large").ttl(ttl());
    let large = stores[0].register(values).unwrap();
    for key in 0..200_u64 {
        stores[0].set_key(&key).unwrap();
        // Nothing that compresses.
        large.put(&mut stores[0], &(0..5000).map(|_| rng.random()).collect()).unwrap();
    }
    materialize(&running);
    let before = checkpoint(&running, &mut stores, "full").unwrap().full_bytes;
    assert!(before > 1_000_000, "{before}");
    job.clock.advance(1_000);
    running.compact().unwrap();
    // Nothing was written since the last base.
    materialize(&running);
    let after = checkpoint(&running, &mut stores, "expired").unwrap().full_bytes;
    assert!(after < before / 20, "{after} of {before} bytes");
    drop((stores, running));
    let Opened { mut stores, .. } = job.open();
    let large = stores[0].register(ValueState::<Vec<u8>>::descriptor("large").ttl(ttl())).unwrap();
    stores[0].set_key(&7_u64).unwrap();
    assert_eq!(large.get(&stores[0]).unwrap(), None);
}
