//! `get` and `scan` on typed state, as a user runs them: keys by their recorded types, values by theirs.
#![allow(clippy::unwrap_used)]

use std::error::Error;
use std::process::Output;
use std::time::Duration;

use alluvium::state::{Codec, KeyCodec, RawBytes};
use alluvium::{
    AggregatingState, Env, Job, ListState, MapState, OpenMode, ReducingState, StateStore, TimeDomain,
    TimerService, Ttl, TtlVisibility, ValueState,
};
use serde_json::{Value, json};

use crate::run::{alluvium, fails};

use alluvium_testkit::clock::ManualClock;
use alluvium_testkit::drive::{checkpoint, quiet};

/// A job that has ended after one checkpoint.
struct Ended {
    _dir: tempfile::TempDir,
    url: String,
}

impl Ended {
    fn new(fill: impl FnOnce(&mut StateStore, &ManualClock)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("job").to_str().unwrap().to_owned();
        let clock = ManualClock::at(1_000);
        let options = quiet(&dir.path().join("local"), OpenMode::Create).env(clock.env());
        let mut opened = Job::open(&url, options).unwrap();
        fill(&mut opened.stores[0], &clock);
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        Self { _dir: dir, url }
    }

    fn run(&self, command: &str, args: &[&str]) -> Output {
        alluvium(&[&[command, self.url.as_str()], args].concat())
    }

    /// What a command prints that succeeds and has nothing to remark.
    #[track_caller]
    fn prints(&self, command: &str, args: &[&str]) -> String {
        let output = self.run(command, args);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        self.remarks(command, args).0
    }

    /// What it prints, and what it says besides.
    #[track_caller]
    fn remarks(&self, command: &str, args: &[&str]) -> (String, String) {
        let output = self.run(command, args);
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{err}");
        (String::from_utf8(output.stdout).unwrap(), err)
    }

    #[track_caller]
    fn get(&self, args: &[&str]) -> String {
        self.prints("get", args).trim_end_matches('\n').to_owned()
    }

    #[track_caller]
    fn get_json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.remarks("get", &[args, &["--json"]].concat()).0).unwrap()
    }

    /// The lines without their key groups, sorted.
    #[track_caller]
    fn scan(&self, args: &[&str]) -> Vec<String> {
        let text = self.prints("scan", args);
        let mut lines: Vec<_> =
            text.lines().map(|line| line.split_once('\t').unwrap().1.to_owned()).collect();
        lines.sort_unstable();
        lines
    }

    /// The lines as JSON without their key groups, sorted.
    #[track_caller]
    fn scan_json(&self, args: &[&str]) -> Vec<Value> {
        let text = self.remarks("scan", &[args, &["--json"]].concat()).0;
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &mut lines {
            assert!(line.as_object_mut().unwrap().remove("group").unwrap().is_u64());
        }
        lines.sort_by_key(ToString::to_string);
        lines
    }
}

#[test]
fn keys_are_read_and_shown_by_their_recorded_types() {
    fn put<K: KeyCodec + ?Sized>(store: &mut StateStore, name: &str, key: &K) {
        let state = store.register(ValueState::<String>::descriptor(name)).unwrap();
        store.set_key(key).unwrap();
        state.put(store, &format!("of {name}")).unwrap();
    }
    let job = Ended::new(|store, _| {
        put(store, "u64", &7_u64);
        put(store, "i32", &-7_i32);
        put(store, "bool", &true);
        put(store, "str", "page/1");
        put(store, "bytes", &[0xff_u8, 0][..]);
        put(store, "array", &[0xfe_u8, 0]);
        put(store, "pair", &("JFK".to_owned(), 7_u16));
        put(store, "option", &Some(7_u8));
        put(store, "u128", &u128::MAX);
    });
    let most = u128::MAX.to_string();
    for (state, key, shown, in_json) in [
        ("u64", "7", "7", json!(7)),
        ("i32", "-7", "-7", json!(-7)),
        ("bool", "true", "true", json!(true)),
        ("str", "page/1", "page/1", json!("page/1")),
        ("bytes", "hex:ff00", "base64:/wA=", json!({"base64": "/wA="})),
        ("bytes", "base64:/wA=", "base64:/wA=", json!({"base64": "/wA="})),
        ("array", "hex:fe00", "base64:/gA=", json!({"base64": "/gA="})),
        ("pair", "[\"JFK\", 7]", "[\"JFK\",7]", json!(["JFK", 7])),
        ("option", "7", "7", json!(7)),
        ("u128", &most, &most, json!(most)),
    ] {
        assert_eq!(job.get(&[state, key]), format!("of {state}"));
        let got = job.get_json(&[state, key]);
        let expected = json!({
            "schema_version": 1, "checkpoint": "1-1", "state": state, "group": got["group"], "key": in_json, "value": format!("of {state}"),
        });
        assert_eq!(got, expected);
        assert_eq!(job.scan(&[state]), [format!("{shown}\tof {state}")]);
        assert_eq!(job.scan_json(&[state]), [json!({"key": in_json, "value": format!("of {state}")})]);
    }
    // The stored bytes, as always.
    assert_eq!(job.get(&["u64", "0000000000000007", "--key-format", "hex"]), "of u64");
    let stored = job.run("get", &["u64", "7", "--raw"]).stdout;
    assert_eq!(stored, b"\0\x06of u64");
    assert_eq!(job.scan(&["u64", "--raw"]), ["base64:AAAAAAAAAAc=\tbase64:AAZvZiB1NjQ="]);

    assert_eq!(job.scan(&["str", "--prefix", "page/"]).len(), 1);
    assert_eq!(job.scan(&["str", "--prefix", "other/"]).len(), 0);
    assert_eq!(job.scan(&["pair", "--prefix", "[\"JFK\"]"]).len(), 1);
    assert_eq!(job.scan(&["pair", "--prefix", "[\"JF\"]"]).len(), 0);
    assert_eq!(job.scan(&["bytes", "--prefix", "hex:ff"]).len(), 1);

    fails(&job.run("get", &["u64", "8"]), 1, "has no key 8 in group");
    fails(&job.run("get", &["u64", "page/1"]), 2, "is not a key of type u64");
    fails(&job.run("get", &["pair", "JFK"]), 2, "[\"text\",7]");
    fails(&job.run("get", &["u64", "7", "--namespace", "1"]), 2, "has no namespaces");
    fails(&job.run("get", &["u64", "7", "--map-key", "1"]), 2, "no map but value");
    fails(&job.run("scan", &["u64", "--prefix", "7"]), 2, "no prefixes");
    fails(&job.run("scan", &["u64", "--namespace", "7"]), 2, "has no namespaces");
}

#[test]
fn every_kind_shows_what_it_holds() {
    struct Sum;
    impl alluvium::Aggregate<u32, (u64, u32), u64> for Sum {
        fn create(&self) -> (u64, u32) {
            (0, 0)
        }
        fn add(&self, accumulator: &mut (u64, u32), input: u32) {
            *accumulator = (accumulator.0 + u64::from(input), accumulator.1 + 1);
        }
        fn merge(&self, accumulator: &mut (u64, u32), other: (u64, u32)) {
            accumulator.0 += other.0;
        }
        fn result(&self, accumulator: (u64, u32)) -> u64 {
            accumulator.0
        }
    }
    let job = Ended::new(|store, _| {
        let visits = store.register(ListState::<String>::descriptor("visits")).unwrap();
        let routes = store.register(MapState::<String, Vec<f64>>::descriptor("routes")).unwrap();
        let longest = store.register(ReducingState::<Option<i64>>::descriptor("longest", |a, _| a)).unwrap();
        let sum = store.register(AggregatingState::descriptor("sum", Sum)).unwrap();
        let windows = MapState::<u8, bool>::descriptor("windows").namespaced::<(u64, u64)>();
        let windows = store.register(windows).unwrap();
        let alarms = store.timer_service(TimerService::<str, u32>::descriptor("alarms")).unwrap();
        let ticks = store.timer_service(TimerService::<str>::descriptor("ticks")).unwrap();
        for key in ["a", "ab"] {
            store.set_key(key).unwrap();
            visits.extend(store, ["/home".to_owned(), "two\nlines".to_owned()]).unwrap();
            routes.put(store, "LAX", &vec![1.5]).unwrap();
            routes.put(store, "LA", &vec![]).unwrap();
            longest.add(store, Some(-7)).unwrap();
            sum.add(store, 3).unwrap();
            windows.at(&(0, 10)).put(store, &1, &true).unwrap();
            windows.at(&(10, 20)).put(store, &1, &false).unwrap();
            windows.at(&(10, 20)).put(store, &2, &true).unwrap();
            alarms.register(store, TimeDomain::Event, -5, &7).unwrap();
            alarms.register(store, TimeDomain::Processing, 9, &8).unwrap();
            ticks.register(store, TimeDomain::Event, 1, &()).unwrap();
        }
    });
    assert_eq!(job.get(&["visits", "a"]), "[\"/home\",\"two\\nlines\"]");
    assert_eq!(job.get_json(&["visits", "a"])["value"], json!(["/home", "two\nlines"]));
    assert_eq!(job.get(&["longest", "a"]), "-7");
    assert_eq!(job.get(&["sum", "a"]), "[3,1]", "an accumulator is what is stored");

    assert_eq!(job.get(&["routes", "a"]), "LA\t[]\nLAX\t[1.5]");
    assert_eq!(job.get(&["routes", "a", "--map-key", "LA"]), "[]");
    let got = job.get_json(&["routes", "a", "--map-key", "LAX"]);
    assert_eq!((&got["key"], &got["map_key"], &got["value"]), (&json!("a"), &json!("LAX"), &json!([1.5])));
    let got = job.get_json(&["routes", "a"]);
    let entry = |map_key: &str, value: &[f64]| json!({"key": "a", "map_key": map_key, "value": value});
    assert_eq!(got["entries"], json!([entry("LA", &[]), entry("LAX", &[1.5])]));
    assert_eq!(job.scan(&["routes"]), ["a\tLA\t[]", "a\tLAX\t[1.5]", "ab\tLA\t[]", "ab\tLAX\t[1.5]"]);

    let windows = "[0,10]\t1\ttrue\n[10,20]\t1\tfalse\n[10,20]\t2\ttrue";
    assert_eq!(job.get(&["windows", "a"]), windows);
    assert_eq!(job.get(&["windows", "a", "--namespace", "[10, 20]"]), "[10,20]\t1\tfalse\n[10,20]\t2\ttrue");
    assert_eq!(job.get(&["windows", "a", "--namespace", "[10, 20]", "--map-key", "2"]), "true");
    assert_eq!(
        job.scan(&["windows", "--namespace", "[0, 10]"]),
        ["a\t[0,10]\t1\ttrue", "ab\t[0,10]\t1\ttrue"]
    );
    assert_eq!(
        job.scan_json(&["windows", "--namespace", "[0, 10]"])[0],
        json!({"key": "a", "namespace": [0, 10], "map_key": 1, "value": true})
    );
    assert_eq!(job.prints("scan", &["windows", "--namespace", "[0, 10]", "--limit", "1"]).lines().count(), 1);

    assert_eq!(job.get(&["alarms", "a"]), "event\t-5\t7\nprocessing\t9\t8");
    assert_eq!(job.get(&["alarms", "a", "--namespace", "8"]), "processing\t9\t8");
    assert_eq!(job.get(&["ticks", "a"]), "event\t1");
    let alarm = |key: &str| json!({"domain": "event", "timestamp": -5, "key": key, "namespace": 7});
    let lines = job.scan_json(&["alarms"]);
    assert_eq!(lines.len(), 4);
    assert!(lines.contains(&alarm("a")) && lines.contains(&alarm("ab")), "{lines:?}");
    assert_eq!(job.scan(&["ticks"]), ["event\t1\ta", "event\t1\tab"]);

    fails(&job.run("get", &["windows", "a", "--map-key", "1"]), 2, "say which by --namespace");
    fails(&job.run("get", &["windows", "a", "--raw"]), 2, "there are 3");
    fails(&job.run("get", &["routes", "a", "--map-key", "SFO"]), 1, "has no key a");
    fails(
        &job.run("get", &["routes", "x", "--key-format", "text", "--map-key", "SFO"]),
        2,
        "stored key already",
    );
    fails(&job.run("scan", &["alarms", "--prefix", "a"]), 2, "stored by time");
}

/// Own types, of a key and of a value, and an own codec.
#[derive(serde::Serialize, serde::Deserialize)]
struct Session(u64);

struct Window(u8);

impl KeyCodec for Window {
    type Owned = Self;
    const NAME: &'static str = "window";

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.0);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.first().map(|byte| Self(*byte))
    }
}

struct Reversed;

impl Codec<String> for Reversed {
    fn id(&self) -> &str {
        "reversed"
    }

    fn encode(&self, value: &String, out: &mut Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>> {
        out.extend(value.bytes().rev());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, Box<dyn Error + Send + Sync>> {
        Ok(String::from_utf8(bytes.iter().rev().copied().collect())?)
    }
}

#[test]
fn what_the_recorded_types_do_not_tell_is_shown_as_bytes() {
    let job = Ended::new(|store, _| {
        let sessions = store.register(ValueState::<Session>::descriptor("sessions")).unwrap();
        let bytes = store.register(ListState::descriptor_with("bytes", RawBytes)).unwrap();
        let reversed = store.register(ValueState::descriptor_with("reversed", Reversed)).unwrap();
        let named = store.register(ValueState::<u8>::descriptor("named").type_name("u64")).unwrap();
        store.set_key(&1_u8).unwrap();
        sessions.put(store, &Session(7)).unwrap();
        bytes.extend(store, [b"a".to_vec(), vec![0xff]]).unwrap();
        reversed.put(store, &"abc".to_owned()).unwrap();
        named.put(store, &7).unwrap();
        let migrated = store.register(ValueState::<u32>::descriptor("migrated")).unwrap();
        migrated.put(store, &7).unwrap();
        let descriptor = ValueState::<u32>::descriptor("migrated").schema(1).migrate(|_, _| Ok(0));
        let migrated = store.register(descriptor).unwrap();
        store.set_key(&2_u8).unwrap();
        migrated.put(store, &8).unwrap();

        let windows = store.register(ValueState::<u32>::descriptor("windows")).unwrap();
        store.set_key(&Window(9)).unwrap();
        windows.put(store, &7).unwrap();
        let spaces =
            store.register(MapState::<u8, u32>::descriptor("spaces").namespaced::<Window>()).unwrap();
        store.set_key("key").unwrap();
        spaces.at(&Window(9)).put(store, &3, &7).unwrap();
    });
    let remarks = |args: &[&str], value: &str, says: &[&str]| {
        let (out, err) = job.remarks("get", args);
        assert_eq!(out.trim_end(), value);
        for says in says {
            assert!(err.contains(says), "{err:?} does not say {says:?}");
        }
    };
    let value = |args: &[&str]| job.get_json(args)["value"].clone();
    remarks(&["sessions", "1"], "base64:Bw==", &["note: ", "Session", "postcard"]);
    let session = value(&["sessions", "1"]);
    assert_eq!((&session["base64"], &session["codec"]), (&json!("Bw=="), &json!("postcard")));
    assert!(session["type"].as_str().unwrap().ends_with("::Session"), "{session}");
    remarks(&["reversed", "1"], "base64:Y2Jh", &["\"reversed\""]);
    remarks(&["named", "1"], "base64:Bw==", &["\"u64\""]);
    assert_eq!(job.get(&["bytes", "1"]), "[{\"text\":\"a\"},{\"base64\":\"/w==\"}]");
    // The recorded type is that of the newest schema.
    remarks(&["migrated", "1"], "base64:Bw==", &["schema 1"]);
    assert_eq!(value(&["migrated", "1"]), json!({"base64": "Bw==", "codec": "postcard", "schema": 0}));
    assert_eq!(job.get(&["migrated", "2"]), "8");

    fails(&job.run("get", &["windows", "9"]), 2, "which this tool does not know");
    fails(&job.run("get", &["windows", "9"]), 2, "--key-format hex");
    assert_eq!(job.scan(&["windows"]), ["base64:CQAB\t7"]);
    let raw = job.prints("scan", &["windows", "--raw"]);
    let (group, stored) = raw.trim_end().split_once('\t').unwrap();
    assert!(stored.starts_with("base64:CQAB\t"), "{raw}");
    let stored_key = ["windows", "CQAB", "--key-format", "base64"];
    fails(&job.run("get", &stored_key), 2, "say --group");
    assert_eq!(job.get(&[&stored_key[..], &["--group", group]].concat()), "7");
    assert_eq!(
        job.scan(&["spaces"]),
        ["key\tbase64:CQABAw==\t7"],
        "from the unknown part on, as it is stored"
    );
    assert_eq!(job.get(&["spaces", "key"]), "base64:CQABAw==\t7");
    fails(&job.run("get", &["spaces", "key", "--namespace", "9"]), 2, "\"window\"");
}

#[test]
fn what_has_expired_is_hidden_until_it_is_asked_for() {
    let hour = Ttl::new(Duration::from_secs(3_600));
    let job = Ended::new(|store, clock| {
        let carts = store.register(ValueState::<u32>::descriptor("carts").ttl(hour)).unwrap();
        let visits = store.register(ListState::<u32>::descriptor("visits").ttl(hour)).unwrap();
        let lasting = hour.visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp);
        let shown = store.register(ValueState::<u32>::descriptor("shown").ttl(lasting)).unwrap();
        store.set_key("old").unwrap();
        carts.put(store, &1).unwrap();
        visits.append(store, &1).unwrap();
        shown.put(store, &1).unwrap();
        clock.set(Env::default().clock.unix_millis());
        visits.append(store, &2).unwrap();
        store.set_key("new").unwrap();
        carts.put(store, &2).unwrap();
        // A delta is sealed without what has expired by then.
        clock.set(1_000);
    });
    assert_eq!(job.scan(&["carts"]), ["new\t2"]);
    assert_eq!(job.scan(&["carts", "--show-expired"]), ["new\t2", "old\t1\t(expired)"]);
    assert_eq!(job.scan(&["carts", "--raw"]).len(), 2);
    assert_eq!(job.prints("scan", &["carts", "--limit", "1"]).lines().count(), 1, "hidden ones do not count");
    let lines = job.scan_json(&["carts", "--show-expired"]);
    assert_eq!(lines.len(), 2);
    for line in [json!({"key": "new", "value": 2}), json!({"key": "old", "value": 1, "expired": true})] {
        assert!(lines.contains(&line), "{lines:?}");
    }
    fails(&job.run("get", &["carts", "old"]), 1, "--show-expired");
    assert_eq!(job.get(&["carts", "old", "--show-expired"]), "1\t(expired)");
    assert_eq!(job.get(&["visits", "old"]), "[2]");
    assert_eq!(job.get(&["visits", "old", "--show-expired"]), "[1,2]");
    assert_eq!(job.get(&["shown", "old"]), "1", "as the program would see it");
}

#[test]
fn a_stored_value_stays_what_it_is_whatever_its_fields_are_called() {
    use std::collections::BTreeMap;

    let job = Ended::new(|store, _| {
        let state = store.register(ValueState::<BTreeMap<String, u64>>::descriptor("facts")).unwrap();
        store.set_key(&7_u64).unwrap();
        let facts = [("epoch", 3), ("number", 17)].map(|(name, value)| (name.to_owned(), value));
        state.put(store, &BTreeMap::from(facts)).unwrap();
    });
    assert_eq!(job.get_json(&["facts", "7"])["value"], json!({"epoch": 3, "number": 17}));
}
