//! The checkpoints that a chain keeps alive at one moment: the input of garbage collection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};

use super::live::Live;
use super::model::Manifest;
use super::read::find_manifest;
use super::retained::{Entry, Retained, is_lasting};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Epoch, Version};
use crate::remote::{ObjectName, Remote};

/// Checkpoints read at the same time.
const PARALLEL_READS: usize = 16;

/// A checkpoint that can be restored.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub retained: Retained,
    /// If it was read already.
    pub manifest: Option<Arc<Manifest>>,
}

impl Found {
    /// The checkpoint's manifest.
    ///
    /// # Errors
    /// `MissingObject` if it is gone, `Corrupt` and `UnsupportedVersion` naming it; what the store answers.
    pub(crate) async fn read(&self, remote: &Remote) -> Result<Arc<Manifest>> {
        if let Some(manifest) = &self.manifest {
            return Ok(Arc::clone(manifest));
        }
        let Retained { version, id } = self.retained;
        let manifest = match find_manifest(remote, version).await? {
            Some(manifest) if manifest.checkpoint().is_some_and(|record| record.id == id) => Ok(manifest),
            Some(_) => Err(Error::corrupt(format!("is not checkpoint {id}"))),
            None => {
                let message = format!("the manifest of checkpoint {id} is gone");
                Err(Error::new(ErrorKind::MissingObject, message))
            }
        };
        manifest.map(Arc::new).map_err(|error| error.object(ObjectName::manifest(version)))
    }
}

impl From<Retained> for Found {
    fn from(retained: Retained) -> Self {
        Self { retained, manifest: None }
    }
}

/// What may not be deleted.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    /// The newest version of the chain.
    pub newest: Version,
    /// The attempt whose objects may still be on their way.
    pub epoch: Epoch,
    /// What is retained, and what that refers to. Goes on with the attempt's commits.
    pub live: Arc<Mutex<Live>>,
    /// Whether the attempt itself collects. It knows what it has committed since. To any other collector, a version
    /// above `newest` may refer to objects that only a pin kept until then.
    pub own: bool,
}

impl Roots {
    /// The roots of a chain as an outsider sees them; None where there is no chain.
    #[cfg(test)]
    pub(crate) async fn read(remote: &Remote) -> Result<Option<Self>> {
        let Some((newest, list)) = super::read::read_newest_list(remote).await? else { return Ok(None) };
        let live = Live::new(list.iter().map(|entry| entry.checkpoint), None);
        let live = Arc::new(Mutex::new(live));
        Ok(Some(Self { newest: newest.version, epoch: newest.epoch, live, own: false }))
    }

    /// What is retained, for a moment.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        // Every change is one call.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the retained checkpoints that were not read yet: those of earlier attempts. They are not kept.
    ///
    /// # Errors
    /// As [`Found::read`], if one of them cannot be read: what it needs is not known. The version is in it.
    pub(crate) async fn read_all(&self, remote: &Remote) -> Result<(), (Version, Error)> {
        if self.live().has_gaps() {
            let error = Error::corrupt("the list of retained checkpoints cannot be read in full");
            return Err((self.newest, error));
        }
        let unread = self.live().unread();
        let reads =
            unread.into_iter().map(|one| async move { (one.version, Found::from(one).read(remote).await) });
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffered(PARALLEL_READS);
        while let Some((version, manifest)) = reads.next().await {
            match manifest {
                Ok(manifest) => self.live().read(&manifest),
                // Retention has dropped it meanwhile, so nothing needs what it referred to.
                Err(error) if is_lasting(&error) && self.live().give_up(version) => {}
                Err(error) => return Err((version, error)),
            }
        }
        Ok(())
    }
}

/// All checkpoints that `head` retains, and up to which version some are missing, because what names them is
/// damaged or gone.
///
/// # Errors
/// What may pass: a store that does not answer.
pub(super) async fn list_retained(remote: &Remote, head: &Manifest) -> Result<(Vec<Entry>, Option<Version>)> {
    let (list, gaps) = match head.retained.fetch(remote).await {
        Ok(list) => (list, None),
        Err(error) if is_lasting(&error) => {
            tracing::warn!(%error, "a part of the list of retained checkpoints cannot be read; nothing is collected");
            head.retained.fetch_intact(remote).await?
        }
        Err(error) => return Err(error),
    };
    // Manifests of format 1 name checkpoints, and say no more of them.
    let complete = list.into_iter().map(|entry| async move {
        if entry.facts.is_some() {
            return Ok(entry);
        }
        match Found::from(entry.checkpoint).read(remote).await {
            Ok(manifest) => Ok(manifest.checkpoint().map_or(entry, |record| record.entry(entry.version()))),
            // The others can still be restored.
            Err(error) if is_lasting(&error) => Ok(entry),
            Err(error) => Err(error),
        }
    });
    let complete = stream::iter(complete.collect::<Vec<_>>()).buffered(PARALLEL_READS);
    Ok((complete.try_collect().await?, gaps))
}
