//! `alluvium report` as a user runs it: results in, one page out.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::results::result;
use crate::run::alluvium;

/// Files with these results, in a directory of their own.
fn files(results: &[Value]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let write = |(index, result): (usize, &Value)| {
        let path = dir.path().join(format!("run-{index}.json"));
        std::fs::write(&path, serde_json::to_string(result).unwrap()).unwrap();
        path
    };
    let paths = results.iter().enumerate().map(write).collect();
    (dir, paths)
}

fn report(files: &[PathBuf], output: &Path) -> Output {
    let mut args = vec![Path::new("report")];
    args.extend(files.iter().map(PathBuf::as_path));
    args.extend([Path::new("-o"), output]);
    alluvium(&args)
}

/// The page of these results, each in a file of its own.
#[track_caller]
fn page(results: &[Value]) -> String {
    let (dir, files) = files(results);
    let output = dir.path().join("report.html");
    let ran = report(&files, &output);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(String::from_utf8_lossy(&ran.stdout).contains("report.html"));
    std::fs::read_to_string(output).unwrap()
}

#[track_caller]
fn fails(ran: &Output, code: i32, parts: &[&str]) {
    let err = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(code), "{err}");
    for part in parts {
        assert!(err.contains(part), "{err:?} does not say {part:?}");
    }
    assert!(!err.contains("panicked"), "{err}");
}

#[track_caller]
fn says(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(page.contains(part), "the page does not say {part:?}");
    }
}

/// What the page's script draws.
fn model(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"model\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn charts(page: &str) -> Vec<String> {
    let charts = model(page)["charts"].as_array().unwrap().clone();
    charts.iter().map(|chart| chart["id"].as_str().unwrap().to_owned()).collect()
}

/// A value inside a result, by its path.
fn at<'a>(result: &'a mut Value, path: &str) -> &'a mut Value {
    result.pointer_mut(path).unwrap()
}

fn without(mut result: Value, fields: &[&str]) -> Value {
    for field in fields {
        assert!(result.as_object_mut().unwrap().remove(*field).is_some(), "{field} was not there");
    }
    result
}

#[test]
fn what_was_written_is_json_if_that_is_asked_for() {
    let (dir, files) = files(&[result("changelog", 0, 0), result("native", 0, 0)]);
    let output = dir.path().join("report.html");
    let mut args = vec![Path::new("report"), Path::new("--json"), Path::new("-o"), &output];
    args.extend(files.iter().map(PathBuf::as_path));
    let written = crate::run::json(&alluvium(&args));
    let bytes = std::fs::metadata(&output).unwrap().len();
    assert_eq!((&written["runs"], &written["bytes"]), (&2.into(), &bytes.into()));
}

#[test]
fn one_result_has_its_figures_and_says_that_there_is_nothing_to_compare() {
    let page = page(&[result("changelog", 100_000, 0)]);
    says(
        &page,
        &[
            "Changelog under load",
            "nothing to compare it with",
            "41.3 ms",
            "Read-modify-write on 2,000,000 keys",
        ],
    );
    assert!(!page.contains("÷"), "a ratio of one run");
    assert_eq!(charts(&page).len(), 8);
}

#[test]
fn two_results_are_compared_with_native_whatever_their_order() {
    let (changelog, native) = (result("changelog", 100_000, 0), result("native", 100_000, 0));
    for order in [[changelog.clone(), native.clone()], [native, changelog]] {
        let page = page(&order);
        says(
            &page,
            &[
                "÷ native",
                "than native",
                "47.2× fewer",
                "99 of 100 records are done within",
                "store allows 34.2",
                "530\u{a0}MB for new bases",
                "1.41× less",
                "A restore took",
            ],
        );
        assert!(!page.contains("÷ changelog"));
        assert_eq!(page.matches("class=\"tile\"").count(), 4);
        // The same colour on every page.
        says(&page, &["class=\"run-0\" data-group", ">changelog</button>", ">native</button>"]);
        let colours: Vec<_> = model(&page)["groups"].as_array().unwrap().clone();
        for group in colours {
            assert_eq!(group["colour"], json!(if group["name"] == "changelog" { 0 } else { 1 }));
        }
    }
}

#[test]
fn ratios_and_cost_are_those_of_the_figures() {
    let (mut changelog, mut native) = (result("changelog", 0, 0), result("native", 0, 0));
    *at(&mut changelog, "/records_per_s") = json!(300_000.0);
    *at(&mut native, "/records_per_s") = json!(200_000.0);
    // One PUT a second is 2,628,000 in a month of 730 hours.
    *at(&mut changelog, "/measured_s") = json!(100.0);
    *at(&mut changelog, "/store/puts") = json!(94);
    *at(&mut changelog, "/store/live_bytes_end") = json!(10_u64 << 30);
    let text = page(&[changelog.clone(), native]);
    says(
        &text,
        &[
            "1.50×<i> higher ✓</i>",
            "1.50× more",
            "2,628,000 requests",
            "13.14 $",
            "0.23 $",
            "13.37 $",
            "Amazon S3",
        ],
    );

    let (dir, files) = files(&[changelog]);
    let output = dir.path().join("own.html");
    let (put, storage) = (Path::new("--put-price=0.05"), Path::new("--storage-price=0"));
    let ran = alluvium(&[Path::new("report"), &files[0], Path::new("-o"), &output, put, storage]);
    assert!(ran.status.success());
    let text = std::fs::read_to_string(output).unwrap();
    says(&text, &["131 $", "0.05 $ per 1000 PUT"]);
    assert!(!text.contains("Amazon S3"), "own prices are not S3's");
    let wrong = alluvium(&[Path::new("report"), &files[0], Path::new("--get-price=-1")]);
    fails(&wrong, 2, &["US dollars"]);
}

#[test]
fn repetitions_become_one_column_and_their_ratios_are_taken_pair_by_pair() {
    let runs = |mode: &str, figures: [f64; 3]| -> Vec<Value> {
        let run = |(index, figure): (usize, f64)| {
            let mut run = result(mode, 0, index as u32 + 1);
            *at(&mut run, "/records_per_s") = json!(figure);
            run
        };
        figures.into_iter().enumerate().map(run).collect()
    };
    let changelog = runs("changelog", [100.0, 600.0, 400.0]);
    let native = runs("native", [100.0, 200.0, 200.0]);
    // A file may hold many; pairs are found by their number, not by their place.
    let mut all: Vec<Value> = changelog.into_iter().chain(native).collect();
    all.reverse();
    let page = page(&[Value::Array(all)]);
    // Ratios 1, 3 and 2; medians 400 and 200.
    says(
        &page,
        &["<span>400<small>100 to 600</small></span>", "2.00×<i> higher ✓</i><small>1.00× to 3.00×</small>"],
    );
    says(&page, &["360 of changelog in 3 runs"]);
    let model = model(&page);
    assert_eq!(model["groups"].as_array().unwrap().len(), 2);
    let lines = |id: &str| {
        let charts = model["charts"].as_array().unwrap();
        charts.iter().find(|chart| chart["id"] == id).unwrap()["lines"].as_array().unwrap().len()
    };
    assert_eq!((lines("throughput"), lines("checkpoint-cdf")), (6, 2));
}

#[test]
fn many_systems_have_names_and_colours_of_their_own() {
    let mut all = Vec::new();
    for system in ["alluvium", "flink"] {
        for mode in ["changelog", "native", "none"] {
            let mut run = result(mode, 100_000, 0);
            *at(&mut run, "/system") = json!(system);
            all.push(run);
        }
    }
    let page = page(&[Value::Array(all)]);
    says(&page, &["flink changelog", "alluvium native", "÷ alluvium native"]);
    let model = model(&page);
    let mut colours: Vec<u64> =
        model["groups"].as_array().unwrap().iter().map(|group| group["colour"].as_u64().unwrap()).collect();
    assert_eq!(colours[..3], [0, 1, 2], "a mode's first group has the mode's colour");
    colours.sort_unstable();
    colours.dedup();
    assert_eq!(colours.len(), 6);
}

#[test]
fn what_ended_early_lost_state_or_failed_is_said_first() {
    let mut run = result("changelog", 100_000, 0);
    run["ended_early"] = json!("interrupted by Ctrl-C");
    *at(&mut run, "/restore/wrong_keys") = json!(3);
    *at(&mut run, "/checkpoints/failed") = json!(2);
    run["checkpoints"]["failed_at_s"] = json!([31.5, 32.5]);
    run["store_model"]["outages"] = json!([{"start_s": 30.0, "end_s": 40.0}]);
    let page = page(&[run]);
    let warnings = page.split_once("</header>").unwrap().0;
    says(warnings, &["ended early after 121 s: interrupted by Ctrl-C", "3 wrong", "2 checkpoint(s) failed"]);
    let marks = model(&page)["marks"].as_array().unwrap().clone();
    let count = |kind: &str| marks.iter().filter(|mark| mark["kind"] == kind).count();
    assert_eq!((count("failure"), count("outage"), count("materialization")), (2, 1, 2));
    assert!(count("compaction") > 5);
}

#[test]
fn what_was_not_measured_is_left_out_and_said() {
    let bare = without(
        result("native", 0, 0),
        &[
            "checkpoints",
            "store",
            "restore",
            "samples",
            "checkpoint_series",
            "operator_pause_ms",
            "store_model",
        ],
    );
    let bare = without(
        bare,
        &["record_latency_ms", "durable_lag_ms", "cpu_s_per_million_records", "options", "load"],
    );
    let text = page(std::slice::from_ref(&bare));
    says(&text, &["no series to draw", "A restore: none was tried", "CPU time of native"]);
    assert!(!text.contains("per month") && !text.contains("NaN"), "figures that nobody measured");
    assert_eq!(charts(&text).len(), 0);

    // Beside a full one its cells are empty.
    let both = page(&[result("changelog", 0, 0), bare]);
    says(&both, &["<span>–</span>", "÷ native"]);
    assert_eq!(charts(&both).len(), 8);

    let mut few = result("native", 0, 0);
    *at(&mut few, "/checkpoints/duration_ms/n") = json!(12);
    says(&page(&[few]), &["12 of native", "the slowest one or next to it"]);
}

#[test]
fn memory_is_drawn_with_the_hit_rate_where_it_was_sampled() {
    let (changelog, native) = (result("changelog", 0, 0), result("native", 0, 0));
    let text = page(&[changelog.clone(), native]);
    // The sum of the parts a minute after the start.
    says(&text, &["hit rate 97.0 % · 1,900,000 records · 41,000 evicted · 493 MB at most"]);
    says(&text, &["<span>460 MB at most</span>"]);
    assert_eq!(text.matches("<svg").count(), 2);
    // In the table, and nothing for the run without a cache.
    let (_, row) = text.split_once("hit rate of the cache of records").unwrap();
    let row = row.split_once("</tr>").unwrap().0;
    assert!(row.contains("97.0 %") && row.contains("–"), "{row}");

    let mut unsampled = changelog;
    for sample in unsampled["samples"].as_array_mut().unwrap() {
        sample.as_object_mut().unwrap().remove("memory");
    }
    let text = page(&[unsampled]);
    assert!(!text.contains("<svg") && !text.contains("id=\"memory"), "a picture of nothing");
}

#[test]
fn different_workloads_are_not_passed_off_as_a_comparison() {
    let (changelog, mut native) = (result("changelog", 100_000, 0), result("native", 100_000, 0));
    *at(&mut native, "/workload/keys") = json!(5);
    let text = page(&[changelog, native]);
    says(&text, &["2 configurations under 2 loads", "on 5 keys of", "There is nothing to compare it with"]);
    assert!(!text.contains('÷'), "a ratio of unlike runs");
    assert_eq!(charts(&text).len(), 16, "each has its own");
}

#[test]
fn what_the_runs_say_themselves_is_said_once() {
    let with = |mode: &str, notes: &[&str]| {
        let mut run = result(mode, 0, 0);
        run["notes"] = json!(notes);
        run
    };
    let page = page(&[
        with("changelog", &["All alike.", "Two alike."]),
        with("native", &["All alike.", "Two alike."]),
        with("none", &["All alike.", "Alone."]),
    ]);
    says(
        &page,
        &[
            "<li>All alike.</li>",
            "<li>Changelog and native: Two alike.</li>",
            "<li>No checkpoints: Alone.</li>",
        ],
    );
    assert_eq!(page.matches("alike.").count(), 2);
}

#[test]
fn nothing_in_a_result_becomes_markup_or_script() {
    let evil = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>\"'&{{model}}";
    let mut run = result("changelog", 100_000, 0);
    for path in ["/system", "/version", "/workload/operation", "/workload/distribution", "/settings/store"] {
        *at(&mut run, path) = json!(evil);
    }
    for field in ["label", "ended_early", "started_at"] {
        run[field] = json!(evil);
    }
    run["notes"] = json!([evil]);
    *at(&mut run, "/options") = json!({evil: evil});
    run["restore"]["examples"] = json!([evil]);
    // Its name stands in the data of the charts, too.
    let mut other = run.clone();
    other["label"] = json!("other");
    let page = page(&[run, other]);
    for part in ["<script>alert", "<img", "</script><script>alert"] {
        assert!(!page.contains(part), "{part} is in the page");
    }
    assert_eq!(page.matches("<script").count(), 4, "the page's own");
    assert_eq!(page.matches("</script>").count(), 4);
    says(&page, &["&lt;img src=x onerror=alert(2)&gt;"]);
    assert!(model(&page)["groups"][0]["name"].as_str().unwrap().contains(evil));
}

#[test]
fn the_page_loads_nothing_from_anywhere() {
    let page = page(&[result("changelog", 100_000, 0), result("native", 100_000, 0)]);
    for part in ["<link", "src=", "@import", "url(", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(part), "{part} is in the page");
    }
    says(&page, &["default-src 'none'", "MIT License", "Leon Sorokin"]);
}

#[test]
fn files_that_are_no_results_are_named_with_the_reason() {
    let (dir, mut files) = files(&[result("changelog", 0, 0)]);
    let output = dir.path().join("report.html");
    let other = dir.path().join("other.json");
    files.push(other.clone());
    let with = |text: &str| {
        std::fs::write(&other, text).unwrap();
        report(&files, &output)
    };
    fails(&with("{\"schema_version\": 1,\n oops"), 1, &["other.json", "not JSON, line 2"]);
    fails(&with("{\"schema_version\": 99}"), 1, &["other.json", "newer version", "newer build"]);
    fails(&with("{\"schema_version\": 1}"), 1, &["other.json", "missing field"]);
    let text = result("native", 0, 0).to_string();
    fails(&with(&text.replacen("\"keys\":2000000", "\"keys\":-1", 1)), 1, &["other.json", "keys"]);
    assert!(!output.exists(), "no page of half the results");
    fails(&alluvium(&[Path::new("report"), &dir.path().join("none.json")]), 1, &["cannot read", "none.json"]);
    fails(&alluvium(&[Path::new("report")]), 2, &["FILE.json"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_results_are_not_overwritten() {
    let (dir, files) = files(&[result("changelog", 0, 0)]);
    fails(
        &report(&files, Path::new("/nonexistent/report.html")),
        1,
        &["cannot write /nonexistent/report.html"],
    );
    fails(&report(&files, dir.path()), 1, &["cannot write"]);
    fails(&report(&files, &files[0]), 2, &["would overwrite a result"]);
    assert!(std::fs::read_to_string(&files[0]).unwrap().starts_with('{'));
}
