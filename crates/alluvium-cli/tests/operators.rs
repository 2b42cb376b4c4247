//! Commands on a job of several operators.
#![allow(clippy::unwrap_used)]

use alluvium::{BroadcastState, Job, JobOptions, OpenMode, Opened, OperatorListState, OperatorSpec};
use alluvium_testkit::drive::{checkpoint, contents, put_any};

use crate::run::{alluvium, fails, json, succeeds};

#[test]
fn each_command_asks_which_operator_is_meant() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    let options = |name: &str| JobOptions::new(path(name), OpenMode::CreateOrOpen).memory(32_000_000);
    let operators = || [OperatorSpec::new("clicks", 2), OperatorSpec::new("joins", 1)];
    let Opened { job, mut stores, .. } =
        Job::open(path("job"), options("local").operators(operators())).unwrap();
    put_any(&mut stores[..2], "page", b"of clicks");
    put_any(&mut stores[2..], "page", b"of joins");
    for (partition, store) in (0..).zip(&mut stores[..2]) {
        let offsets = store.register(OperatorListState::<(u32, u64)>::descriptor("offsets")).unwrap();
        offsets.set(store, &[(partition, 17)]).unwrap();
        let rules = store.register(BroadcastState::<String, u32>::descriptor("rules")).unwrap();
        rules.put(store, "limit", &1).unwrap();
    }
    checkpoint(&job, &mut stores, "offsets").unwrap();

    let url = path("job");
    for args in [
        &["get", &url, "words", "page"][..],
        &["scan", &url, "words"],
        &["state", "list", &url],
        &["export", &url, "--quiet"],
        &["state", "drop", &url, "words", "--into", &path("none")],
    ] {
        fails(&alluvium(args), 2, "[clicks, joins]");
    }
    assert!(!place.path().join("none").exists(), "nothing is begun");
    for (operator, value) in [("clicks", "of clicks"), ("joins", "of joins")] {
        let text = succeeds(&alluvium(&["scan", &url, "words", "--operator", operator]));
        assert!(text.contains(value), "{text}");
        let text = succeeds(&alluvium(&["get", &url, "words", "page", "--operator", operator]));
        assert!(text.contains(value), "{text}");
        let listed = json(&alluvium(&["state", "list", &url, "--json", "--operator", operator]));
        let words = listed["items"].as_array().unwrap().last().unwrap();
        assert_eq!((&words["state"]["name"], &words["entries"]), (&"words".into(), &1.into()));
    }
    let listed = succeeds(&alluvium(&["state", "list", &url, "--operator", "clicks"]));
    assert!(listed.contains("operator list") && listed.contains("broadcast"), "{listed}");
    fails(&alluvium(&["get", &url, "rules", "limit", "--operator", "clicks"]), 2, "not keyed");
    let text = succeeds(&alluvium(&["inspect", &url]));
    assert!(
        text.contains("operator clicks (subtasks 0 to 1; 128 key groups): states offsets, rules, words"),
        "{text}"
    );
    let shown = json(&alluvium(&["inspect", &url, "--json"]));
    let records = shown["records"].as_array().unwrap();
    let newest = records.iter().rev().find(|record| !record["checkpoint"].is_null()).unwrap();
    assert_eq!(newest["checkpoint"]["operators"][1]["id"], "joins");

    // Dropped in one, and still there in the other.
    let less = path("less");
    succeeds(&alluvium(&["state", "drop", &url, "words", "--operator", "joins", "--into", &less]));
    drop((stores, job));
    let Opened { stores: mut less, .. } = Job::open(less, options("local 2").operators(operators())).unwrap();
    assert_eq!(contents(&mut less[..2], "words").len(), 1);
    assert!(less[2].states().unwrap().is_empty());
    assert_eq!(less[1].restored_metadata(), Some("offsets/1".as_bytes()));

    // Out of one operator, into another and into a new one; the rest stays.
    let file = path("file");
    let exported = alluvium(&["export", &url, "--operator", "clicks", "--output", &file, "--quiet"]);
    succeeds(&exported);
    let said = String::from_utf8_lossy(&exported.stderr);
    assert!(said.contains("left out, because they are not keyed: offsets, rules"), "{said}");
    fails(&alluvium(&["import", &url, &file, "--quiet"]), 2, "--operator");
    succeeds(&alluvium(&["import", &url, &file, "--quiet", "--operator", "new"]));
    succeeds(&alluvium(&["import", &url, &file, "--quiet", "--operator", "joins", "--into-existing"]));
    let all = operators().into_iter().chain([OperatorSpec::new("new", 1)]);
    let Opened { mut stores, .. } = Job::open(url, options("local").operators(all)).unwrap();
    let values = |stores: &mut [_]| contents(stores, "words").into_values().collect::<Vec<_>>();
    assert_eq!(values(&mut stores[..2]), [b"of clicks".to_vec()]);
    assert_eq!(values(&mut stores[2..3]), [b"of clicks".to_vec()]);
    assert_eq!(values(&mut stores[3..]), [b"of clicks".to_vec()]);
}
