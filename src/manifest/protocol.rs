//! Which commit wins: the meaning of each answer of the store, as state machines without I/O.
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
    Record {
        nonce: Nonce,
        epoch: Epoch,
    },
    /// An object that cannot be read. The version is taken, by an unknown writer.
    Damaged,
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
    /// The version is the newest, and cannot be read: it may be an earlier try of this attempt, or the open
    /// record of a later one.
    Damaged,
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
    /// The version is taken by something that cannot be read.
    damaged: bool,
}

impl Commit {
    pub(super) fn new(epoch: Epoch, version: Version, nonce: Nonce, earlier: &[Nonce]) -> Self {
        let earlier = earlier.to_vec();
        Self { epoch, version, nonce, doubt: !earlier.is_empty(), earlier, winner: None, damaged: false }
    }

    /// With doubt left over, first find out what became of it.
    pub(super) fn start(&self) -> Step<CommitVerdict> {
        if self.doubt { Step::Read } else { Step::Create }
    }

    pub(super) fn created(&mut self, answer: Answer) -> Step<CommitVerdict> {
        match answer {
            // Without doubt this is no hole. A later attempt would have taken the version, and its open
            // record is never deleted.
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
            // A later attempt has opened, or has committed on top of its record. Either ends this one.
            Seen::Record { epoch, .. } if epoch > self.epoch => {
                Step::Done(CommitVerdict::Fenced(Some(epoch)))
            }
            Seen::Record { nonce, epoch } => Step::Done(CommitVerdict::Foreign { nonce, epoch }),
            Seen::Damaged => {
                self.damaged = true;
                Step::List
            }
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
            (Some(newest), None) if newest == self.version && self.damaged => CommitVerdict::Damaged,
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
            // The listing that this version was chosen by may have been stale.
            Answer::Created => Step::List,
            Answer::Exists | Answer::Unclear => Step::Read,
        }
    }

    pub(super) fn read(&self, seen: Seen) -> Step<OpenVerdict> {
        match seen {
            Seen::Absent => Step::Create,
            Seen::Record { nonce, .. } if nonce == self.nonce => Step::List,
            // What it was does not matter: the next record lies above it.
            Seen::Record { .. } | Seen::Damaged => Step::Done(OpenVerdict::StartOver),
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
            // A damaged one may be a later attempt's. Starting over puts a record above it all the same.
            Seen::Record { .. } | Seen::Damaged => Step::Done(OpenVerdict::StartOver),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::nonce;
    use super::*;

    const OURS: Epoch = Epoch(5);
    const VERSION: Version = Version(9);

    fn record(byte: u8, epoch: u64) -> Seen {
        Seen::Record { nonce: nonce(byte), epoch: Epoch(epoch) }
    }

    fn commit(earlier: &[Nonce]) -> Commit {
        Commit::new(OURS, VERSION, nonce(1), earlier)
    }

    #[test]
    fn a_plain_create_wins_at_once() {
        let mut machine = commit(&[]);
        assert_eq!(machine.start(), Step::Create);
        assert_eq!(machine.created(Answer::Created), Step::Done(CommitVerdict::Won(nonce(1))));
    }

    #[test]
    fn neither_exists_nor_silence_is_a_verdict() {
        for answer in [Answer::Exists, Answer::Unclear] {
            assert_eq!(commit(&[]).created(answer), Step::Read);
        }
    }

    #[test]
    fn a_read_decides_by_nonce_then_epoch() {
        let cases = [
            (Seen::Absent, Step::Create),
            (record(1, 5), Step::List),
            (record(2, 5), Step::List),
            (record(3, 9), Step::Done(CommitVerdict::Fenced(Some(Epoch(9))))),
            (record(3, 5), Step::Done(CommitVerdict::Foreign { nonce: nonce(3), epoch: Epoch(5) })),
            (record(3, 4), Step::Done(CommitVerdict::Foreign { nonce: nonce(3), epoch: Epoch(4) })),
        ];
        for (seen, step) in cases {
            let mut machine = commit(&[nonce(2)]);
            assert_eq!(machine.start(), Step::Read, "what became of the earlier one comes first");
            assert_eq!(machine.read(seen), step, "{seen:?}");
        }
    }

    #[test]
    fn success_after_doubt_counts_only_at_the_top() {
        for (newest, verdict) in [
            (None, CommitVerdict::Unlisted),
            (Some(Version(8)), CommitVerdict::Unlisted),
            (Some(Version(9)), CommitVerdict::Won(nonce(1))),
            (Some(Version(10)), CommitVerdict::Fenced(None)),
        ] {
            // By creating it in the end,
            let mut machine = commit(&[]);
            machine.created(Answer::Unclear);
            assert_eq!(machine.read(Seen::Absent), Step::Create);
            assert_eq!(machine.created(Answer::Created), Step::List);
            assert_eq!(machine.listed(newest), Step::Done(verdict));
            // or by finding it.
            let mut machine = commit(&[]);
            machine.created(Answer::Exists);
            assert_eq!(machine.read(record(1, 5)), Step::List);
            assert_eq!(machine.listed(newest), Step::Done(verdict));
        }
    }

    #[test]
    fn an_earlier_commit_of_ours_is_recognised() {
        let mut machine = commit(&[nonce(2), nonce(3)]);
        assert_eq!(machine.read(record(3, 5)), Step::List);
        assert_eq!(machine.listed(Some(VERSION)), Step::Done(CommitVerdict::Won(nonce(3))));
    }

    #[test]
    fn i2_a_version_that_cannot_be_read_is_taken() {
        for (newest, verdict) in [
            (Some(Version(8)), CommitVerdict::Unlisted),
            (Some(Version(9)), CommitVerdict::Damaged),
            (Some(Version(10)), CommitVerdict::Fenced(None)),
        ] {
            let mut machine = commit(&[]);
            machine.created(Answer::Exists);
            assert_eq!(machine.read(Seen::Damaged), Step::List, "it is never written again");
            assert_eq!(machine.listed(newest), Step::Done(verdict));
        }
        let machine = Open::new(VERSION, nonce(1));
        assert_eq!(machine.read(Seen::Damaged), Step::Done(OpenVerdict::StartOver));
        assert_eq!(machine.newest_read(Seen::Damaged), Step::Done(OpenVerdict::StartOver));
    }

    #[test]
    fn an_open_counts_after_a_second_look() {
        let machine = Open::new(VERSION, nonce(1));
        assert_eq!(machine.start(), Step::Create);
        assert_eq!(machine.created(Answer::Created), Step::List);
        assert_eq!(machine.created(Answer::Exists), Step::Read);
        assert_eq!(machine.created(Answer::Unclear), Step::Read);
        assert_eq!(machine.read(Seen::Absent), Step::Create);
        assert_eq!(machine.read(record(1, 9)), Step::List);
        assert_eq!(machine.read(record(2, 5)), Step::Done(OpenVerdict::StartOver));
        assert_eq!(machine.read(record(2, 9)), Step::Done(OpenVerdict::StartOver));
        assert_eq!(machine.listed(None), Step::Done(OpenVerdict::Unlisted));
        assert_eq!(machine.listed(Some(Version(8))), Step::Done(OpenVerdict::Unlisted));
        assert_eq!(machine.listed(Some(Version(9))), Step::Done(OpenVerdict::Opened));
        assert_eq!(machine.listed(Some(Version(12))), Step::ReadNewest(Version(12)));
    }

    #[test]
    fn an_open_in_a_hole_is_void_and_one_overtaken_gives_way() {
        let machine = Open::new(VERSION, nonce(1));
        assert_eq!(machine.newest_read(Seen::Absent), Step::List);
        assert_eq!(machine.newest_read(record(2, 5)), Step::Done(OpenVerdict::StartOver));
        assert_eq!(machine.newest_read(record(2, 12)), Step::Done(OpenVerdict::Fenced(Epoch(12))));
    }
}
