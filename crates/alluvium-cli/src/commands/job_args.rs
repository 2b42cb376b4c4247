//! Which job a command is about, and what commands on jobs are refused for.

use clap::Args;

use crate::failure::Failure;
use crate::location::{Location, parse_store_option};

/// Which job.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job: a directory, file:///…, or s3://, az://, gs:// if built with that feature
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// Option of the object store, as in aws_region=eu-central-1; may be repeated. What is not given is taken
    /// from the environment, as in AWS_ACCESS_KEY_ID
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_store_option)]
    pub(crate) store_option: Vec<(String, String)>,
}

impl JobArgs {
    pub(crate) fn location(&self) -> Location<'_> {
        Location::new(&self.url, &self.store_option)
    }
}

/// The failure of a command that names what the job does not have.
pub(crate) fn none_such(what: &str, kind: &str, known: &[&str]) -> Failure {
    match known {
        [] => Failure::new(format!("the job has no {what}: it has no {kind}")),
        known => Failure::new(format!("the job has no {what}; choose one of [{}]", known.join(", "))),
    }
}

/// The failure of a release that only said what it would release.
pub(crate) fn not_confirmed(what: &str, when: &str) -> Failure {
    Failure::usage(format!("{what} was not released")).hint(when)
}
