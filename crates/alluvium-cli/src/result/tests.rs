use std::path::Path;

use super::*;

/// The smallest result that says something.
pub(crate) fn minimal() -> RunResult {
    let workload = WorkloadSpec {
        keys: 1000,
        value_bytes: 100,
        subtasks: 2,
        max_parallelism: None,
        operation: "read-modify-write".to_owned(),
        distribution: "uniform".to_owned(),
        seed: 0,
    };
    let settings = Settings {
        rate: 0.0,
        duration_s: 20.0,
        warm_up_s: 0.0,
        checkpoint_interval_ms: Some(1000.0),
        materialization_interval_ms: None,
        memory_bytes: 512_000_000,
        read_cache_bytes: None,
        store: Some("file".to_owned()),
        scenario: None,
    };
    RunResult::new(Mode::Changelog, workload, settings, Machine::default(), 20.0, 1_000_000)
}

fn json(result: &RunResult) -> String {
    serde_json::to_string_pretty(result).unwrap()
}

/// Reads a file of this content.
fn read(text: impl AsRef<[u8]>) -> Result<Vec<RunResult>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.json");
    std::fs::write(&path, text).unwrap();
    ResultFile::read(&path).map(|file| file.results).map_err(|failure| failure.to_string())
}

#[track_caller]
fn refuses(text: impl AsRef<[u8]>, parts: &[&str]) {
    let message = read(text).unwrap_err();
    for part in parts.iter().chain([&"run.json"]) {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn one_result_or_an_array_of_them_is_read_back_as_written() {
    let one = minimal();
    assert_eq!(one.records_per_s, 50_000.0);
    assert_eq!(read(json(&one)), Ok(vec![one.clone()]));
    let mut other = one.clone();
    other.mode = Mode::None;
    let both = vec![one, other];
    assert_eq!(read(format!("\n  {}", serde_json::to_string(&both).unwrap())), Ok(both));
}

#[test]
fn what_was_not_measured_is_absent_and_not_null() {
    let text = json(&minimal());
    assert!(!text.contains("null"), "{text}");
    for absent in ["p999", "cpu_s_per_million_records", "restore", "samples", "label"] {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
}

#[test]
fn what_is_not_json_is_named_with_its_line() {
    refuses("{\n  \"schema_version\": 1,\n  oops\n}", &["not JSON", "line 3"]);
    refuses("", &["not JSON"]);
    refuses(b"\xff\xfe\x00", &["not JSON"]);
    refuses("[".repeat(100_000), &["not"]);
    refuses(&json(&minimal())[..300], &["not JSON", "EOF"]);
}

#[test]
fn what_is_json_but_no_result_says_so() {
    refuses("[]", &["holds no result"]);
    refuses("42", &["top level", "expected the result of a run"]);
    refuses("[[]]", &["wrong at [0]", "expected the result of a run"]);
    refuses("{}", &["not a result", "schema_version"]);
    refuses("{\"schema_version\": 0}", &["schema_version is 0", "must be 1"]);
    refuses("{\"schema_version\": \"1\"}", &["schema_version is \"1\""]);
}

#[test]
fn a_newer_schema_asks_for_a_newer_build_whatever_else_is_in_it() {
    refuses(
        "{\"schema_version\": 2, \"flavour\": {\"sweet\": []}}",
        &["newer version", "schema 2", "newer build"],
    );
    let old = json(&minimal());
    refuses(format!("[{old}, {{\"schema_version\": 3}}]"), &["newer version", "schema 3"]);
}

#[test]
fn a_wrong_field_is_named_with_its_path_and_line() {
    let mut result = minimal();
    result.samples = vec![Sample { t_s: 0.5, records: 12_345, ..Sample::default() }; 3];
    result.notes = vec!["a \"quoted\" note, with {brackets] and a \\".to_owned()];
    let text = json(&result);
    let line = |needle: &str| format!("line {}", text[..text.find(needle).unwrap()].lines().count());

    let wrong = text.replacen("\"keys\": 1000", "\"keys\": \"many\"", 1);
    refuses(&wrong, &["workload.keys", &line("\"keys\""), "invalid type", "many"]);
    refuses(format!("[{text},{wrong}]"), &["[1].workload.keys"]);
    let mut broken = result.clone();
    broken.samples[2].t_s = f64::NAN;
    refuses(json(&broken), &["samples[2].t_s", "null"]);
    refuses(text.replacen("\"mode\": \"changelog\"", "\"mode\": \"magic\"", 1), &["wrong at mode", "magic"]);
    refuses(
        text.replacen("\"distribution\"", "\"distributino\"", 1),
        &["wrong at workload,", "unknown field `distributino`"],
    );
    refuses(
        text.replacen("    \"operation\": \"read-modify-write\",\n", "", 1),
        &["wrong at workload,", "missing field `operation`"],
    );
    refuses(text.replacen("  \"records\": 1000000,\n", "", 1), &["top level", "missing field `records`"]);
    let in_third = text.rfind("\"records\": 12345").unwrap();
    let missing =
        format!("{}\"put_bytes\": 1{}", &text[..in_third], &text[in_third + "\"records\": 12345".len()..]);
    refuses(missing, &["wrong at samples[2],", "missing field `records`"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let failure = ResultFile::read(Path::new("/nonexistent/run.json")).unwrap_err().to_string();
    assert!(failure.contains("cannot read /nonexistent/run.json"), "{failure}");
}

/// ALLUVIUM_WRITE_GOLDEN=1 writes the schema anew.
#[test]
fn the_checked_in_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/result.schema.json");
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(RunResult)).unwrap() + "\n";
    if std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(
        checked_in == schema,
        "docs/result.schema.json is not the schema of the types in crates/alluvium-cli/src/result; \
         if they were meant to change, raise SCHEMA_VERSION once a version was released, and run this test with \
         ALLUVIUM_WRITE_GOLDEN=1"
    );
}

#[test]
fn a_mode_has_one_name_on_the_command_line_in_the_file_and_in_tables() {
    use clap::ValueEnum;

    assert_eq!(Mode::value_variants().len(), 3);
    for mode in Mode::value_variants() {
        assert_eq!(mode.to_possible_value().unwrap().get_name(), mode.name());
        assert_eq!(serde_json::to_value(mode).unwrap(), mode.name());
    }
}
