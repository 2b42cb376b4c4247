//! Options of an object store on the command line.

/// `KEY=VALUE` of an object store's option.
pub(crate) fn parse_store_option(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "write KEY=VALUE, as in aws_region=eu-central-1".to_owned())
}
