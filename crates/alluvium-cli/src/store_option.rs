//! Where a job lives, on the command line.

use alluvium::JobLocation;

pub(crate) fn location(url: &str, options: &[(String, String)]) -> JobLocation {
    JobLocation::url(url).store_options(options.iter().cloned())
}

/// `KEY=VALUE` of an object store's option.
pub(crate) fn parse_store_option(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "write KEY=VALUE, as in aws_region=eu-central-1".to_owned())
}
