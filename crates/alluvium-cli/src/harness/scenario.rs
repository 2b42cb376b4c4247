//! Named sets of options: what a scenario says comes before what the user says, who may override any of
//! it. A scenario is a TOML file whose keys are the names of options; clap reads both alike, and so a typo
//! in a scenario is as good an error as one on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser};
use toml::{Table, Value};

use crate::failure::{Failure, Result, io};

/// Name and text of every scenario; the text's first line is a comment that says what it is about.
const SCENARIOS: [(&str, &str); 10] = [
    ("reference", include_str!("../../scenarios/reference.toml")),
    ("full-speed", include_str!("../../scenarios/full-speed.toml")),
    ("zipf", include_str!("../../scenarios/zipf.toml")),
    ("compaction-burst", include_str!("../../scenarios/compaction-burst.toml")),
    ("window", include_str!("../../scenarios/window.toml")),
    ("large-state", include_str!("../../scenarios/large-state.toml")),
    ("many-subtasks", include_str!("../../scenarios/many-subtasks.toml")),
    ("short-interval", include_str!("../../scenarios/short-interval.toml")),
    ("store-outage", include_str!("../../scenarios/store-outage.toml")),
    ("slow-store", include_str!("../../scenarios/slow-store.toml")),
];

/// Options that are true by default for some command, so that false says something.
const TAKE_BOOL: [&str; 1] = ["verify"];

/// Where options may come from beside the command line.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Scenario")]
pub(crate) struct ScenarioArgs {
    /// Take options from a named scenario; those of the command line go before them
    #[arg(long, value_name = "NAME", value_parser = names())]
    pub(crate) scenario: Option<String>,
    /// The same, from a TOML file whose keys are options, as in `rate = "20k"`
    #[arg(long, value_name = "FILE", conflicts_with = "scenario")]
    pub(crate) scenario_file: Option<PathBuf>,
}

fn names() -> PossibleValuesParser {
    SCENARIOS.map(|(name, text)| PossibleValue::new(name).help(about(text))).into()
}

fn about(text: &'static str) -> &'static str {
    text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
}

impl ScenarioArgs {
    /// What the run is called after.
    pub(crate) fn name(&self) -> Option<String> {
        let file = || Some(self.scenario_file.as_deref()?.file_stem()?.to_string_lossy().into_owned());
        self.scenario.clone().or_else(file)
    }

    /// The scenario's options as arguments of a command line, with the name for messages. None without a
    /// scenario.
    pub(crate) fn arguments(&self) -> Result<Option<(String, Vec<OsString>)>> {
        if let Some(name) = &self.scenario {
            let text = SCENARIOS.iter().find(|(known, _)| known == name).map_or("", |(_, text)| *text);
            return Ok(Some((format!("scenario {name}"), arguments(name, text)?)));
        }
        let Some(path) = &self.scenario_file else { return Ok(None) };
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(io(format!("read {name}")))?;
        Ok(Some((name.clone(), arguments(&name, &text)?)))
    }
}

fn arguments(name: &str, text: &str) -> Result<Vec<OsString>> {
    let table: Table = text.parse().map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    let mut arguments = Vec::new();
    for (key, value) in table {
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            arguments
                .extend(argument(&key, &value).map_err(|error| Failure::usage(format!("{name}: {error}")))?);
        }
    }
    Ok(arguments)
}

fn argument(key: &str, value: &Value) -> Result<Option<OsString>, String> {
    Ok(match value {
        Value::String(text) => Some(format!("--{key}={text}").into()),
        Value::Integer(number) => Some(format!("--{key}={number}").into()),
        Value::Float(number) => Some(format!("--{key}={number}").into()),
        Value::Boolean(value) if TAKE_BOOL.contains(&key) => Some(format!("--{key}={value}").into()),
        Value::Boolean(true) => Some(format!("--{key}").into()),
        Value::Boolean(false) => None,
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            return Err(format!("the value of {key} must be a text, a number, true or false"));
        }
    })
}

/// `arguments` of the command line with those of the scenario before the user's own.
pub(crate) fn expand(command_line: &[OsString], scenario: Vec<OsString>) -> Vec<OsString> {
    let (program_and_command, own) = command_line.split_at(through_command(command_line));
    [program_and_command, &scenario, own].concat()
}

/// How many arguments there are up to the command: what stands before it holds for all of them.
pub(crate) fn through_command(command_line: &[OsString]) -> usize {
    let command = command_line.iter().position(|argument| argument == "load" || argument == "compare");
    command.map_or(command_line.len(), |at| at + 1)
}

/// The names of the files in the folder.
#[cfg(test)]
fn on_disk() -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{Cli, Command};

    #[test]
    fn every_scenario_is_known_commented_and_parses_for_both_commands() {
        let mut known = SCENARIOS.map(|(name, _)| name.to_owned());
        known.sort_unstable();
        assert_eq!(on_disk(), known);
        for (name, text) in SCENARIOS {
            assert!(text.starts_with("# ") && about(text).len() > 20, "{name}");
            let scenario = ScenarioArgs { scenario: Some(name.to_owned()), scenario_file: None };
            let (_, options) = scenario.arguments().unwrap().unwrap();
            assert!(options.len() > 3, "{name}");
            for command in ["load", "compare"] {
                let line = expand(&["alluvium".into(), command.into()], options.clone());
                Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{name} {command}: {error}"));
            }
        }
    }

    #[test]
    fn what_the_user_says_goes_before_the_scenario() {
        let line: Vec<OsString> = ["alluvium", "load", "--rate=7"].map(Into::into).to_vec();
        let line = expand(&line, vec!["--rate=5k".into(), "--keys=9".into()]);
        let Command::Load(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
        assert_eq!((args.run.rate, args.workload.keys), (7, Some(9)));
    }

    #[test]
    fn what_stands_before_the_command_stays_there() {
        let line: Vec<OsString> = ["alluvium", "-v", "load", "--rate=7"].map(Into::into).to_vec();
        assert_eq!(expand(&line, vec!["--keys=9".into()])[2..4], ["load", "--keys=9"]);
    }

    #[test]
    fn values_of_all_kinds_become_arguments() {
        let text = "rate = '5k'\nsubtasks = 3\nrestore = true\nverify = false\nstore-option = ['a=1', 'b=2']";
        let read = arguments("test", text).unwrap();
        let wanted = [
            "--rate=5k",
            "--restore",
            "--store-option=a=1",
            "--store-option=b=2",
            "--subtasks=3",
            "--verify=false",
        ];
        let mut read: Vec<_> = read.iter().map(|argument| argument.to_str().unwrap()).collect();
        read.sort_unstable();
        assert_eq!(read, wanted);
        assert!(arguments("test", "rate = {}").unwrap_err().to_string().contains("rate"));
        assert!(arguments("test", "rate =").unwrap_err().to_string().starts_with("test: "));
    }
}
