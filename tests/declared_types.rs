//! What a state's keys and values are: declared or learned from what is stored, and compared at every registration and
//! between subtasks.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::num::NonZeroU32;

use alluvium::state::{Codec, KeyedState, Postcard, RawBytes};
use alluvium::{
    Error, ErrorKind, ListState, MapState, ReducingState, StateDescriptor, TimeDomain, TimerService,
    ValueState,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use alluvium_testkit::typed::{Attempt, assert_error, in_both_modes};

/// Writes that fail, and those that only remove, leave nothing from which a type could be learned.
#[test]
fn only_what_is_stored_says_of_which_type_keys_are() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let values = store.register(ValueState::<Vec<u8>>::descriptor("values").codec(RawBytes)).unwrap();
        let lists = store.register(ListState::<u64>::descriptor("lists")).unwrap();
        let maps = store.register(MapState::<String, u64>::descriptor("maps")).unwrap();
        store.set_key("text").unwrap();
        assert_error(values.put(store, &vec![0; (256 << 20) + 1]), ErrorKind::InvalidArgument, &["too long"]);
        values.clear(store).unwrap();
        lists.extend(store, Vec::<u64>::new()).unwrap();
        lists.set(store, Vec::<u64>::new()).unwrap();
        lists.clear(store).unwrap();
        maps.clear(store).unwrap();
        maps.remove(store, "a").unwrap();
        store.set_key(&7_u64).unwrap();
        values.put(store, &vec![1]).unwrap();
        lists.append(store, &1).unwrap();
        maps.put(store, "a", &1).unwrap();
        store.set_key("text").unwrap();
        assert_error(values.clear(store), ErrorKind::Incompatible, &["\"values\"", "\"u64\"", "\"str\""]);
        attempt.checkpoint();
        let reader = home.read();
        let types: Vec<_> = reader.states().iter().map(|state| state.key_type().to_owned()).collect();
        assert_eq!(types, ["u64", "u64", "u64"]);
    });
}

#[test]
fn subtasks_that_differ_about_a_state_end_the_attempt_with_both_types() {
    in_both_modes(|home| {
        let home = home.with_subtasks(2);
        let mut attempt = home.open();
        let before = attempt.checkpoint();
        for (index, store) in attempt.stores.iter_mut().enumerate() {
            let values = store.register(ValueState::<u64>::descriptor("values")).unwrap();
            for n in 0..100_u64 {
                let set = if index == 0 { store.set_key(&n) } else { store.set_key(&n.to_string()) };
                if set.is_ok() {
                    values.put(store, &n).unwrap();
                }
            }
        }
        let pending = attempt.job.trigger("").unwrap();
        for store in &mut attempt.stores {
            store.cut(pending.id(), "").unwrap();
        }
        let words = ["\"values\"", "\"u64\"", "\"str\"", "one type of key"];
        assert_error(pending.wait(), ErrorKind::Incompatible, &words);
        assert_error(attempt.job.health(), ErrorKind::Incompatible, &words);
        assert_error(attempt.stores[0].health(), ErrorKind::Incompatible, &words);
        drop(attempt);
        // Nothing of it was committed.
        assert_eq!(home.read().checkpoint(), before);
    });
}

#[test]
fn a_declared_type_of_key_is_compared_before_anything_is_stored() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let declared = || ValueState::<u64>::descriptor("values").keyed::<str>();
        let values = store.register(declared()).unwrap();
        store.timer_service(TimerService::<str>::descriptor("timers")).unwrap();
        store.set_key(&7_u64).unwrap();
        let words = ["\"values\"", "\"str\"", "\"u64\""];
        assert_error(values.put(store, &1), ErrorKind::Incompatible, &words);
        assert_error(values.get(store), ErrorKind::Incompatible, &words);
        attempt.checkpoint();
        drop(attempt);

        let mut attempt = home.open();
        let store = attempt.store();
        let other = ValueState::<u64>::descriptor("values").keyed::<u64>();
        assert_error(store.register(other), ErrorKind::Incompatible, &words);
        let other = store.timer_service(TimerService::<u64>::descriptor("timers"));
        assert_error(other, ErrorKind::Incompatible, &["\"timers\"", "\"str\"", "\"u64\""]);
        let timers = store.timer_service(TimerService::<String>::descriptor("timers")).unwrap();
        // Who declares nothing takes over what is recorded.
        store.register(ValueState::<u64>::descriptor("values")).unwrap();
        store.register(declared()).unwrap();
        store.set_key("a").unwrap();
        timers.register(store, TimeDomain::Event, 1, &()).unwrap();
    });
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Visit {
    first: u32,
    last: u32,
    page: String,
}

fn visit() -> Visit {
    Visit { first: 1, last: 2, page: "a".into() }
}

/// The same bytes, which would be read the wrong way round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Swapped {
    last: u32,
    first: u32,
    page: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Signed {
    first: i32,
    last: u32,
    page: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Longer {
    first: u32,
    last: u32,
    page: String,
    count: u64,
}

/// Called otherwise, with a field that is called otherwise in the program alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Renamed {
    first: u32,
    #[serde(rename = "last")]
    newest: u32,
    page: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Event {
    Open,
    Click(u32),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum MoreEvents {
    Open,
    Click(u32),
    Close,
}

/// What becomes of a stored value of the first type if the state is then registered with the second one.
#[track_caller]
fn read_as<A, B>(value: &A) -> Result<B, Error>
where
    A: Serialize + DeserializeOwned + 'static,
    B: Serialize + DeserializeOwned + 'static,
{
    let results = RefCell::new(Vec::new());
    in_both_modes(|home| {
        let mut attempt = home.open();
        let state = attempt.store().register(ValueState::<A>::descriptor("visits")).unwrap();
        attempt.store().set_key("k").unwrap();
        state.put(attempt.store(), value).unwrap();
        attempt.checkpoint();
        drop(attempt);
        let reader = home.read();
        let read = reader.state(ValueState::<B>::descriptor("visits")).map(drop);
        let mut attempt = home.open();
        let store = attempt.store();
        let state = store.register(ValueState::<B>::descriptor("visits"));
        let text = |error: &Error| error.to_string();
        assert_eq!(read.as_ref().err().map(text), state.as_ref().err().map(text), "a reader says the same");
        store.set_key("k").unwrap();
        let value = state.and_then(|state| Ok(state.get(store)?.unwrap()));
        if value.is_err() {
            // A new version is the way out that the error names.
            let next =
                ValueState::<B>::descriptor("visits").schema(1).migrate(|_, _| Err("is not called".into()));
            store.register(next).unwrap();
        }
        results.borrow_mut().push(value);
    });
    results.into_inner().pop().unwrap()
}

#[test]
fn a_changed_type_of_values_is_refused_where_its_version_is_the_same() {
    let refused = |result: Result<(), Error>, words: &[&str]| {
        assert_error(
            result,
            ErrorKind::Incompatible,
            &[&["\"visits\"", "schema", "migrate"], words].concat(),
        );
    };
    let swapped = read_as::<Visit, Swapped>(&visit()).map(drop);
    refused(swapped, &["the field \"last\" of the value stands where \"first\" stood"]);
    let signed = read_as::<Visit, Signed>(&visit()).map(drop);
    refused(signed, &["the field \"first\" of the value was u32, and is i32 now"]);
    refused(read_as::<Visit, Longer>(&visit()).map(drop), &["the field \"count\" of the value is new"]);
    let longer = Longer { first: 1, last: 2, page: "a".into(), count: 3 };
    refused(read_as::<Longer, Visit>(&longer).map(drop), &["the field \"count\" of the value is gone"]);
    refused(read_as::<u64, NonZeroU32>(&7).map(drop), &["the value was u64, and is u32 now"]);
    refused(read_as::<Vec<Visit>, Vec<Swapped>>(&vec![visit()]).map(drop), &["an element of the value"]);
    refused(read_as::<MoreEvents, Event>(&MoreEvents::Close).map(drop), &["\"Close\"", "gone"]);
}

#[test]
fn what_reads_the_same_is_no_changed_type() {
    let renamed = read_as::<Visit, Renamed>(&visit()).unwrap();
    assert_eq!(renamed, Renamed { first: 1, newest: 2, page: "a".into() });
    assert_eq!(read_as::<Event, MoreEvents>(&Event::Click(7)).unwrap(), MoreEvents::Click(7));
    assert_eq!(read_as::<Box<Visit>, Visit>(&Box::new(visit())).unwrap(), visit());
}

#[test]
fn elements_entries_and_accumulators_have_types_too() {
    fn register<S: KeyedState>(attempt: &mut Attempt, descriptor: StateDescriptor<S>) -> Result<S, Error> {
        attempt.store().register(descriptor)
    }
    in_both_modes(|home| {
        let mut attempt = home.open();
        register(&mut attempt, ListState::<Visit>::descriptor("list")).unwrap();
        register(&mut attempt, MapState::<String, Visit>::descriptor("map").namespaced::<u8>()).unwrap();
        register(&mut attempt, ReducingState::<Visit>::descriptor("sum", |a, _| a)).unwrap();
        attempt.checkpoint();
        drop(attempt);
        let mut attempt = home.open();
        let words = ["\"first\"", "schema"];
        let list = register(&mut attempt, ListState::<Swapped>::descriptor("list"));
        assert_error(list, ErrorKind::Incompatible, &words);
        let map = MapState::<String, Swapped>::descriptor("map").namespaced::<u8>();
        assert_error(register(&mut attempt, map), ErrorKind::Incompatible, &words);
        let sum = ReducingState::<Swapped>::descriptor("sum", |a, _| a);
        assert_error(register(&mut attempt, sum), ErrorKind::Incompatible, &words);
        let list = ListState::<Swapped>::descriptor("list").schema(1).migrate(|_, bytes| {
            let old: Visit = Postcard.decode(bytes)?;
            Ok(Swapped { last: old.last, first: old.first, page: old.page })
        });
        register(&mut attempt, list).unwrap();
    });
}
