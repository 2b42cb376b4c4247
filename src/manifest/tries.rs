//! Requests that are sent again until their outcome is known.

use bytes::Bytes;

use super::model::Manifest;
use super::protocol::{Answer, Seen};
use super::read::find_manifest;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Version;
use crate::remote::{Created, ObjectName, Remote};

/// The tries of one conditional create.
pub(super) struct Tries<'a> {
    remote: &'a Remote,
    made: u32,
    /// The error of the last try, if it gave no verdict.
    failure: Option<Error>,
}

impl<'a> Tries<'a> {
    pub(super) fn new(remote: &'a Remote) -> Self {
        Self { remote, made: 0, failure: None }
    }

    /// Waits before the next try, or says that there is none.
    pub(super) async fn next(&mut self, name: &ObjectName) -> Result<()> {
        if self.made >= self.remote.retry_policy().attempts.max(1) {
            let unclear =
                || Error::new(ErrorKind::StoreUnavailable, "cannot create the manifest").object(name);
            return Err(self.failure.take().unwrap_or_else(unclear));
        }
        self.remote.pause(self.made).await;
        self.made += 1;
        Ok(())
    }

    pub(super) async fn create(&mut self, name: &ObjectName, payload: &Bytes) -> Answer {
        match self.remote.create(name, payload.clone()).await {
            Created::Created => Answer::Created,
            Created::Exists => Answer::Exists,
            Created::Doubt(error) => {
                tracing::debug!(%name, %error, "no verdict on the create of a manifest");
                self.failure = Some(error);
                Answer::Unclear
            }
        }
    }
}

/// The state of a version, and its manifest if it can be read.
pub(super) async fn look_at(remote: &Remote, version: Version) -> Result<(Seen, Option<Manifest>)> {
    let there = match find_manifest(remote, version).await {
        // Not an error here: a version that cannot be read is taken all the same, and nothing is
        // written over it.
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok((Seen::Damaged, None)),
        there => there?,
    };
    let record = |there: &Manifest| Seen::Record { nonce: there.nonce, epoch: there.epoch };
    Ok((there.as_ref().map_or(Seen::Absent, record), there))
}
