//! From a URL to an object store.

mod cloud;
mod directory;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use crate::error::{Error, Result};

use directory::open_dir;

/// A store, and the path below which a job lives in it.
type StoreAndRoot = (Arc<dyn ObjectStore>, Path);

/// Opens the store that `url` names.
///
/// - `/dir`, `./dir`, `dir`, `file:///dir`: a local directory; all writes are synced to disk. One
///   that does not exist is created if `create_dir` says so, otherwise it is
///   [`NotFound`](crate::ErrorKind::NotFound).
/// - `memory://`: a fresh store in memory; `memory://name` is the same one all over the process.
/// - `s3://`, `gs://`, `az://` and their kin, if the cargo feature is there. Settings come from the
///   environment (as in `AWS_REGION`), and over it from `options` (as in `region`).
///
/// Cloud stores are set up without retries of their own: see [`Remote`](super::Remote).
pub(crate) fn open_url(
    url: &str,
    options: impl IntoIterator<Item = (String, String)>,
    create_dir: bool,
) -> Result<StoreAndRoot> {
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
pub(crate) fn cloud_store_id(url: &str, options: &[(String, String)]) -> Option<[u8; 32]> {
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

/// The stores in memory that have a name.
static SHARED: Mutex<Option<HashMap<String, Arc<InMemory>>>> = Mutex::new(None);

fn open_memory(url: &Url) -> Result<StoreAndRoot> {
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
