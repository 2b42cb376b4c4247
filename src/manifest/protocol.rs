//! Who wins: what each answer of the store means, as state machines without I/O.
//!
//! A version is written with one conditional create. An answer other than "created" is no verdict:
//! the request may have been applied already, may be applied much later, or a retry below us may
//! have met its own first try. So the object is read, and its nonce tells.
//!
//! Two rules make this safe against attempts that were paused for any length of time (I2):
//!
//! - An attempt begins with an `Open` record, and open records are never deleted. The version after
//!   the last commit of a fenced attempt is therefore taken for good, and its next create fails.
//! - Garbage collection leaves holes below the newest version, and a late request can fill one. A
//!   record in a hole is void. One can get there only by opening from a stale listing, or by trying
//!   again after doubt (the first try was applied, superseded and collected). So in these two cases, and
//!   only then, success counts after another listing that shows nothing above.
//!
//! The machines say which [`Step`] comes next and are told its outcome; [`chain`](super::chain)
//! carries the steps out, and the model check explores them in all orders.

use crate::ids::{Epoch, Nonce, Version};

/// The answer to one conditional create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Created,
    Exists,
    /// It may have been applied, or may yet be.
    Unclear,
}

/// What a read of a version found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    Absent,
    Record { nonce: Nonce, epoch: Epoch },
}

/// What to do next. A step that fails without an answer can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step<V> {
    /// Create the version, once.
    Create,
    /// Read the version.
    Read,
    /// List the chain: which version is the newest?
    List,
    /// Read the newest version.
    ReadNewest(Version),
    Done(V),
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum CommitVerdict {
    /// The version is ours, written with this nonce: that of this commit, or of an earlier one that had
    /// been given up while in doubt.
    Won(Nonce),
    /// A later attempt has taken over. Known by its epoch where it was read.
    Fenced(Option<Epoch>),
    /// The version holds a record that the protocol rules out.
    Foreign { nonce: Nonce, epoch: Epoch },
    /// The listing lacks what was just created: the store is not consistent.
    Unlisted,
}

/// One attempt's create of one version, over all its tries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Commit {
    epoch: Epoch,
    version: Version,
    nonce: Nonce,
    /// Nonces of earlier commits that were given up at this version, each of which may have been
    /// applied or may yet be.
    earlier: Vec<Nonce>,
    doubt: bool,
    /// The nonce that was seen, or created, at the version.
    winner: Option<Nonce>,
}

impl Commit {
    pub(super) fn new(epoch: Epoch, version: Version, nonce: Nonce, earlier: &[Nonce]) -> Self {
        let earlier = earlier.to_vec();
        Self { epoch, version, nonce, doubt: !earlier.is_empty(), earlier, winner: None }
    }

    /// With doubt left over, first find out what became of it.
    pub(super) fn start(&self) -> Step<CommitVerdict> {
        if self.doubt { Step::Read } else { Step::Create }
    }

    pub(super) fn created(&mut self, answer: Answer) -> Step<CommitVerdict> {
        match answer {
            Answer::Created if !self.doubt => Step::Done(CommitVerdict::Won(self.nonce)),
            Answer::Created => self.confirm(self.nonce),
            Answer::Exists | Answer::Unclear => {
                self.doubt = true;
                Step::Read
            }
        }
    }

    pub(super) fn read(&mut self, seen: Seen) -> Step<CommitVerdict> {
        match seen {
            Seen::Absent => Step::Create,
            Seen::Record { nonce, .. } if nonce == self.nonce || self.earlier.contains(&nonce) => {
                self.confirm(nonce)
            }
            Seen::Record { epoch, .. } if epoch > self.epoch => {
                Step::Done(CommitVerdict::Fenced(Some(epoch)))
            }
            Seen::Record { nonce, epoch } => Step::Done(CommitVerdict::Foreign { nonce, epoch }),
        }
    }

    /// The version is ours, but after doubt: make sure that it does not fill a hole.
    fn confirm(&mut self, winner: Nonce) -> Step<CommitVerdict> {
        self.winner = Some(winner);
        Step::List
    }

    pub(super) fn listed(&self, newest: Option<Version>) -> Step<CommitVerdict> {
        Step::Done(match (newest, self.winner) {
            // No one but a later attempt writes above a version that is ours.
            (Some(newest), _) if newest > self.version => CommitVerdict::Fenced(None),
            (Some(newest), Some(winner)) if newest == self.version => CommitVerdict::Won(winner),
            _ => CommitVerdict::Unlisted,
        })
    }
}

/// How opening an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum OpenVerdict {
    /// The attempt has begun; its epoch is the version of its record.
    Opened,
    /// Someone else was there first, or the record is void. List again and try above it.
    StartOver,
    /// A later attempt has begun meanwhile. Give way: if both started over, they could fence
    /// each other for ever.
    Fenced(Epoch),
    /// As for a commit.
    Unlisted,
}

/// The create of one open record, over all its tries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Open {
    version: Version,
    nonce: Nonce,
}

impl Open {
    pub(super) fn new(version: Version, nonce: Nonce) -> Self {
        Self { version, nonce }
    }

    pub(super) fn start(&self) -> Step<OpenVerdict> {
        Step::Create
    }

    pub(super) fn created(&self, answer: Answer) -> Step<OpenVerdict> {
        match answer {
            Answer::Created => Step::List,
            Answer::Exists | Answer::Unclear => Step::Read,
        }
    }

    pub(super) fn read(&self, seen: Seen) -> Step<OpenVerdict> {
        match seen {
            Seen::Absent => Step::Create,
            Seen::Record { nonce, .. } if nonce == self.nonce => Step::List,
            Seen::Record { .. } => Step::Done(OpenVerdict::StartOver),
        }
    }

    pub(super) fn listed(&self, newest: Option<Version>) -> Step<OpenVerdict> {
        match newest {
            Some(newest) if newest > self.version => Step::ReadNewest(newest),
            Some(newest) if newest == self.version => Step::Done(OpenVerdict::Opened),
            _ => Step::Done(OpenVerdict::Unlisted),
        }
    }

    /// Something lies above our record: either it fills a hole in an older attempt's chain and is
    /// void, or a later attempt has begun.
    pub(super) fn newest_read(&self, seen: Seen) -> Step<OpenVerdict> {
        match seen {
            Seen::Absent => Step::List,
            Seen::Record { epoch, .. } if epoch.0 > self.version.0 => Step::Done(OpenVerdict::Fenced(epoch)),
            Seen::Record { .. } => Step::Done(OpenVerdict::StartOver),
        }
    }
}
