//! What has expired is hidden from readers.

use super::*;

#[test]
fn what_has_expired_is_hidden_by_the_descriptor_and_the_readers_clock() {
    let ttl = Ttl::new(Duration::from_millis(100)).update(TtlUpdate::OnReadAndWrite);
    for mode in MODES {
        let job = ClockedJob::new(mode);
        let mut opened = job.open();
        let store = &mut opened.stores[0];
        let clicks = store.register(clicks().ttl(ttl)).unwrap();
        let (visits, routes) =
            (store.register(visits().ttl(ttl)).unwrap(), store.register(routes().ttl(ttl)).unwrap());
        for (key, millis) in [(1_u32, 1_000), (2, 1_050)] {
            job.clock.set(millis);
            store.set_key(&key).unwrap();
            clicks.put(store, &u64::from(key)).unwrap();
            visits.append(store, &"a".to_owned()).unwrap();
            routes.put(store, "a", &key).unwrap();
        }
        store.set_key(&1_u32).unwrap();
        visits.append(store, &"b".to_owned()).unwrap();
        routes.put(store, "b", &1).unwrap();
        let pending = opened.job.trigger("").unwrap();
        opened.stores[0].cut(pending.id(), "").unwrap();
        pending.wait().unwrap();

        let reader = job.read();
        let state = (reader.state(clicks_with(ttl)).unwrap(), reader.state(visits_with(ttl)).unwrap());
        let map = reader.state(self::routes().ttl(ttl)).unwrap();
        let seen = || {
            (
                all(state.0.keys::<u32>().unwrap()),
                all(state.0.entries::<u32>().unwrap()).len(),
                state.1.get(&1_u32).unwrap(),
                all(map.iter(&1_u32).unwrap()).len(),
            )
        };
        let both = vec!["a".to_owned(), "b".to_owned()];
        job.clock.set(1_099);
        for _ in 0..2 {
            // Reading makes nothing young.
            let (keys, entries, list, map) = seen();
            assert_eq!((keys.len(), entries, list, map), (2, 2, both.clone(), 2));
        }
        job.clock.set(1_100);
        assert_eq!(seen(), (vec![2], 1, vec!["b".to_owned()], 1));
        assert_eq!(state.0.get(&1_u32).unwrap(), Some(0), "the default");
        assert!(!state.0.contains(&1_u32).unwrap() && state.0.contains(&2_u32).unwrap());
        assert_eq!((map.get(&1_u32, "a").unwrap(), map.get(&1_u32, "b").unwrap()), (None, Some(1)));
        job.clock.set(1_150);
        assert_eq!(seen(), (vec![], 0, vec![], 0));
        assert!(!state.1.contains(&1_u32).unwrap() && map.is_empty(&1_u32).unwrap());

        // By the descriptor at hand, not by the one that it was written with.
        let shown =
            reader.state(clicks_with(ttl.visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp))).unwrap();
        assert_eq!(shown.get(&1_u32).unwrap(), Some(1));
        let longer = reader.state(clicks_with(Ttl::new(Duration::from_secs(1)))).unwrap();
        assert_eq!(all(longer.keys::<u32>().unwrap()).len(), 2);
        assert_eq!(reader.state(self::clicks()).unwrap().get(&1_u32).unwrap(), Some(1));
        reader.close().unwrap();
    }
}

fn clicks_with(ttl: Ttl) -> StateDescriptor<ValueState<u64>> {
    clicks().ttl(ttl)
}

fn visits_with(ttl: Ttl) -> StateDescriptor<ListState<String>> {
    visits().ttl(ttl)
}
