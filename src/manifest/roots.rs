//! What a chain keeps alive, as of one moment: the input of garbage collection.

use std::sync::Arc;

use super::model::Manifest;
use super::read::find_manifest;
use super::retained::{Entry, Retained};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Epoch, Version};
use crate::remote::Remote;

/// A retained checkpoint, or why it cannot be read.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub retained: Retained,
    pub manifest: Result<Arc<Manifest>>,
}

impl Found {
    pub(super) fn entry(&self) -> Entry {
        let record = self.manifest.as_ref().ok().and_then(|manifest| manifest.checkpoint());
        let plain = Entry { checkpoint: self.retained, facts: None };
        record.map_or(plain, |record| record.entry(self.retained.version))
    }
}

/// What may not be deleted.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    /// The newest version of the chain.
    pub newest: Version,
    /// The attempt whose objects may still be on their way.
    pub epoch: Epoch,
    /// Oldest first.
    pub retained: Vec<Found>,
    /// Whether the attempt itself asks. What it has committed since is its own to know; to anyone else a version
    /// above `newest` may refer to what was held by a pin until then.
    pub own: bool,
}

impl Roots {
    /// The roots of a chain as someone sees who takes no part in it; None where there is no chain.
    #[cfg(test)]
    pub(crate) async fn read(remote: &Remote) -> Result<Option<Self>> {
        let Some(newest) = super::read::read_newest(remote).await? else { return Ok(None) };
        let retained = find_retained(remote, &newest).await?;
        Ok(Some(Self { newest: newest.version, epoch: newest.epoch, retained, own: false }))
    }
}

/// Reads all checkpoints that `head` retains.
///
/// # Errors
/// What may pass: a store that does not answer. That one of them is damaged or lost is said in its place,
/// because the others can still be restored.
pub(super) async fn find_retained(remote: &Remote, head: &Manifest) -> Result<Vec<Found>> {
    let entries = head.retained.fetch(remote).await?;
    let reads = entries.iter().map(|entry| find(remote, head, entry.checkpoint));
    futures::future::try_join_all(reads).await
}

async fn find(remote: &Remote, head: &Manifest, retained: Retained) -> Result<Found> {
    let manifest = if retained.version == head.version {
        Ok(Arc::new(head.clone()))
    } else {
        match find_manifest(remote, retained.version).await {
            Ok(Some(manifest)) if manifest.checkpoint().is_some_and(|record| record.id == retained.id) => {
                Ok(Arc::new(manifest))
            }
            Ok(Some(_)) => Err(Error::corrupt(format!("is not checkpoint {}", retained.id))),
            Ok(None) => Err(Error::new(
                ErrorKind::MissingObject,
                format!("the manifest of checkpoint {} is gone", retained.id),
            )),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
                Err(error)
            }
            Err(error) => return Err(error),
        }
    };
    let name = crate::remote::ObjectName::manifest(retained.version);
    Ok(Found { retained, manifest: manifest.map_err(|error| error.object(name)) })
}
