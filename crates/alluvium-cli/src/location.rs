//! Where a job lives, on the command line, and asking it.

use std::sync::OnceLock;
use std::time::Duration;

use alluvium::{ErrorKind, JobLocation};

use crate::failure::{Failure, Result};
use crate::signals::waiting;

/// Options and environment variables that name another endpoint than a cloud's own.
const ENDPOINT_OPTIONS: [&str; 5] =
    ["endpoint", "endpoint_url", "aws_endpoint", "aws_endpoint_url", "azure_storage_endpoint"];
const ENDPOINT_VARIABLES: [(&str, &str); 4] = [
    ("s3", "AWS_ENDPOINT_URL_S3"),
    ("s3", "AWS_ENDPOINT_URL"),
    ("s3", "AWS_ENDPOINT"),
    ("az", "AZURE_STORAGE_ENDPOINT"),
];

/// How long a store may take to answer for the first time.
static CONTACT: OnceLock<Duration> = OnceLock::new();

/// Sets how long a store may take to answer for the first time. Once, before any is asked.
pub(crate) fn set_contact_timeout(timeout: Duration) {
    let _ = CONTACT.set(timeout);
}

/// A job's URL with the options of its store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location<'a> {
    url: &'a str,
    options: &'a [(String, String)],
}

impl<'a> Location<'a> {
    pub(crate) fn new(url: &'a str, options: &'a [(String, String)]) -> Self {
        Self { url, options }
    }

    /// For the library.
    pub(crate) fn job(self) -> JobLocation {
        let job = JobLocation::url(self.url).store_options(self.options.iter().cloned());
        match self.contact_timeout() {
            Some(timeout) => job.contact_timeout(timeout),
            None => job,
        }
    }

    /// How long its store may take to answer for the first time; None for one of this machine.
    pub(crate) fn contact_timeout(self) -> Option<Duration> {
        let remote =
            self.url.split_once("://").is_some_and(|(scheme, _)| !matches!(scheme, "file" | "memory"));
        CONTACT.get().copied().filter(|_| remote)
    }

    /// As messages call it: with its endpoint, where one was named.
    pub(crate) fn name(self) -> String {
        match self.endpoint(|name| std::env::var(name).ok()) {
            Some(endpoint) => format!("{} at {endpoint}", self.url),
            None => self.url.to_owned(),
        }
    }

    fn endpoint(self, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
        let (scheme, _) = self.url.split_once("://")?;
        let given = |(key, _): &&(String, String)| {
            ENDPOINT_OPTIONS.iter().any(|option| key.eq_ignore_ascii_case(option))
        };
        let option = self.options.iter().rfind(given).map(|(_, value)| value.clone());
        let variables = ENDPOINT_VARIABLES.iter().filter(|(of, _)| *of == scheme);
        option.or_else(|| variables.filter_map(|(_, name)| variable(name)).find(|value| !value.is_empty()))
    }

    /// Asks the job's store something. The user is told if that takes long, and whom a failure comes from.
    pub(crate) fn ask<T>(self, ask: impl FnOnce(JobLocation) -> alluvium::Result<T>) -> Result<T> {
        waiting(self.name(), || ask(self.job())).map_err(|error| self.blame(error.into()))
    }

    /// Says which store it was that failed.
    pub(crate) fn blame(self, failure: Failure) -> Failure {
        match failure.kind {
            Some(ErrorKind::StoreUnavailable) => failure.hint(&format!("the store is {}", self.name())),
            _ => failure,
        }
    }
}

/// `KEY=VALUE` of an object store's option.
pub(crate) fn parse_store_option(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "write KEY=VALUE, as in aws_region=eu-central-1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_what_was_named_for_this_kind_of_store() {
        let option = [("Endpoint".to_owned(), "http://a:1".to_owned())];
        let variable = |name: &str| (name == "AWS_ENDPOINT_URL").then(|| "http://b:2".to_owned());
        let endpoint = |url, options| Location::new(url, options).endpoint(variable);
        assert_eq!(endpoint("s3://bucket/job", &option).as_deref(), Some("http://a:1"));
        assert_eq!(endpoint("s3://bucket/job", &[]).as_deref(), Some("http://b:2"));
        assert_eq!((endpoint("az://bucket/job", &[]), endpoint("./job", &[])), (None, None));
    }
}
