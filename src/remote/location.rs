//! Where a job lives.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;

use super::Remote;
use super::url::{cloud_store_id, dir_of, open_url, parse_prefix};
use crate::env::Env;
use crate::error::{Error, Result};

/// Where a job lives: a URL with the options of its object store, or an object store that the
/// caller has made and a prefix in it. Both convert by `into()`, as in
/// `Job::open("s3://bucket/job", …)` and `Job::open((store, "job"), …)`.
///
/// A URL is `file:///path` or a plain path, `memory:///`, and with the cargo features in
/// parentheses `s3://bucket/prefix` (`aws`), `gs://bucket/prefix` (`gcp`), `az://container/prefix`
/// (`azure`). A prefix must not lie within that of another job. The location is checked when a job,
/// a reader or a tool opens it, not before.
///
/// ```
/// use std::time::Duration;
///
/// use alluvium::JobLocation;
///
/// let location = JobLocation::url("s3://bucket/job")
///     .store_option("region", "eu-central-1")
///     .request_timeout(Duration::from_secs(10));
/// ```
#[derive(Clone)]
pub struct JobLocation {
    address: Address,
    request_timeout: Duration,
    contact_timeout: Option<Duration>,
    /// Whether options were given to a store that the caller has made. Kept until the location is
    /// opened, because setters return no errors.
    misplaced: bool,
}

#[derive(Clone)]
enum Address {
    Url { url: String, options: Vec<(String, String)> },
    Store { store: Arc<dyn ObjectStore>, prefix: String },
}

/// An opened location.
pub(crate) struct Connected {
    pub(crate) remote: Remote,
    /// Identifies a cloud store: equal values mean the same one.
    pub(crate) cloud: Option<[u8; 32]>,
    /// The directory, where it is one.
    pub(crate) dir: Option<PathBuf>,
}

impl JobLocation {
    /// A job at a URL.
    pub fn url(url: impl Into<String>) -> Self {
        Self::new(Address::Url { url: url.into(), options: Vec::new() })
    }

    /// A job in an object store that the caller has made.
    pub fn store(store: Arc<dyn ObjectStore>, prefix: impl Into<String>) -> Self {
        Self::new(Address::Store { store, prefix: prefix.into() })
    }

    fn new(address: Address) -> Self {
        Self { address, request_timeout: Duration::from_secs(30), contact_timeout: None, misplaced: false }
    }

    /// An option of a URL's object store, under the name that `object_store` has for it
    /// (`aws_region`, `azure_storage_account_name`, …). Options that are not given come from the
    /// environment (`AWS_REGION`, `AWS_ACCESS_KEY_ID`, …). If an authority of your own has issued
    /// the store's certificate, set the environment variable `SSL_CERT_FILE` to a file with that
    /// authority's certificate. An object store that the caller has made has its options already,
    /// and opening it with more is refused. Default none.
    #[must_use]
    pub fn store_option(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.store_options([(key, value)])
    }

    /// As [`JobLocation::store_option`], for any number of them.
    #[must_use]
    pub fn store_options<K: Into<String>, V: Into<String>>(
        mut self,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let more = options.into_iter().map(|(key, value)| (key.into(), value.into()));
        self.address = match self.address {
            Address::Url { url, mut options } => {
                options.extend(more);
                Address::Url { url, options }
            }
            address @ Address::Store { .. } => {
                self.misplaced |= more.count() > 0;
                address
            }
        };
        self
    }

    /// How long a request to the object store may take, in addition to the time that its bytes need
    /// at 256 KiB/s. Default 30 seconds.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long the object store may take until it answers for the first time, all tries together.
    /// A user at a terminal wants to hear soon of a wrong address. Default: no limit of its
    /// own, so that a silent store fails a first request after five times the [request
    /// timeout](JobLocation::request_timeout). An answer that the store is busy counts. A job that
    /// starts during an outage does not open after this time, whatever
    /// [`JobOptions::restore_patience`](crate::JobOptions::restore_patience) says.
    #[must_use]
    pub fn contact_timeout(mut self, timeout: Duration) -> Self {
        self.contact_timeout = Some(timeout);
        self
    }

    /// As the location is called in reports: the URL, or the prefix.
    pub(crate) fn name(&self) -> &str {
        match &self.address {
            Address::Url { url, .. } => url,
            Address::Store { prefix, .. } => prefix,
        }
    }

    /// # Errors
    /// `InvalidArgument` for a wrong URL, option or prefix; `NotFound` for a directory that does
    /// not exist, unless `create_dir` is set.
    pub(crate) fn connect(&self, env: Env, create_dir: bool) -> Result<Connected> {
        if self.request_timeout.is_zero() || self.contact_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::invalid("a timeout must be longer than 0"));
        }
        if self.misplaced {
            return Err(Error::invalid("an object store that the caller has made takes no options")
                .object(self.name())
                .advise("give them where the store is made"));
        }
        let (store, prefix, cloud, dir) = match &self.address {
            Address::Url { url, options } => {
                let (store, prefix) = open_url(url, options.iter().cloned(), create_dir)?;
                (store, prefix, cloud_store_id(url, options), dir_of(url))
            }
            Address::Store { store, prefix } => (Arc::clone(store), parse_prefix(prefix)?, None, None),
        };
        let remote = Remote::new(store, prefix, env)
            .with_timeout(self.request_timeout)
            .with_contact_timeout(self.contact_timeout);
        Ok(Connected { remote, cloud, dir })
    }
}

/// Shows only the name: options may hold secrets, and so may a store's own `Debug`.
impl fmt::Debug for JobLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobLocation").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl From<&str> for JobLocation {
    fn from(url: &str) -> Self {
        Self::url(url)
    }
}

impl From<String> for JobLocation {
    fn from(url: String) -> Self {
        Self::url(url)
    }
}

impl From<&String> for JobLocation {
    fn from(url: &String) -> Self {
        Self::url(url)
    }
}

impl From<&JobLocation> for JobLocation {
    fn from(location: &JobLocation) -> Self {
        location.clone()
    }
}

impl<P: Into<String>> From<(Arc<dyn ObjectStore>, P)> for JobLocation {
    fn from((store, prefix): (Arc<dyn ObjectStore>, P)) -> Self {
        Self::store(store, prefix)
    }
}

impl<S: ObjectStore, P: Into<String>> From<(Arc<S>, P)> for JobLocation {
    fn from((store, prefix): (Arc<S>, P)) -> Self {
        Self::store(store, prefix)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::error::ErrorKind;

    fn problem(location: impl Into<JobLocation>) -> Error {
        location.into().connect(Env::default(), false).err().unwrap()
    }

    #[test]
    fn a_location_is_looked_at_when_it_is_opened() {
        assert_eq!(problem("").kind(), ErrorKind::InvalidArgument);
        assert_eq!(problem("/no/such/directory").kind(), ErrorKind::NotFound);
        assert_eq!(problem((Arc::new(InMemory::new()), "a//b")).kind(), ErrorKind::InvalidArgument);
        let hurried = JobLocation::url("memory://").request_timeout(Duration::ZERO);
        assert_eq!(problem(&hurried).kind(), ErrorKind::InvalidArgument);
        let optional = JobLocation::url("memory://").store_option("region", "x");
        assert_eq!(problem(optional).kind(), ErrorKind::InvalidArgument, "a store in memory has no options");
        let made = JobLocation::from((Arc::new(InMemory::new()), "job")).store_option("region", "x");
        assert_eq!(problem(made).kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn what_is_printed_has_no_secrets() {
        let location = JobLocation::url("s3://bucket/job").store_option("secret", "squirrel");
        let text = format!("{location:?}");
        assert!(text.contains("s3://bucket/job") && !text.contains("squirrel"), "{text}");
    }
}
