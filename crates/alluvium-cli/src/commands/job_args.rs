//! Which job a command is about.

use clap::Args;

use crate::store_option::parse_store_option;

/// Which job.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job: a directory, file:///…, or s3://, az://, gs:// if built with that feature
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// Option of the object store, as in aws_region=eu-central-1; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_store_option)]
    pub(crate) store_option: Vec<(String, String)>,
}
