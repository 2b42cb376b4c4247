//! Reads that count as accesses.

use super::*;

#[test]
fn what_reads_have_renewed_is_counted_and_written_by_the_next_call_that_may() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let mut opened = place.open();
        let map = register(&mut opened, map().ttl(on_read()));
        let (job, store) = (opened.job.clone(), &mut opened.stores[0]);
        store.set_key(&1_u64).unwrap();
        let names: Vec<_> = (0..50).map(|n| format!("entry {n}")).collect();
        names.iter().for_each(|name| map.put(store, name, &1).unwrap());
        let touch = |store: &StateStore, time| {
            assert_eq!(store.stats().renewed_bytes, 0);
            place.clock.set(time);
            names.iter().for_each(|name| assert_eq!(map.get(store, name).unwrap(), Some(1)));
            let held = store.stats().renewed_bytes;
            assert!((50 * 20..50 * 60).contains(&held), "{held}");
            // The same moment again costs nothing.
            names.iter().for_each(|name| assert_eq!(map.get(store, name).unwrap(), Some(1)));
            assert_eq!(store.stats().renewed_bytes, held);
        };
        touch(store, 1_008);
        store.try_reserve().unwrap();
        touch(store, 1_016);
        let pending = job.trigger("").unwrap();
        store.cut(pending.id(), "").unwrap();
        pending.wait().unwrap();
        touch(store, 1_024);
        store.set_key(&2_u64).unwrap();
        assert_eq!(store.stats().renewed_bytes, 0);
        store.set_key(&1_u64).unwrap();
        place.clock.set(1_033);
        assert_eq!(entries(&map, store).len(), 50, "{mode:?}");
    }
}

#[test]
fn reads_count_where_they_are_to() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let mut opened = place.open();
        let (value, list, map, sum) = (
            register(&mut opened, value().ttl(on_read())),
            register(&mut opened, list().ttl(on_read())),
            register(&mut opened, map().ttl(on_read())),
            register(&mut opened, sum().ttl(on_read())),
        );
        let store = &mut opened.stores[0];
        store.set_key(&1_u64).unwrap();
        value.put(store, &7).unwrap();
        list.extend(store, [1, 2]).unwrap();
        map.put(store, "read", &1).unwrap();
        map.put(store, "seen", &2).unwrap();
        sum.add(store, 5).unwrap();
        let read = |store: &StateStore| {
            assert_eq!(value.get(store).unwrap(), Some(7));
            assert_eq!(list.get(store).unwrap(), [1, 2]);
            assert_eq!(map.get(store, "read").unwrap(), Some(1));
            assert_eq!(sum.get(store).unwrap(), Some(5));
        };
        // Scans and questions are no reads of an entry.
        let look = |store: &StateStore| (entries(&map, store).len(), map.contains(store, "seen").unwrap());

        place.clock.set(1_008);
        read(store);
        assert_eq!(look(store), (2, true));
        // Without a call in between that could write.
        place.clock.set(1_016);
        assert_eq!(look(store), (1, false));
        read(store);
        store.set_key(&2_u64).unwrap();
        place.clock.set(1_024);
        store.set_key(&1_u64).unwrap();
        read(store);
        // Nothing but the cut follows.
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        drop(opened);

        place.clock.set(1_033);
        let mut opened = place.open();
        let (value, list, map, sum) = (
            register(&mut opened, self::value().ttl(on_read())),
            register(&mut opened, self::list().ttl(on_read())),
            register(&mut opened, self::map().ttl(on_read())),
            register(&mut opened, self::sum().ttl(on_read())),
        );
        let store = &mut opened.stores[0];
        store.set_key(&1_u64).unwrap();
        assert_eq!(value.get(store).unwrap(), Some(7));
        assert_eq!(list.get(store).unwrap(), [1, 2]);
        assert_eq!(entries(&map, store), [("read".into(), 1)]);
        assert_eq!(sum.get(store).unwrap(), Some(5));
        // A write or a removal right after a read is what counts.
        value.put(store, &8).unwrap();
        assert_eq!(list.get(store).unwrap(), [1, 2]);
        list.clear(store).unwrap();
        assert_eq!(map.get(store, "read").unwrap(), Some(1));
        map.clear(store).unwrap();
        assert_eq!(value.get(store).unwrap(), Some(8));
        assert!(list.get(store).unwrap().is_empty() && map.is_empty(store).unwrap());
    }
}

#[test]
fn i6_what_reads_of_one_key_make_young_is_bounded_in_memory_and_all_of_it_stays() {
    const ENTRIES: u64 = 40_000;
    for mode in MODES {
        let job = ClockedJob::new(mode);
        let Opened { job: running, mut stores, .. } = job.open();
        let wide = || MapState::<u64, Vec<u8>>::descriptor("wide").ttl(on_read());
        let map = stores[0].register(wide()).unwrap();
        stores[0].set_key("one key").unwrap();
        for entry in 0..ENTRIES {
            map.put(&mut stores[0], &entry, &vec![7; 100]).unwrap();
        }
        for _ in 0..3 {
            job.clock.advance(8);
            let mut most = 0;
            for entry in 0..ENTRIES {
                assert!(map.get(&stores[0], &entry).unwrap().is_some(), "{entry} was read in time");
                most = most.max(stores[0].stats().renewed_bytes);
            }
            // A portion, and what the active delta knows: both are of at most a delta's size.
            assert!(most < 2_500_000, "{most}");
        }
        // Nothing has been written since but by reads.
        checkpoint(&running, &mut stores, "young").unwrap();
        drop((stores, running));
        let Opened { mut stores, .. } = job.open();
        let map = stores[0].register(wide()).unwrap();
        stores[0].set_key("one key").unwrap();
        job.clock.advance(8);
        assert_eq!(map.iter(&stores[0]).unwrap().map(Result::unwrap).count() as u64, ENTRIES);
        job.clock.advance(11);
        assert!(map.is_empty(&stores[0]).unwrap());
    }
}

/// What a map holds, with the time of each entry's last access.
type Young = BTreeMap<u64, (u8, u64)>;

#[test]
fn i1_what_reads_hand_over_stands_between_the_writes_around_it() {
    for seed in 0..12 {
        for mode in MODES {
            println!("seed {seed}, {mode:?}");
            let mut rng = StdRng::seed_from_u64(seed);
            let clock = ClockedJob::new(mode);
            let descriptor = || MapState::<u64, Vec<u8>>::descriptor("map").ttl(on_read());
            let (mut model, mut committed) = (Young::new(), Young::new());
            for _attempt in 0..3 {
                // Deltas of a few entries, so that portions are handed over all the time.
                let Opened { job: running, mut stores, .. } =
                    clock.open_with(|options| options.delta_bytes(4096));
                let store = &mut stores[0];
                let map = store.register(descriptor()).unwrap();
                store.set_key("key").unwrap();
                model.clone_from(&committed);
                for _ in 0..150 {
                    let now = clock.now();
                    let (entry, byte) = (rng.random_range(0..60_u64), rng.random());
                    model.retain(|_, (_, read)| now < *read + 10);
                    match rng.random_range(0..20) {
                        0..8 => {
                            map.put(&mut stores[0], &entry, &vec![byte; 150]).unwrap();
                            model.insert(entry, (byte, now));
                        }
                        8..10 => {
                            map.remove(&mut stores[0], &entry).unwrap();
                            model.remove(&entry);
                        }
                        10..13 => {
                            let expected = model.get_mut(&entry).map(|(byte, read)| {
                                *read = now;
                                vec![*byte; 150]
                            });
                            assert_eq!(map.get(&stores[0], &entry).unwrap(), expected);
                        }
                        13 => {
                            for (entry, (byte, read)) in &mut model {
                                assert_eq!(map.get(&stores[0], entry).unwrap(), Some(vec![*byte; 150]));
                                *read = now;
                            }
                        }
                        14..16 => {
                            let all = map.iter(&stores[0]).unwrap().map(Result::unwrap);
                            let all: Vec<_> = all.map(|(entry, value)| (entry, value[0])).collect();
                            let expected: Vec<_> =
                                model.iter().map(|(entry, (byte, _))| (*entry, *byte)).collect();
                            assert_eq!(all, expected);
                        }
                        16..18 => clock.clock.advance(rng.random_range(0..4)),
                        18 => stores[0].set_key("key").unwrap(),
                        _ => {
                            checkpoint(&running, &mut stores, "").unwrap();
                            committed.clone_from(&model);
                        }
                    }
                }
            }
        }
    }
}
