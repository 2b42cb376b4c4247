//! Options as earlier versions spelled them. They are refused with today's spelling: taken silently, `--json result.json`
//! would make a job in a directory of that name.

use std::ffi::OsString;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::Failure;

/// Commands that write the result of a run.
const RUNS: [&str; 3] = ["compare", "load", "restore-test"];
/// Commands that keep their local files below `--temp-dir`.
const TEMPORARY: [&str; 6] = ["compare", "get", "scan", "export", "import", "state"];

/// What to write instead, if the line has been refused for an old spelling.
pub(crate) fn spelled_now(line: &[OsString], error: &Error) -> Option<Failure> {
    if !matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::TooManyValues) {
        return None;
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    let words: Vec<&str> = line.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let of = |commands: &[&'static str]| commands.iter().copied().find(|command| words.contains(command));
    let option = argument.split([' ', '=']).next().unwrap_or_default();
    if let ("--store", Some(command)) = (option, of(&RUNS)) {
        return Some(refused("--store", &format!("the URL stands alone, as in: alluvium {command} ./job")));
    }
    if let ("--no-verify", Some(_)) = (option, of(&RUNS)) {
        return Some(refused("--no-verify", "write --verify=false"));
    }
    if let ("--dir", Some(command)) = (option, of(&TEMPORARY)) {
        return Some(refused("--dir", &format!("of {command} it is called --temp-dir")));
    }
    // `--json FILE`, or `--json=FILE`. A file that stands where URL does is found by `check_url`.
    let file = words.windows(2).any(|pair| pair[0] == "--json" && !pair[1].starts_with('-'));
    match (option, of(&RUNS)) {
        (option, Some(_)) if option == "--json" || file && !option.starts_with('-') => {
            Some(refused("--json FILE", "--output FILE writes the result there, --json prints it"))
        }
        _ => None,
    }
}

fn refused(option: &str, now: &str) -> Failure {
    Failure::usage(format!("{option} is no longer an option")).hint(now)
}

/// Refuses the URL of a run that is what follows an option without a value: the file of `--json FILE`, or the word of
/// `--verify false`. A directory that has such a name can be written with a slash after it.
pub(crate) fn check_url(url: Option<&str>) -> Result<(), Failure> {
    let now = match url {
        Some("true" | "false") => "the option is written --verify=false",
        Some(url) if url == "-" || url.ends_with(".json") => {
            "--output FILE writes the result there, --json prints it"
        }
        _ => return Ok(()),
    };
    let url = url.unwrap_or_default();
    Err(Failure::usage(format!("{url} would be the directory of a job")).hint(now))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::Cli;

    fn said(line: &str) -> Option<String> {
        let line: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = Cli::try_parse_from(&line).unwrap_err();
        spelled_now(&line, &error).map(|failure| failure.to_string())
    }

    #[test]
    fn what_is_spelled_otherwise_now_is_refused_with_todays_spelling() {
        for (line, now) in [
            ("alluvium load --store ./job", "alluvium load ./job"),
            ("alluvium compare --keys 10 --store=./job", "alluvium compare ./job"),
            ("alluvium restore-test --dir x --store ./job", "alluvium restore-test ./job"),
            ("alluvium compare --no-verify", "--verify=false"),
            ("alluvium --contact-timeout 1s compare --dir x", "--temp-dir"),
            ("alluvium state list ./job --dir=x", "--temp-dir"),
            ("alluvium scan ./job words --dir x", "--temp-dir"),
            ("alluvium compare --json=out.json", "--output FILE"),
            ("alluvium load ./job --json out.json", "--output FILE"),
            ("alluvium restore-test --json out.json ./job --dir x", "--output FILE"),
        ] {
            let said = said(line);
            assert!(said.as_ref().is_some_and(|said| said.contains(now)), "{line}: {said:?}");
        }
    }

    #[test]
    fn other_mistakes_are_clap_s_own() {
        for line in [
            "alluvium load --stor ./job",
            "alluvium load --no-pin",
            "alluvium inspect ./job --store x",
            "alluvium inspect ./job --json x",
            "alluvium load ./job another",
            "alluvium load --keys many",
        ] {
            assert_eq!(said(line), None, "{line}");
        }
    }

    #[test]
    fn what_follows_an_option_is_not_taken_for_a_job() {
        for (url, now) in [("-", "--output"), ("out/result.json", "--output"), ("false", "--verify=false")] {
            assert!(check_url(Some(url)).unwrap_err().to_string().contains(now), "{url}");
        }
        for url in [None, Some("./job"), Some("s3://bucket/job"), Some("result.json/")] {
            check_url(url).unwrap();
        }
    }
}
