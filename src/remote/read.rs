//! Reading and listing objects.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, GetResultPayload};

use crate::error::{Error, ErrorKind, Result};

use super::error::{Failure, Verdict};
use super::{ObjectName, Remote};

/// Capacity reserved for a body before it arrives.
const MOST_AT_ONCE: usize = 64 << 20;

/// An object found by a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    /// Relative to the job's prefix. Not necessarily one of our names.
    pub(crate) name: String,
    /// In bytes.
    pub(crate) size: u64,
    /// When it was written, by the clock of the store, in milliseconds since 1970.
    pub(crate) unix_millis: u64,
}

impl Remote {
    /// A whole object. One that does not exist is [`ErrorKind::MissingObject`].
    pub(crate) async fn get(&self, name: &ObjectName) -> Result<Bytes> {
        self.get_optional(name).await?.ok_or_else(|| missing(name))
    }

    /// A whole object, or `None` if there is none.
    pub(crate) async fn get_optional(&self, name: &ObjectName) -> Result<Option<Bytes>> {
        let mut attempts = self.attempts();
        loop {
            match self.try_get(name, None).await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(failure) if failure.verdict == Verdict::Absent => return Ok(None),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    /// A part of an object. An object that ends before the range does is [`ErrorKind::Corrupt`]:
    /// the range came from a reference to it.
    pub(crate) async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes> {
        let mut attempts = self.attempts();
        loop {
            match self.try_get(name, Some(range.clone())).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) if failure.verdict == Verdict::Absent => return Err(missing(name)),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    pub(super) async fn try_get(
        &self,
        name: &ObjectName,
        range: Option<Range<u64>>,
    ) -> Result<Bytes, Failure> {
        if range.as_ref().is_some_and(Range::is_empty) {
            // HTTP has no way to ask for nothing.
            return Ok(Bytes::new());
        }
        let (result, wanted) = self.start_get(name, range).await?;
        let limit = self.limit(wanted);
        let bytes = match tokio::time::timeout(limit, self.read_body(name, result, wanted)).await {
            Ok(bytes) => bytes?,
            Err(_elapsed) => {
                self.counters.failure();
                return Err(Failure::no_answer(READ, name, limit));
            }
        };
        self.counters.received(bytes.len() as u64);
        if bytes.len() as u64 != wanted {
            self.counters.failure();
            return Err(Failure::cut_short(READ, name, bytes.len() as u64, wanted));
        }
        Ok(bytes)
    }

    async fn read_body(&self, name: &ObjectName, result: GetResult, wanted: u64) -> Result<Bytes, Failure> {
        if matches!(result.payload, GetResultPayload::File(..)) {
            return self.request(READ, name, self.limit(wanted), result.bytes()).await;
        }
        let mut stream = result.into_stream();
        let mut whole = BytesMut::new();
        loop {
            let next = async { stream.next().await.transpose() };
            // The whole body has its own limit; this one notices sooner that nothing comes.
            match self.request(READ, name, self.stall(), next).await? {
                Some(chunk) if whole.is_empty() && chunk.len() as u64 == wanted => return Ok(chunk),
                Some(chunk) => {
                    if whole.is_empty() {
                        // All at once, up to what a length from outside is believed.
                        whole.reserve(usize::try_from(wanted).unwrap_or(usize::MAX).min(MOST_AT_ONCE));
                    }
                    whole.extend_from_slice(&chunk);
                    if whole.len() as u64 > wanted {
                        return Ok(whole.freeze());
                    }
                }
                None => return Ok(whole.freeze()),
            }
        }
    }

    /// Sends the request for an object or a range of it; returns the answer before its body, and
    /// how many bytes the body must have.
    pub(super) async fn start_get(
        &self,
        name: &ObjectName,
        range: Option<Range<u64>>,
    ) -> Result<(GetResult, u64), Failure> {
        self.counters.get();
        let path = self.path(name);
        let options = GetOptions::new().with_range(range.clone());
        let get = self.store.get_opts(&path, options);
        let limit = self.limit_by_pace(0, self.timeout);
        let result = match self.timed(READ, name, 0, limit, get).await {
            Ok(result) => result,
            Err(failure) => {
                // A range that begins behind the end is refused by all stores, each in its own
                // words. So ask for the size; whether that works or not, the first failure tells
                // more.
                if let (Verdict::Passing, Some(range)) = (failure.verdict, range)
                    && let Ok(size) = self.try_head(name).await
                    && size < range.end
                {
                    return Err(Failure::lasting(too_short(name, &range, size)));
                }
                return Err(failure);
            }
        };
        if let Some(range) = range
            && result.range != range
        {
            return Err(Failure::lasting(too_short(name, &range, result.meta.size)));
        }
        let wanted = result.range.end.saturating_sub(result.range.start);
        Ok((result, wanted))
    }

    /// All objects below `folder` (one of [`ObjectName::FOLDERS`]; "" is everything), sorted by
    /// name.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let mut attempts = self.attempts();
        loop {
            match self.try_list(folder).await {
                Ok(listed) => return Ok(listed),
                Err(failure) => attempts.again(absent_place(failure)).await?,
            }
        }
    }

    async fn try_list(&self, folder: &str) -> Result<Vec<Listed>, Failure> {
        self.counters.list();
        let prefix = if folder.is_empty() { self.root.clone() } else { self.below(folder) };
        let mut pages = self.store.list(Some(&prefix));
        let mut listed = Vec::new();
        loop {
            // The limit holds for each page, not for the whole of a listing that may be long.
            let next = async { pages.next().await.transpose() };
            let Some(meta) = self.request("list objects", &prefix, self.timeout, next).await? else {
                break;
            };
            if let Some(name) = self.relative(&meta.location) {
                let unix_millis = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
                listed.push(Listed { name, size: meta.size, unix_millis });
            }
        }
        listed.sort_unstable();
        Ok(listed)
    }

    /// The names directly below the job's prefix, folders and objects alike, sorted.
    pub(crate) async fn list_top(&self) -> Result<Vec<String>> {
        let mut attempts = self.attempts();
        loop {
            self.counters.list();
            let list = self.store.list_with_delimiter(Some(&self.root));
            match self.request("list objects", self.root.as_ref(), self.timeout, list).await {
                Ok(top) => {
                    let objects = top.objects.into_iter().map(|meta| meta.location);
                    let paths = top.common_prefixes.into_iter().chain(objects);
                    let mut names: Vec<String> = paths.filter_map(|path| self.relative(&path)).collect();
                    names.sort_unstable();
                    names.dedup();
                    return Ok(names);
                }
                Err(failure) => attempts.again(absent_place(failure)).await?,
            }
        }
    }

    /// The part of `path` below the root.
    fn relative(&self, path: &Path) -> Option<String> {
        let parts: Vec<_> = path.prefix_match(&self.root)?.collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        (!parts.is_empty()).then(|| parts.join("/"))
    }
}

pub(super) const READ: &str = "read the object";

pub(super) fn missing(name: &ObjectName) -> Error {
    Error::new(ErrorKind::MissingObject, "the object does not exist").object(name)
}

fn too_short(name: &ObjectName, range: &Range<u64>, size: u64) -> Error {
    Error::corrupt(format!(
        "the object has {size} bytes, but bytes {} to {} of it are referred to",
        range.start, range.end
    ))
    .object(name)
}

/// An empty prefix lists as empty. "Not found" therefore means that the store itself does not
/// exist.
fn absent_place(failure: Failure) -> Failure {
    if failure.verdict == Verdict::Absent {
        let error = failure.error.advise("check that the bucket or container exists");
        return Failure::lasting(error);
    }
    failure
}
