//! Reads a chain without taking part in it.

use bytes::Bytes;

use super::errors::{self, unlisted};
use super::format::{self, HEADER_LEN, Header};
use super::model::{Manifest, RecordKind};
use super::retained::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Epoch, Version};
use crate::remote::{ObjectName, Remote};

/// How often a reader that loses the race against garbage collection lists the chain again.
const READ_ATTEMPTS: u32 = 16;

/// One version as the listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChainEntry {
    pub version: Version,
    pub size: u64,
}

/// All versions there are, ascending. Objects with other names are passed over.
///
/// # Errors
/// `StoreUnavailable`, also if the listing is empty although the first record exists, which is never deleted. A web
/// server that answers every request with some page looks like that.
pub(crate) async fn list_chain(remote: &Remote) -> Result<Vec<ChainEntry>> {
    let chain = list_once(remote).await?;
    let first = ObjectName::manifest(Version(1));
    if !chain.is_empty() || remote.get_optional(&first).await?.is_none() {
        return Ok(chain);
    }
    // The chain may have been created a moment ago.
    let again = list_once(remote).await?;
    if again.is_empty() {
        let message = "the store does not list an object that it has";
        return Err(Error::new(ErrorKind::StoreUnavailable, message)
            .object(first)
            .advise("what answers at this address may be no object store: check the endpoint"));
    }
    Ok(again)
}

async fn list_once(remote: &Remote) -> Result<Vec<ChainEntry>> {
    let listing = remote.list(ObjectName::MANIFESTS).await?;
    let mut chain: Vec<_> = listing
        .iter()
        .filter_map(|listed| match ObjectName::parse(&listed.name) {
            Some(ObjectName::Manifest(version)) => Some(ChainEntry { version, size: listed.size }),
            _ => None,
        })
        .collect();
    chain.sort_by_key(|entry| entry.version);
    Ok(chain)
}

/// The newest version; None where there is no chain.
pub(super) async fn newest_version(remote: &Remote) -> Result<Option<Version>> {
    Ok(list_chain(remote).await?.last().map(|entry| entry.version))
}

/// A manifest and its bytes, all checked.
///
/// # Errors
/// `MissingObject` if there is none, `Corrupt`, `UnsupportedVersion`, or what the store answers.
pub(crate) async fn read_manifest(remote: &Remote, version: Version) -> Result<(Manifest, Bytes)> {
    let name = ObjectName::manifest(version);
    let bytes = remote.get(&name).await?;
    Ok((decode(&name, version, &bytes)?, bytes))
}

/// A manifest, or None if there is none of this version.
pub(super) async fn find_manifest(remote: &Remote, version: Version) -> Result<Option<Manifest>> {
    let name = ObjectName::manifest(version);
    match remote.get_optional(&name).await? {
        Some(bytes) => decode(&name, version, &bytes).map(Some),
        None => Ok(None),
    }
}

fn decode(name: &ObjectName, version: Version, bytes: &[u8]) -> Result<Manifest> {
    let manifest = format::decode(bytes).map_err(|error| error.object(name))?;
    if manifest.version != version {
        let message = format!("the object holds version {} of the chain", manifest.version);
        return Err(Error::corrupt(message).object(name));
    }
    Ok(manifest)
}

/// What a version stands for, from its first bytes; None if there is none.
pub(crate) async fn read_kind(remote: &Remote, version: Version) -> Result<Option<RecordKind>> {
    let name = ObjectName::manifest(version);
    let bytes = match remote.get_range(&name, 0..HEADER_LEN).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::MissingObject => return Ok(None),
        Err(error) => return Err(error),
    };
    Header::decode(&bytes).map(|header| Some(header.kind)).map_err(|error| error.object(name))
}

/// The newest version and whose it is, as of a moment after the call. Without reading it if it is still `known`.
///
/// # Errors
/// `UnsafeStore` if the listing lacks `known`, which is there; what [`read_newest`] has.
pub(crate) async fn newest_attempt(remote: &Remote, known: (Version, Epoch)) -> Result<(Version, Epoch)> {
    for _ in 0..READ_ATTEMPTS {
        let newest = newest_version(remote).await?;
        let Some(newest) = newest.filter(|newest| *newest >= known.0) else {
            return Err(unlisted(&ObjectName::manifest(known.0)));
        };
        if newest == known.0 {
            return Ok(known);
        }
        if let Some(manifest) = find_manifest(remote, newest).await? {
            return Ok((newest, manifest.epoch));
        }
    }
    Err(too_fast())
}

/// A version that cannot be read, and why.
#[derive(Debug, Clone)]
pub(crate) struct Damaged {
    pub version: Version,
    pub error: Error,
}

/// The top of a chain, as far as it can be read.
#[derive(Debug, Clone)]
pub(crate) struct Top {
    /// The newest version, readable or not; None where there is no chain.
    pub newest: Option<Version>,
    /// The newest one that can be read.
    pub head: Option<Manifest>,
    /// Those above it, newest first.
    pub damaged: Vec<Damaged>,
}

impl Top {
    /// Why nothing may be built on this top, if so.
    pub(crate) fn refusal(&self, past_damage: bool) -> Option<Error> {
        let newest = self.damaged.first()?;
        if !past_damage {
            return Some(errors::past_damage(newest.error.clone()));
        }
        // The first version is always an open record: before it there was nothing.
        if self.head.is_none() && newest.version != Version(1) {
            let error = newest.error.clone().more_advice("no version of the manifest chain can be read");
            return Some(error);
        }
        None
    }

    /// Whether a checkpoint may have been lost, and there is none to go back to.
    pub(crate) fn is_lost(&self) -> bool {
        let retained = self.head.as_ref().is_some_and(|head| !head.retained.is_empty());
        !retained && self.damaged.iter().any(|damaged| damaged.version != Version(1))
    }
}

/// Reads the chain from its top down to the first version that is intact. One of a newer format is not damaged: it is
/// an error.
pub(crate) async fn read_top(remote: &Remote) -> Result<Top> {
    'anew: for _ in 0..READ_ATTEMPTS {
        let chain = list_chain(remote).await?;
        let newest = chain.last().map(|entry| entry.version);
        let mut damaged = Vec::new();
        for entry in chain.iter().rev() {
            let version = entry.version;
            match find_manifest(remote, version).await {
                Ok(Some(head)) => return Ok(Top { newest, head: Some(head), damaged }),
                // It is no longer the newest, and was collected already.
                Ok(None) if Some(version) == newest => continue 'anew,
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => damaged.push(Damaged { version, error }),
                Err(error) => return Err(error),
            }
        }
        return Ok(Top { newest, head: None, damaged });
    }
    Err(too_fast())
}

/// The newest manifest; None where there is no chain.
pub(crate) async fn read_newest(remote: &Remote) -> Result<Option<Manifest>> {
    for _ in 0..READ_ATTEMPTS {
        let Some(newest) = newest_version(remote).await? else { return Ok(None) };
        if let Some(manifest) = find_manifest(remote, newest).await? {
            return Ok(Some(manifest));
        }
        // It is no longer the newest, and was collected already.
    }
    Err(too_fast())
}

fn too_fast() -> Error {
    Error::new(ErrorKind::StoreUnavailable, "the manifest chain moves on faster than it can be read")
        .object(ObjectName::MANIFESTS)
}

/// The newest manifest with all checkpoints that it retains, oldest first; None where there is no chain.
///
/// # Errors
/// As [`read_newest`]; `Corrupt` and the like naming the manifest that carries a part of the list.
pub(crate) async fn read_newest_list(remote: &Remote) -> Result<Option<(Manifest, Vec<Entry>)>> {
    let mut tries = 1..READ_ATTEMPTS;
    loop {
        let Some(newest) = read_newest(remote).await? else { return Ok(None) };
        match newest.retained.fetch(remote).await {
            Ok(list) => return Ok(Some((newest, list))),
            // Checkpoints were dropped meanwhile, and those that carried a part of the list.
            Err(error) if error.kind() == ErrorKind::MissingObject && tries.next().is_some() => {}
            Err(error) => return Err(error),
        }
    }
}

/// The checkpoints that the newest manifest retains, oldest first.
#[cfg(test)]
pub(crate) async fn retained_now(remote: &Remote) -> Vec<super::Retained> {
    let (_, list) = read_newest_list(remote).await.unwrap().unwrap();
    list.iter().map(|entry| entry.checkpoint).collect()
}
