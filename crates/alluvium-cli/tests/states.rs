//! `alluvium state` as a user runs it.
#![allow(clippy::unwrap_used)]

use alluvium::{Job, JobOptions, OpenMode, Opened};
use alluvium_testkit::drive::checkpoint;
use alluvium_testkit::numbers::{KEYS, all, fill, times};

use crate::run::{alluvium, fails, json, succeeds};

#[test]
fn the_command_line_lists_states_and_makes_jobs_without_them_or_with_other_names() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    let options =
        |name: &str| JobOptions::new(path(name), OpenMode::CreateOrOpen).subtasks(2).memory(32_000_000);
    let Opened { job, mut stores, .. } = Job::open(path("job"), options("local")).unwrap();
    fill(&mut stores, "clicks", 1);
    fill(&mut stores, "views", 2);
    checkpoint(&job, &mut stores, "offsets").unwrap();

    let text = succeeds(&alluvium(&["state", "list", &path("job")]));
    assert!(text.contains("clicks") && text.contains("views") && text.contains("300"), "{text}");
    let listed = json(&alluvium(&["state", "list", &path("job"), "--json"]));
    let second = &listed["items"][1]["state"]["name"];
    assert_eq!((&listed["items"][0]["entries"], second), (&KEYS.into(), &"views".into()));

    let text = succeeds(&alluvium(&["state", "drop", &path("job"), "clicks", "--into", &path("less")]));
    assert!(text.contains("views") && !text.contains("clicks"), "{text}");
    let renamed = alluvium(&["state", "rename", &path("job"), "clicks=hits", "--into", &path("renamed")]);
    assert!(succeeds(&renamed).contains("hits"));
    let unknown = alluvium(&["state", "drop", &path("job"), "clics", "--into", &path("none")]);
    fails(&unknown, 1, "clicks, views");
    assert!(!place.path().join("none").exists(), "nothing is begun");

    // The job was not disturbed.
    checkpoint(&job, &mut stores, "goes on").unwrap();
    drop((stores, job));
    let Opened { job, mut stores, metadata, .. } = Job::open(path("less"), options("local 2")).unwrap();
    assert_eq!((all(&mut stores, "views"), all(&mut stores, "clicks")), (times(2), None));
    assert_eq!(metadata.as_deref(), Some("offsets".as_bytes()));
    assert_eq!(stores[1].restored_metadata(), Some("offsets/1".as_bytes()));
    drop((stores, job));
    let Opened { job: _job, mut stores, .. } = Job::open(path("renamed"), options("local 3")).unwrap();
    assert_eq!((all(&mut stores, "hits"), all(&mut stores, "views")), (times(1), times(2)));
}
