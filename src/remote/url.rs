//! From a URL to an object store.

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// A store and the place in it.
type Place = (Arc<dyn ObjectStore>, Path);

/// Opens the store that `url` names.
///
/// - `/dir`, `./dir`, `dir`, `file:///dir`: a local directory; all writes are synced to disk. One that
///   does not exist is created if `create_dir` says so, otherwise it is [`ErrorKind::NotFound`].
/// - `memory://`: a fresh store in memory; `memory://name` is the same one all over the process.
/// - `s3://`, `gs://`, `az://` and their kin, if the cargo feature is there. Settings come from the
///   environment (as in `AWS_REGION`), and over it from `options` (as in `region`).
///
/// Cloud stores are set up without retries of their own: see [`Remote`](super::Remote).
pub(crate) fn open_url(
    url: &str,
    options: impl IntoIterator<Item = (String, String)>,
    create_dir: bool,
) -> Result<Place> {
    let options: Vec<(String, String)> = options.into_iter().collect();
    let Some(parsed) = parse(url)? else {
        no_options(url, &options)?;
        return open_dir(FilePath::new(url), create_dir);
    };
    if let Some(part) = unused_part(&parsed) {
        // The URL itself is not shown: it may hold a secret.
        return Err(Error::invalid(format!("a store URL has no {part}")).advise(
            "write it as in s3://bucket/path and give credentials as options or in the environment",
        ));
    }
    match parsed.scheme() {
        "file" => {
            no_options(url, &options)?;
            open_dir(&file_path(&parsed)?, create_dir)
        }
        "memory" => {
            no_options(url, &options)?;
            open_memory(&parsed)
        }
        _ => {
            const CLOUDS: [&str; 8] = ["s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss"];
            if CLOUDS.contains(&parsed.scheme()) && parsed.host_str().is_none_or(str::is_empty) {
                let scheme = parsed.scheme();
                return Err(Error::invalid("the store URL names no bucket or container")
                    .object(url)
                    .advise(format!("write it as in {scheme}://bucket/path")));
            }
            let (scheme, path) =
                ObjectStoreScheme::parse(&parsed).map_err(|error| unknown(&parsed).source(error))?;
            let store = match scheme {
                ObjectStoreScheme::AmazonS3 => cloud::s3(&parsed, options)?,
                ObjectStoreScheme::GoogleCloudStorage => cloud::gcs(&parsed, options)?,
                ObjectStoreScheme::MicrosoftAzure => cloud::azure(&parsed, options)?,
                _ => return Err(unknown(&parsed)),
            };
            Ok((store, path))
        }
    }
}

/// A job's place in a store that the caller has made.
pub(crate) fn parse_prefix(prefix: &str) -> Result<Path> {
    Path::parse(prefix).map_err(|error| {
        Error::invalid("the prefix is not a path in an object store").object(prefix).source(error)
    })
}

/// Identifies the cloud store of a URL with its options: equal results mean the same store. None
/// for other stores, whose handles can be compared. A hash, because options hold secrets.
pub(crate) fn place_of(url: &str, options: &[(String, String)]) -> Option<[u8; 32]> {
    let parsed = parse(url).ok()??;
    let scheme = parsed.scheme();
    if matches!(scheme, "file" | "memory") {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for part in [scheme, parsed.username(), parsed.host_str().unwrap_or_default()] {
        hasher.update(part.as_bytes()).update(b"\0");
    }
    for (key, value) in options {
        hasher.update(key.as_bytes()).update(b"\0").update(value.as_bytes()).update(b"\0");
    }
    Some(*hasher.finalize().as_bytes())
}

/// The URL, or `None` if the text is a local path.
fn parse(text: &str) -> Result<Option<Url>> {
    let first = text.split(['/', '\\']).next().unwrap_or_default();
    if text.is_empty() {
        return Err(Error::invalid("the store URL is empty").advise("give a URL or a directory"));
    }
    if first.starts_with('~') {
        // The shell replaces it, but not within quotes; a directory called "~" is never meant.
        return Err(Error::invalid("the store is given as a path with ~")
            .object(text)
            .advise("write it in full"));
    }
    if !first.contains(':') {
        return Ok(None);
    }
    if !text.contains("://") {
        return Err(Error::invalid("the store is neither a URL nor a path")
            .object(text)
            .advise("write a URL with ://, or a path beginning with ./ or /"));
    }
    let wrong = |error| Error::invalid("the store URL cannot be read").object(text).source(error);
    Url::parse(text).map(Some).map_err(wrong)
}

/// A part of the URL that no store would read. Ignoring it silently could lead to another place
/// than the one that was meant.
fn unused_part(url: &Url) -> Option<&'static str> {
    let scheme = url.scheme();
    // Azure's form is az://container@account.host/path.
    let user_is_container = matches!(scheme, "az" | "adl" | "azure" | "abfs" | "abfss");
    if url.password().is_some() || (!url.username().is_empty() && !user_is_container) {
        Some("user or password")
    } else if url.query().is_some() {
        Some("query (?...)")
    } else if url.fragment().is_some() {
        Some("fragment (#...)")
    } else {
        None
    }
}

fn unknown(url: &Url) -> Error {
    let text = format!("no object store is known by the scheme {}://", url.scheme());
    let error = Error::invalid(text).object(url);
    if matches!(url.scheme(), "http" | "https") {
        error.advise("a plain web server cannot hold a job; for a store that speaks S3 give s3://bucket/path and the option endpoint")
    } else {
        error.advise("use file://, memory://, s3://, gs:// or az://, or a local path")
    }
}

fn no_options(url: &str, options: &[(String, String)]) -> Result<()> {
    match options.first() {
        None => Ok(()),
        Some((key, _)) => Err(Error::invalid(format!("a local store has no option {key:?}")).object(url)),
    }
}

fn file_path(url: &Url) -> Result<PathBuf> {
    let advice = "write file:///absolute/path, or a relative path as ./path";
    if let Some(host) = url.host_str() {
        let text = format!("a file URL names no host, but this one names {host:?}");
        return Err(Error::invalid(text).object(url).advise(advice));
    }
    url.to_file_path().map_err(|()| Error::invalid("the file URL is no path").object(url).advise(advice))
}

/// The directory that a URL names, if it is that of a local store.
pub(crate) fn dir_of(url: &str) -> Option<PathBuf> {
    match parse(url) {
        Ok(None) => Some(PathBuf::from(url)),
        Ok(Some(parsed)) if parsed.scheme() == "file" => file_path(&parsed).ok(),
        _ => None,
    }
}

fn open_dir(dir: &FilePath, create_dir: bool) -> Result<Place> {
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            return Err(Error::invalid("the store is a file, not a directory")
                .object(dir.display())
                .advise("give a directory of its own to each job"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !create_dir {
                return Err(Error::new(ErrorKind::NotFound, "the directory of the store does not exist")
                    .object(dir.display())
                    .advise("check the path"));
            }
            create(dir)?;
        }
        Err(error) => return Err(Error::disk("open the directory", dir, error)),
    }
    let store = LocalFileSystem::new_with_prefix(dir).map_err(|error| {
        Error::new(ErrorKind::Disk, "cannot open the directory of the store")
            .object(dir.display())
            .source(error)
    })?;
    // Synced, because a commit must survive a power cut. Empty folders are removed, as in a cloud
    // store.
    Ok((Arc::new(store.with_fsync(true).with_automatic_cleanup(true)), Path::ROOT))
}

/// Creates a directory and those above it, and makes their entries durable.
fn create(dir: &FilePath) -> Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent
        && !parent.exists()
    {
        create(parent)?;
    }
    match std::fs::create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(error) => return Err(Error::disk("create the directory", dir, error)),
    }
    let parent = parent.unwrap_or(FilePath::new("."));
    #[cfg(unix)]
    std::fs::File::open(parent)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::disk("sync the directory", parent, error))?;
    #[cfg(not(unix))]
    let _ = parent;
    Ok(())
}

/// The stores in memory that have a name.
static SHARED: Mutex<Option<HashMap<String, Arc<InMemory>>>> = Mutex::new(None);

fn open_memory(url: &Url) -> Result<Place> {
    let path = Path::from_url_path(url.path()).map_err(|error| bad_path(url).source(error))?;
    let store = match url.host_str() {
        None => Arc::new(InMemory::new()),
        Some(name) => {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            let store = shared.get_or_insert_default().entry(name.to_owned()).or_default();
            Arc::clone(store)
        }
    };
    Ok((store, path))
}

fn bad_path(url: &Url) -> Error {
    Error::invalid("the path of the store URL cannot be used").object(url)
}

/// The cloud stores, each if its feature is compiled in.
mod cloud {
    use super::{Arc, Error, ObjectStore, Result, Url};

    type Options = Vec<(String, String)>;
    type Store = Arc<dyn ObjectStore>;

    macro_rules! cloud_store {
        ($name:ident, $feature:literal, $builder:path) => {
            #[cfg(feature = $feature)]
            pub(super) fn $name(url: &Url, options: Options) -> Result<Store> {
                super::provide_cryptography();
                let mut builder =
                    <$builder>::from_env().with_url(url.to_string()).with_retry(super::no_retries());
                // Time limits are those of `Remote`, which grow with the bytes to move. Set as an option,
                // because `with_client_options` would forget what the environment says.
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
}

/// A store that repeats a create by itself hides that the first one is in doubt.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
fn no_retries() -> object_store::RetryConfig {
    object_store::RetryConfig { max_retries: 0, ..Default::default() }
}

/// TLS takes its cryptography from the provider of the process, and the client panics without one. A
/// provider that the program has installed stays.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
fn provide_cryptography() {
    use rustls::crypto::{CryptoProvider, ring};

    if CryptoProvider::get_default().is_none() {
        // Another thread may have installed one since; that one stays as well.
        drop(ring::default_provider().install_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str) -> Result<Place> {
        open_url(url, [], false)
    }

    fn refused(url: &str, kind: ErrorKind, says: &str) {
        let error = open(url).unwrap_err();
        assert_eq!(error.kind(), kind, "{url}: {error}");
        assert!(error.to_string().contains(says), "{url}: {error}");
    }

    #[test]
    fn a_directory_is_created_only_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a b/ü#1/job");
        let file = Url::from_file_path(&deep).unwrap();
        for url in [deep.to_str().unwrap(), file.as_str()] {
            refused(url, ErrorKind::NotFound, "does not exist");
            assert!(!dir.path().join("a b").exists());
        }
        open_url(file.as_str(), [], true).unwrap();
        assert!(deep.is_dir());
        open(deep.to_str().unwrap()).unwrap();
        // A second time, and with parts that exist.
        open_url(deep.to_str().unwrap(), [], true).unwrap();
        open_url(dir.path().join("other").to_str().unwrap(), [], true).unwrap();
        open(".").unwrap();

        let plain = dir.path().join("file");
        std::fs::write(&plain, "").unwrap();
        refused(plain.to_str().unwrap(), ErrorKind::InvalidArgument, "not a directory");
    }

    #[tokio::test]
    async fn url_and_path_lead_to_the_same_place() {
        use object_store::ObjectStoreExt;

        let dir = tempfile::tempdir().unwrap();
        let (store, root) = open_url(dir.path().join("x y").to_str().unwrap(), [], true).unwrap();
        store.put(&root.join("object"), "content".into()).await.unwrap();
        let url = Url::from_file_path(dir.path().join("x y")).unwrap();
        assert!(url.as_str().contains("x%20y"));
        let (store, root) = open(url.as_str()).unwrap();
        assert_eq!(store.get(&root.join("object")).await.unwrap().bytes().await.unwrap(), "content");
    }

    #[tokio::test]
    async fn named_memory_is_shared_and_the_nameless_is_not() {
        use object_store::ObjectStoreExt;

        for (url, shared) in [("memory://a-test-of-urls/p", true), ("memory:///p", false)] {
            let (store, root) = open(url).unwrap();
            assert_eq!(root, Path::from("p"));
            store.put(&root.clone().join("x"), "content".into()).await.unwrap();
            assert_eq!(open(url).unwrap().0.head(&root.join("x")).await.is_ok(), shared, "{url}");
        }
        open("memory://").unwrap();
    }

    #[test]
    fn places_in_one_cloud_store_are_known_as_such() {
        let option = |value: &str| vec![("region".to_owned(), value.to_owned())];
        let one = place_of("s3://bucket/a", &option("x"));
        assert!(one.is_some());
        assert_eq!(place_of("s3://bucket/b/c", &option("x")), one);
        for (url, options) in
            [("s3://other/a", option("x")), ("gs://bucket/a", option("x")), ("s3://bucket/a", option("y"))]
        {
            assert_ne!(place_of(url, &options), one, "{url}");
        }
        for url in ["memory://name/a", "file:///a", "/a", "", "a b:c"] {
            assert_eq!(place_of(url, &[]), None, "{url}");
        }
    }

    #[test]
    fn mistyped_urls_are_refused_with_a_reason() {
        use ErrorKind::InvalidArgument as Invalid;

        refused("", Invalid, "empty");
        refused("~/job", Invalid, "~");
        refused("s4://bucket/job", Invalid, "s4://");
        refused("hdfs://host/job", Invalid, "s3://");
        refused("s3:/bucket/job", Invalid, "neither a URL nor a path");
        refused("C:\\jobs", Invalid, "neither a URL nor a path");
        refused("file://relative/path", Invalid, "\"relative\"");
        refused("file://./path", Invalid, "file:///");
        refused("file:///path?x=1", Invalid, "query");
        refused("s3://bucket/a#b", Invalid, "fragment");
        refused("https://example.com/job", Invalid, "web server");
        refused("://", Invalid, "cannot be read");
        refused("s3://", Invalid, "");

        let error = open("s3://user:secret@bucket/job").unwrap_err().to_string();
        assert!(!error.contains("secret") && error.contains("password"), "{error}");
        for local in ["/tmp", "memory://"] {
            let error = open_url(local, [("region".to_string(), "x".to_string())], false).unwrap_err();
            assert!(error.to_string().contains("region"), "{error}");
        }
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn a_missing_feature_is_named() {
        refused("s3://bucket/job", ErrorKind::InvalidArgument, "cargo feature `aws`");
    }

    #[cfg(feature = "aws")]
    #[test]
    fn s3_is_set_up_from_url_and_options() {
        let option = |key: &str, value: &str| (key.to_string(), value.to_string());
        let options = [
            option("region", "eu-north-1"),
            option("endpoint", "http://localhost:1"),
            option("Allow_HTTP", "true"),
        ];
        let (store, root) = open_url("s3://bucket/some/job/", options, false).unwrap();
        assert!(store.to_string().contains("bucket"), "{store}");
        assert_eq!(root, Path::from("some/job"));
        let plain = [option("region", "x"), option("endpoint", "http://localhost:1")];
        let error = open_url("s3://bucket/job", plain, false).unwrap_err();
        assert!(error.to_string().contains("allow_http"), "{error}");
        let error = open_url("s3://bucket/job", [option("regoin", "x")], false).unwrap_err();
        assert!(error.to_string().contains("regoin"), "{error}");
    }

    #[cfg(feature = "gcp")]
    #[test]
    fn gcs_is_set_up_from_its_url() {
        let options = [("skip_signature".to_string(), "true".to_string())];
        assert_eq!(open_url("gs://bucket/job", options, false).unwrap().1, Path::from("job"));
    }

    #[cfg(feature = "azure")]
    #[test]
    fn azure_is_set_up_from_its_url() {
        let options = || {
            [
                ("account_name".to_string(), "a".to_string()),
                ("skip_signature".to_string(), "true".to_string()),
            ]
        };
        assert_eq!(open_url("az://container/job", options(), false).unwrap().1, Path::from("job"));
        let long = "abfss://container@account.dfs.core.windows.net/job";
        assert_eq!(open_url(long, options(), false).unwrap().1, Path::from("job"));
    }
}
