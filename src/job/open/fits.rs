//! Whether a job can go on from a checkpoint with the operators that its options name, and can change
//! the states as they say. Found out before the attempt begins. The same is found out again at the
//! restore, because another checkpoint may have been committed by then.

use crate::error::{ErrorKind, Result};
use crate::gc::{find_wanted, savepoint};
use crate::manifest::{Found, Manifest, RestoreFrom, StateLists};
use crate::remote::Remote;
use crate::restore::{Layout, Resolved};
use crate::store::{Revised, Revision, revise};

use crate::job::operators::Operators;

/// What the options say of operators and states.
pub(super) struct Fits<'a> {
    pub(super) operators: &'a Operators,
    /// Changes of the states of a job without named operators.
    pub(super) revisions: &'a [Revision],
    pub(super) layout: Layout,
}

impl Fits<'_> {
    /// Checks what can be checked without a checkpoint. `fresh`: there is none.
    ///
    /// # Errors
    /// `InvalidArgument` for more subtasks than key groups.
    pub(super) fn check_new(&self, fresh: bool) -> Result<()> {
        // The max parallelism of a named operator may be one that only the checkpoint knows.
        if fresh || !self.operators.are_named() {
            self.layout.resolve(None)?;
        }
        Ok(())
    }

    /// Checks a checkpoint of another job.
    ///
    /// # Errors
    /// As [`Layout`]'s and [`revise`]'s; what the store answers. A checkpoint that has just been
    /// collected is no error: the restore pins the one that it takes.
    pub(super) async fn check_foreign(&self, remote: &Remote, from: &RestoreFrom) -> Result<()> {
        match read(remote, from).await {
            Ok((manifest, states)) => self.check(&manifest, &states),
            Err(error) if error.kind() == ErrorKind::MissingObject => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Checks a checkpoint of the job itself, of which `head` is the newest manifest. What cannot be
    /// read is for the restore to report, which is more patient.
    ///
    /// # Errors
    /// As [`Layout`]'s and [`revise`]'s.
    pub(super) async fn check_own(
        &self,
        remote: &Remote,
        from: &RestoreFrom,
        head: Option<&Manifest>,
    ) -> Result<()> {
        if self.operators.are_named() || !self.revisions.is_empty() {
            return match read(remote, from).await {
                Ok((manifest, states)) => self.check(&manifest, &states),
                Err(_) => Ok(()),
            };
        }
        // A job without names asks for nothing. It costs no request to see that it has got none.
        match head.filter(|head| head.checkpoint().is_some() && *from == RestoreFrom::Latest) {
            Some(head) => self.layout.resolve(Some(head)).map(drop),
            None => Ok(()),
        }
    }

    fn check(&self, manifest: &Manifest, states: &StateLists) -> Result<()> {
        let resolved = self.layout.resolve(Some(manifest))?;
        revise_all(&self.operators.revisions(self.revisions), &resolved, states).map(drop)
    }
}

/// The states that each operator begins with: those of the operator of the checkpoint that it goes on
/// from, with its changes.
///
/// # Errors
/// As [`revise`], naming the operator.
pub(super) fn revise_all(
    revisions: &[(&str, &[Revision])],
    resolved: &[Resolved],
    states: &StateLists,
) -> Result<Vec<Revised>> {
    let revised = revisions.iter().zip(resolved).map(|((id, revisions), resolved)| {
        let states = resolved.from.map(|from| states.of(from).to_vec()).unwrap_or_default();
        revise(states, revisions).map_err(|error| match id.is_empty() {
            true => error,
            false => error.within(format!("operator {id:?}")),
        })
    });
    revised.collect()
}

async fn read(remote: &Remote, from: &RestoreFrom) -> Result<(Manifest, StateLists)> {
    let checkpoint = match from {
        RestoreFrom::Savepoint(name) => savepoint::require(remote, &name.parse()?).await?.checkpoint,
        from => find_wanted(remote, from, false).await?,
    };
    let manifest = Found::from(checkpoint).read(remote).await?;
    let states = match manifest.checkpoint() {
        Some(record) => record.states.fetch(remote).await?,
        None => StateLists::default(),
    };
    Ok(((*manifest).clone(), states))
}
