//! Tests whether a store honours "create if absent". Commits rely on it, so a store that does not
//! is refused before anything lasting is written.

use bytes::Bytes;
use futures::future::join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::Version;

use super::error::{Failure, Verdict};
use super::{ObjectName, Remote};

/// Creates that are sent at the same time. Some stores check the condition and write in two steps,
/// and pass as long as the creates come one after the other.
const RACERS: u8 = 4;

impl Remote {
    /// Creates one object several times at once and once more afterwards: at most one may succeed,
    /// the last may not, and the content must be the winner's. A store that fails this is
    /// [`ErrorKind::UnsafeStore`]. Leaves nothing behind, unless deleting fails as well.
    ///
    /// Passing is no proof: a race may end well by chance. `wanted` is the version of the chain
    /// that the caller is about to create. Once such a version exists, a sweep may delete the
    /// probes for it, even while they are under way. A failure therefore counts only if the chain
    /// has not moved meanwhile.
    pub(crate) async fn probe(&self, wanted: Version) -> Result<()> {
        let mut attempts = self.attempts();
        loop {
            // A fresh name each time, because a create that was given up may still be applied.
            let name = ObjectName::probe(wanted, self.env().nonces.nonce());
            let result = self.try_probe(&name).await;
            if let Err(error) = self.withdraw(vec![name]).await {
                tracing::warn!(%error, "an object made to probe the store remains");
            }
            match result {
                Ok(()) => return Ok(()),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    async fn try_probe(&self, name: &ObjectName) -> Result<(), Failure> {
        // Contents differ, so that it can be seen whose is there; all begin with the name, so that
        // no store shares them with another object.
        let content = |who: u8| Bytes::from(format!("{name}\nwritten by {who}\n"));
        let racers = (0..RACERS).map(|who| self.try_create(name, content(who), 1));
        let mut winner = None;
        let mut doubt = None;
        for (who, result) in (0..RACERS).zip(join_all(racers).await) {
            match result {
                Ok(()) if winner.is_some() => {
                    return Err(unsafe_store("let two creates of the same object succeed"));
                }
                Ok(()) => winner = Some(who),
                Err(failure) if failure.verdict == Verdict::Exists => {}
                Err(failure) if failure.verdict == Verdict::Lasting => return Err(failure),
                Err(failure) => doubt = Some(failure),
            }
        }
        let Some(winner) = winner else {
            return Err(doubt.unwrap_or_else(|| {
                let text = "cannot create an object: the store says that it exists to all who create it";
                Failure::passing(Error::new(ErrorKind::StoreUnavailable, text).object(name))
            }));
        };
        match self.try_create(name, content(RACERS), 1).await {
            Ok(()) => return Err(unsafe_store("let an object be created that existed")),
            Err(failure) if failure.verdict == Verdict::Exists => {}
            Err(failure) => return Err(failure),
        }
        match self.try_get(name, None).await {
            Ok(there) if there == content(winner) => Ok(()),
            Ok(_) => Err(unsafe_store("replaced an object that existed")),
            Err(failure) if failure.verdict == Verdict::Absent => {
                Err(unsafe_store("does not show an object right after it was created"))
            }
            Err(failure) => Err(failure),
        }
    }
}

fn unsafe_store(did: &str) -> Failure {
    let error = Error::new(ErrorKind::UnsafeStore, format!("the object store {did}"))
        .advise("commits would not be safe on it; use one that honours conditional creates (If-None-Match)");
    Failure::lasting(error)
}
