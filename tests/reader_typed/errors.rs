//! What cannot be read, and what is migrated.

use super::*;

#[test]
fn what_does_not_fit_is_an_error_that_names_the_state() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        write(attempt.store(), 7, 0);
        let named = ValueState::<u32>::descriptor("named").type_name("count");
        let state = attempt.store().register(named).unwrap();
        state.put(attempt.store(), &1).unwrap();
        attempt.store().register(ValueState::<u32>::descriptor("never written")).unwrap();
        attempt.checkpoint();
        let reader = home.read();
        let unknown = reader.state(ValueState::<u64>::descriptor("click"));
        assert_error(unknown, ErrorKind::NotFound, &["\"click\"", "clicks", "longest", "windows"]);
        let kind = reader.state(ListState::<u64>::descriptor("clicks"));
        assert_error(kind, ErrorKind::Incompatible, &["\"clicks\"", "value", "list"]);
        let spaces = reader.state(ValueState::<u64>::descriptor("clicks").namespaced::<u32>());
        assert_error(spaces, ErrorKind::Incompatible, &["\"clicks\"", "namespaces"]);
        let map_key = reader.state(MapState::<u64, u32>::descriptor("routes"));
        assert_error(map_key, ErrorKind::Incompatible, &["\"routes\"", "map keys", "\"str\"", "\"u64\""]);
        let name = reader.state(ValueState::<u32>::descriptor("named").type_name("sum"));
        assert_error(name, ErrorKind::Incompatible, &["\"named\"", "\"count\"", "\"sum\""]);
        let older = reader.state(ValueState::<u64>::descriptor("clicks").schema(1));
        assert_error(older, ErrorKind::Incompatible, &["\"clicks\"", "schema 0", "migrate"]);
        let ttl = reader.state(clicks().ttl(Ttl::new(Duration::ZERO)));
        assert_error(ttl, ErrorKind::InvalidArgument, &["TTL of 0"]);

        let state = reader.state(clicks()).unwrap();
        let wrong_key = &["\"clicks\"", "\"u32\"", "\"str\""];
        assert_error(state.get("7"), ErrorKind::Incompatible, wrong_key);
        assert_error(state.keys::<str>().map(|_| ()), ErrorKind::Incompatible, wrong_key);
        assert_error(state.entries::<str>().map(|_| ()), ErrorKind::Incompatible, wrong_key);
        assert_error(
            reader.timers(TimerService::<u32>::descriptor("clicks"), TimeDomain::Event).map(|_| ()),
            ErrorKind::Incompatible,
            &["\"clicks\"", "value", "timers"],
        );
        // The compiler's names of types are not compared, their shapes are.
        let other = reader.state(ValueState::<String>::descriptor("clicks")).map(drop);
        assert_error(other, ErrorKind::Incompatible, &["\"clicks\"", "u64", "str", "migrate"]);
        // No key was written, so any type of key is as good.
        let never = reader.state(ValueState::<u32>::descriptor("never written")).unwrap();
        assert_eq!(never.get("7").unwrap(), None);
        assert!(all(never.keys::<u64>().unwrap()).is_empty());
        reader.close().unwrap();
    });
}

#[test]
fn older_values_are_migrated_as_they_are_read() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let old = store.register(ValueState::<u32>::descriptor("seen")).unwrap();
        store.set_key("old").unwrap();
        old.put(store, &7).unwrap();
        let anew = || {
            ValueState::<(u64, u64)>::descriptor("seen").schema(2).migrate(|version, bytes| {
                let count: u32 = Postcard.decode(bytes)?;
                Ok((count.into(), version.into()))
            })
        };
        let new = store.register(anew()).unwrap();
        store.set_key("new").unwrap();
        new.put(store, &(8, 9)).unwrap();
        attempt.checkpoint();

        let reader = home.read();
        let seen = reader.state(anew()).unwrap();
        assert_eq!(seen.get("old").unwrap(), Some((7, 0)));
        assert_eq!(seen.get("new").unwrap(), Some((8, 9)));
        let entries: BTreeMap<_, _> = all(seen.entries::<str>().unwrap()).into_iter().collect();
        assert_eq!(entries, BTreeMap::from([("new".to_owned(), (8, 9)), ("old".to_owned(), (7, 0))]));
        let without = reader.state(ValueState::<(u64, u64)>::descriptor("seen").schema(2));
        assert_error(without, ErrorKind::Incompatible, &["\"seen\"", "migrate"]);
        let before = reader.state(ValueState::<u32>::descriptor("seen"));
        assert_error(before, ErrorKind::Incompatible, &["\"seen\"", "newer"]);
        reader.close().unwrap();
    });
}

#[test]
fn an_entry_that_cannot_be_read_is_named_and_iteration_goes_on() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let values = store.register(ValueState::<u64>::descriptor("values")).unwrap();
        let timers = store.timer_service(TimerService::<u32>::descriptor("timers")).unwrap();
        for n in 0..100_u32 {
            store.set_key(&n).unwrap();
            values.put(store, &u64::from(n)).unwrap();
            timers.register(store, TimeDomain::Event, 5, &()).unwrap();
        }
        attempt.checkpoint();
        let described = home.read().states();
        let store = attempt.store();
        let raw = |name: &str, store: &mut StateStore| {
            let description = described.iter().find(|state| state.name() == name).unwrap();
            store.described_state(description).unwrap()
        };
        let (values, timers) = (raw("values", store), raw("timers", store));
        let group = store.max_parallelism().group_of_key(&7_u32);
        // A value that is none, a key that is none, and a timer with such a key.
        store.put(values, group, &7_u32.to_be_bytes(), &[0, 0xff]).unwrap();
        store.put(values, group, &[1, 2], &[0, 1]).unwrap();
        store.put(timers, group, &[0, 0x80, 0, 0, 0, 0, 0, 0, 5, 1], &[]).unwrap();
        attempt.checkpoint();
        let reader = home.read();
        let place = format!("key group {group}, ");
        let check = |errors: Vec<String>, name: &str, keys: &[&str]| {
            assert_eq!(errors.len(), keys.len(), "{errors:?}");
            for key in keys {
                let named = |error: &String| error.contains(name) && error.contains(&format!("{place}{key}"));
                assert!(errors.iter().any(named), "{key}: {errors:?}");
            }
        };
        let values = reader.state(ValueState::<u64>::descriptor("values")).unwrap();
        let (entries, errors): (Vec<_>, Vec<_>) = values.entries::<u32>().unwrap().partition(Result::is_ok);
        assert_eq!(entries.len(), 99);
        let text = |error: Result<_, alluvium::Error>| error.unwrap_err().to_string();
        check(errors.into_iter().map(text).collect(), "\"values\"", &["key 7)", "key 0x0102"]);
        let (keys, errors): (Vec<_>, Vec<_>) = values.keys::<u32>().unwrap().partition(Result::is_ok);
        assert_eq!((keys.len(), errors.len()), (100, 1));
        let timers = reader.timers(TimerService::<u32>::descriptor("timers"), TimeDomain::Event).unwrap();
        let (timers, errors): (Vec<_>, Vec<_>) = timers.partition(Result::is_ok);
        assert_eq!(timers.len(), 100);
        let errors = errors.into_iter().map(|error| error.unwrap_err().to_string()).collect();
        check(errors, "\"timers\"", &["key 0x0080000000000000"]);
        // The live state names it as well.
        let store = attempt.store();
        let live = store.register(ValueState::<u64>::descriptor("values")).unwrap();
        store.set_key(&7_u32).unwrap();
        assert_error(
            live.get(store),
            ErrorKind::Corrupt,
            &["\"values\"", &format!("{place}key 7"), "migrate"],
        );
    });
}
