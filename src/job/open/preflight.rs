//! What is checked before an attempt begins, while nothing has been written. A job that is refused here
//! is untouched, and its running attempt is not fenced.

use crate::error::{Error, Result};
use crate::gc::savepoint;
use crate::ids::Version;
use crate::key_group::MaxParallelism;
use crate::manifest::{Damaged, OpenMode, RestoreFrom, Top, read_top};

use super::begin::Opening;
use super::fits::Fits;
use crate::job::JobOptions;
use crate::job::foreign::ForeignJob;

/// What the checks have found.
pub(super) struct Preflight {
    pub(super) max_parallelism: Option<MaxParallelism>,
    /// The other job, if this one starts from it.
    pub(super) source: Option<ForeignJob>,
}

impl Opening {
    /// Checks all that can be checked by reading. If the top of the chain cannot be read, the opening
    /// itself reports that, because it reads it again.
    pub(super) async fn check(&self) -> Result<Preflight> {
        let options = &self.options;
        let mut found = Preflight { max_parallelism: options.max_parallelism, source: None };
        let top = match read_top(&self.remote).await {
            Ok(top) => top,
            // The opening may get through a moment later, and the job would start without its source.
            Err(error) if options.start_from.is_some() => return Err(error),
            Err(_) => return Ok(found),
        };
        if options.open_mode != OpenMode::Create {
            check_damage(&top, options)?;
        }
        let empty = top.head.as_ref().is_none_or(|newest| newest.retained.is_empty());
        if let Some(wanted) = &options.start_from {
            let source = ForeignJob::open(wanted, &self.remote, self.cloud, options);
            if empty {
                if !options.members.is_empty() {
                    return Err(needs_one_process());
                }
                let source = source?;
                let max_parallelism = source.check(found.max_parallelism).await?;
                found.max_parallelism = Some(max_parallelism);
                self.fits(max_parallelism).check_foreign(&source.remote, &source.from).await?;
                found.source = Some(source);
            } else {
                // The job has a checkpoint of its own and needs the other one no longer, which may be
                // deleted by now.
                found.source = source.ok();
            }
        }
        let existing = top.head.as_ref().map(|manifest| manifest.max_parallelism);
        let fits = self.fits(existing.or(found.max_parallelism).unwrap_or_default());
        fits.check_new(empty && found.source.is_none())?;
        if let RestoreFrom::Savepoint(name) = &options.restore_from
            && found.source.is_none()
            && (existing.is_some() || options.open_mode != OpenMode::Existing)
        {
            savepoint::require(&self.remote, &name.parse()?).await?;
        }
        let goes_on = options.open_mode != OpenMode::Create && !(empty && found.source.is_some());
        // With a fallback it is not known yet from which checkpoint.
        if goes_on && !options.fallback {
            fits.check_own(&self.remote, &options.restore_from, top.head.as_ref()).await?;
        }
        Ok(found)
    }

    fn fits(&self, max_parallelism: MaxParallelism) -> Fits<'_> {
        let (operators, revisions) = (&self.options.operators, &self.options.revisions);
        Fits { operators, revisions, layout: self.layout_of(max_parallelism) }
    }
}

/// Damage at the top of the chain is passed over only if the caller allows it, and never by beginning
/// anew, which would lose what is still there without a word.
fn check_damage(top: &Top, options: &JobOptions) -> Result<()> {
    if let Some(error) = top.refusal(options.fallback) {
        return Err(error);
    }
    for damaged in &top.damaged {
        let (version, error) = (damaged.version, &damaged.error);
        tracing::warn!(%error, %version, "a version of the manifest chain cannot be read, and is passed over");
    }
    match top.damaged.first() {
        Some(newest) if top.is_lost() && !names_savepoint(options) => Err(nothing_left(&newest.error)),
        _ => Ok(()),
    }
}

/// The same check once the attempt has begun, because damage may have been found only then.
/// `restorable` says whether a checkpoint is left.
pub(super) fn check_lost(restorable: bool, damaged: &[Damaged], options: &JobOptions) -> Result<()> {
    // The first version is always an open record: with it no checkpoint is lost.
    match damaged.iter().find(|damaged| damaged.version != Version(1)) {
        Some(lost) if !restorable && !names_savepoint(options) => Err(nothing_left(&lost.error)),
        _ => Ok(()),
    }
}

/// A savepoint can be restored whatever happened to the chain's checkpoints.
fn names_savepoint(options: &JobOptions) -> bool {
    matches!(options.restore_from, RestoreFrom::Savepoint(_))
}

/// The tables of such a job come from another place, whose credentials do not travel, and its first
/// checkpoint waits for bases made of them.
fn needs_one_process() -> Error {
    Error::invalid("a job that starts from another one has no members until its first checkpoint")
        .advise("open it without members, take one checkpoint, close it, and open it with members")
}

fn nothing_left(error: &Error) -> Error {
    error.clone().advise(
        "no checkpoint below it is left to go back to: go on from a savepoint, bring the object back, or choose another place",
    )
}
