//! The proof that is required to delete anything that a checkpoint might need.
//!
//! A collector knows what its own attempt retains. It does not know what a later attempt may have
//! committed while the collector slept. That may be more than what was retained, because an attempt
//! may go back to a savepoint, however old. A collector therefore first lists what pins and
//! savepoints keep, and *then* checks that it is still the newest attempt (I3):
//!
//! - An attempt that opened before that look is seen by it. Then nothing is deleted, because the
//!   newer attempt decides what is garbage.
//! - An attempt that opens after the look can go back to a savepoint only under a pin, and only if
//!   the savepoint still exists once it has pinned. So either the savepoint existed when savepoints
//!   were listed, and is kept; or it was made later, of a checkpoint that a listed pin kept or that
//!   was retained after the collector's last commit.
//!
//! The deletions may come as late as they like: their objects were unreachable when this was
//! confirmed, and nothing unreachable ever becomes reachable again.

use crate::error::Result;
use crate::ids::{Epoch, Version};
use crate::manifest::{Roots, newest_attempt};
use crate::remote::{NeededByNothing, Remote};

use super::pin::{Protected, list_protected};

/// What savepoints and pins keep, listed before the collector was seen to be the newest attempt.
/// One for each plan, because it says nothing about checkpoints that are dropped later.
#[derive(Debug)]
pub(super) struct Confirmed {
    protected: Protected,
    newest: Version,
    epoch: Epoch,
}

impl NeededByNothing for Confirmed {}

/// What came of the look.
#[derive(Debug)]
pub(super) enum Confirmation {
    Confirmed(Confirmed),
    /// This attempt has gone on beyond the roots; they say nothing any more.
    Overtaken(Epoch),
}

impl Confirmed {
    /// Looks: first at pins and savepoints, then at the chain.
    ///
    /// # Errors
    /// `Corrupt` if a pin, a savepoint or the newest manifest does not read, because what it keeps, or whose it
    /// is, is then not known; what the store answers.
    pub(super) async fn take(remote: &Remote, roots: &Roots) -> Result<Confirmation> {
        let known = (roots.newest, roots.epoch);
        let protected = list_protected(remote, roots.epoch).await?;
        // The chain comes second. An attempt that opened before this look, and may have gone back to what was not
        // pinned when pins were listed, is seen here.
        let now = newest_attempt(remote, known).await?;
        if may_delete(known, now, roots.own) {
            return Ok(Confirmation::Confirmed(Self { protected, newest: roots.newest, epoch: roots.epoch }));
        }
        Ok(Confirmation::Overtaken(now.1))
    }

    pub(super) fn protected(&self) -> &Protected {
        &self.protected
    }

    /// Whether it is about these roots.
    pub(super) fn is_of(&self, roots: &Roots) -> bool {
        (self.newest, self.epoch) == (roots.newest, roots.epoch)
    }
}

/// Whether roots as of `known` still say what is needed when the chain is seen at `now`.
fn may_delete(known: (Version, Epoch), now: (Version, Epoch), own: bool) -> bool {
    // The owner's own commits since then are in its roots already. An outsider would have to read them first.
    if own { now.1 == known.1 } else { now == known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i3_who_was_overtaken_deletes_nothing() {
        let at = |version, epoch| (Version(version), Epoch(epoch));
        for (now, own, stranger) in [
            (at(8, 5), true, true),
            // The owner's own commits, which it knows of; a stranger knows what 8 retained, and no more.
            (at(9, 5), true, false),
            (at(9, 9), false, false),
            (at(12, 9), false, false),
        ] {
            assert_eq!(may_delete(at(8, 5), now, true), own, "{now:?}");
            assert_eq!(may_delete(at(8, 5), now, false), stranger, "{now:?}");
        }
    }
}
