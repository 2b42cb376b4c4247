//! Whether the states of the checkpoint that a job goes on from can be renamed as the options say.
//! Found out before the attempt begins. The same is found out again when the states are revised,
//! because another checkpoint may have been committed by then.

use crate::error::{ErrorKind, Result};
use crate::gc::{find_wanted, savepoint};
use crate::manifest::{Found, RestoreFrom, StateInfo};
use crate::remote::Remote;
use crate::store::{Revision, revise};

/// Checks a checkpoint of another job.
///
/// # Errors
/// As [`revise`]; what the store answers. A checkpoint that has just been collected is no error:
/// the restore pins the one that it takes.
pub(super) async fn check_foreign(remote: &Remote, from: &RestoreFrom, revisions: &[Revision]) -> Result<()> {
    if revisions.is_empty() {
        return Ok(());
    }
    match states(remote, from).await {
        Ok(states) => revise(states, revisions).map(drop),
        Err(error) if error.kind() == ErrorKind::MissingObject => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks a checkpoint of the job itself. What cannot be read is for the restore to report, which
/// is more patient.
///
/// # Errors
/// As [`revise`].
pub(super) async fn check_own(remote: &Remote, from: &RestoreFrom, revisions: &[Revision]) -> Result<()> {
    if revisions.is_empty() {
        return Ok(());
    }
    match states(remote, from).await {
        Ok(states) => revise(states, revisions).map(drop),
        Err(_) => Ok(()),
    }
}

async fn states(remote: &Remote, from: &RestoreFrom) -> Result<Vec<StateInfo>> {
    let checkpoint = match from {
        RestoreFrom::Savepoint(name) => savepoint::require(remote, &name.parse()?).await?.checkpoint,
        from => find_wanted(remote, from, false).await?,
    };
    let manifest = Found::from(checkpoint).read(remote).await?;
    match manifest.checkpoint() {
        Some(record) => Ok(record.states.fetch(remote).await?.to_vec()),
        None => Ok(Vec::new()),
    }
}
