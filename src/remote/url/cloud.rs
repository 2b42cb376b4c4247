//! The cloud stores, each if its feature is compiled in.

use std::sync::Arc;

use object_store::ObjectStore;
use url::Url;

use crate::error::{Error, Result};

type Options = Vec<(String, String)>;
type Store = Arc<dyn ObjectStore>;

macro_rules! cloud_store {
    ($name:ident, $feature:literal, $builder:path) => {
        #[cfg(feature = $feature)]
        pub(super) fn $name(url: &Url, options: Options) -> Result<Store> {
            provide_cryptography();
            let mut builder = <$builder>::from_env().with_url(url.to_string()).with_retry(no_retries());
            // Time limits are those of `Remote`, which grow with the bytes to move. Set as an
            // option, because `with_client_options` would forget what the environment says.
            let no_limit = ("timeout".to_owned(), "1day".to_owned());
            for (key, value) in std::iter::once(no_limit).chain(options) {
                let parsed = key.to_ascii_lowercase().parse().map_err(|error: object_store::Error| {
                    Error::invalid(format!("the store has no option {key:?}")).object(url).source(error)
                })?;
                builder = builder.with_config(parsed, value);
            }
            // Otherwise each request would fail without saying why.
            let setting = |key: &str| key.parse().ok().and_then(|key| builder.get_config_value(&key));
            if setting("endpoint").is_some_and(|endpoint| endpoint.starts_with("http://"))
                && setting("allow_http").is_none_or(|allowed| !allowed.eq_ignore_ascii_case("true"))
            {
                return Err(Error::invalid("the endpoint of the store is not encrypted")
                    .object(url)
                    .advise("give an https:// endpoint, or set the option allow_http to true"));
            }
            let store = builder.build().map_err(|error| {
                Error::invalid("the object store cannot be set up").object(url).source(error)
            })?;
            Ok(Arc::new(store))
        }

        #[cfg(not(feature = $feature))]
        pub(super) fn $name(url: &Url, _options: Options) -> Result<Store> {
            Err(Error::invalid(format!("support for {}:// is not compiled in", url.scheme()))
                .object(url)
                .advise(concat!("build with the cargo feature `", $feature, "`")))
        }
    };
}

cloud_store!(s3, "aws", object_store::aws::AmazonS3Builder);
cloud_store!(gcs, "gcp", object_store::gcp::GoogleCloudStorageBuilder);
cloud_store!(azure, "azure", object_store::azure::MicrosoftAzureBuilder);

/// A store that repeats a create by itself hides that the first one is in doubt.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
fn no_retries() -> object_store::RetryConfig {
    object_store::RetryConfig { max_retries: 0, ..Default::default() }
}

/// TLS takes its cryptography from the provider of the process, and the client panics without one.
/// A provider that the program has installed stays.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
fn provide_cryptography() {
    use rustls::crypto::{CryptoProvider, ring};

    if CryptoProvider::get_default().is_none() {
        // Another thread may have installed one since; that one stays as well.
        drop(ring::default_provider().install_default());
    }
}
