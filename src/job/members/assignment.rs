//! What a member needs to know to open its part of a job, as a plain value.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::frame;
use crate::ids::{Epoch, Nonce, SubtaskIndex};
use crate::job::JobOptions;
use crate::key_group::MaxParallelism;
use crate::manifest::{CheckpointMode, OpenMode, Retained};
use crate::materialize::MaterializationOptions;
use crate::messages::Ends;
use crate::restore::Layout;
use crate::store::Revision;

const MAGIC: [u8; 4] = *b"ALVA";
const FORMAT: u16 = 1;

/// The part of a job's attempt that another process holds: [`Opened::assignments`](crate::Opened::assignments)
/// has one for each [member](crate::JobOptions::members), and [`Member::open`](crate::Member::open) opens it.
///
/// It says which attempt and which subtasks, what they go on from, and the options that must agree.
/// It carries neither state nor the place of the job, whose credentials the member has itself. It
/// is good for one attempt, and may be opened once: of two processes that have opened it, only the
/// first that is heard of counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub(crate) job: Nonce,
    pub(crate) epoch: Epoch,
    pub(crate) member: u32,
    /// The subtasks that it holds: from the first to before the second.
    held: (u32, u32),
    /// How many subtasks the job has.
    pub(crate) all: u32,
    /// The job's operators, and with them the key groups of each subtask.
    pub(crate) layout: Layout,
    pub(crate) mode: CheckpointMode,
    /// The checkpoint that the attempt goes on from.
    pub(crate) from: Option<Retained>,
    pub(crate) checkpoint_timeout: Duration,
    inline_limit: u64,
    materialization_interval: Option<Duration>,
    changelog_bytes: Option<u64>,
    bytes_per_second: Option<u64>,
    /// Each operator's id, and the changes of its states.
    revisions: Vec<(String, Vec<Revision>)>,
}

/// The assignments of an attempt's members.
pub(crate) fn assign(
    options: &JobOptions,
    (job, epoch): (Nonce, Epoch),
    layout: &Layout,
    from: Option<Retained>,
) -> Vec<Assignment> {
    let bases = &options.materialization;
    let revisions = options.operators.revisions(&options.revisions);
    let revisions: Vec<_> = revisions.iter().map(|(id, own)| ((*id).to_owned(), own.to_vec())).collect();
    let assignment = |(member, held): (u32, &Range<u32>)| Assignment {
        job,
        epoch,
        member,
        held: (held.start, held.end),
        all: options.subtasks,
        layout: layout.clone(),
        mode: options.mode,
        from,
        checkpoint_timeout: options.checkpoint_timeout,
        inline_limit: options.inline_limit,
        materialization_interval: bases.interval,
        changelog_bytes: bases.changelog_bytes,
        bytes_per_second: bases.bytes_per_second,
        revisions: revisions.clone(),
    };
    (0..).zip(&options.members).map(assignment).collect()
}

impl Assignment {
    /// The attempt that it is a part of.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The member's number: its place in [`JobOptions::members`].
    pub fn member(&self) -> usize {
        self.member as usize
    }

    /// The subtasks that the member holds.
    pub fn subtasks(&self) -> Range<u32> {
        self.held.0..self.held.1
    }

    /// The bytes that another process reads with [`Assignment::from_bytes`]: `ALVA`, format version,
    /// postcard, CRC32C. A few hundred bytes, and more only by the names of states that are dropped
    /// or renamed.
    ///
    /// # Errors
    /// None are known; the signature leaves room for the codec's.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let body = postcard::to_stdvec(self)
            .map_err(|error| Error::internal("an assignment cannot be encoded").source(error))?;
        Ok(frame::seal(MAGIC, FORMAT, &[&body]).to_vec())
    }

    /// Reads what [`Assignment::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) on any other bytes,
    /// [`UnsupportedVersion`](ErrorKind::UnsupportedVersion) on a newer format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt(what).object("assignment");
        let frame = frame::Frame::parse(MAGIC, bytes).ok_or_else(|| corrupt("this is not an assignment"))?;
        if frame.format != FORMAT {
            let message = format!("assignment format {} is unknown; this build reads {FORMAT}", frame.format);
            return Err(Error::new(ErrorKind::UnsupportedVersion, message)
                .object("assignment")
                .advise("run the same version of alluvium in all processes"));
        }
        if !frame.is_intact() {
            return Err(corrupt("the assignment's checksum does not match"));
        }
        let assignment: Self = postcard::from_bytes(frame.payload)
            .map_err(|error| corrupt("the assignment cannot be decoded").source(error))?;
        assignment.check()?;
        Ok(assignment)
    }

    fn check(&self) -> Result<()> {
        let (start, end) = self.held;
        let operators = &self.layout.operators;
        let all = operators.iter().fold(0_u32, |all, operator| all.saturating_add(operator.subtasks));
        if start >= end || end > self.all || self.all != all || self.revisions.len() != operators.len() {
            let message = format!("an assignment of subtasks {start}..{end} of {all} or {}", self.all);
            return Err(Error::corrupt(message).object("assignment"));
        }
        let own = operators.iter().filter_map(|operator| operator.max_parallelism);
        for max in own.chain([self.layout.max_parallelism]) {
            MaxParallelism::new(max.get())
                .map_err(|error| Error::corrupt("an assignment without key groups").source(error))?;
        }
        Ok(())
    }

    pub(crate) fn ends(&self) -> Ends {
        Ends { job: self.job, epoch: self.epoch, member: self.member }
    }

    /// The options that a committer would have who holds these subtasks, with the defaults for what
    /// is the process's own.
    pub(crate) fn options(&self, dir: PathBuf) -> JobOptions {
        let Range { start, end } = self.subtasks();
        JobOptions::new(dir, OpenMode::Existing)
            .subtasks(self.all)
            .mode(self.mode)
            .inline_limit(self.inline_limit)
            .checkpoint_timeout(self.checkpoint_timeout)
            .members([0..start, end..self.all].into_iter().filter(|others| !others.is_empty()))
            .materialization(
                MaterializationOptions::new()
                    .interval(self.materialization_interval)
                    .changelog_bytes(self.changelog_bytes)
                    .bytes_per_second(self.bytes_per_second),
            )
    }

    /// Each operator's id, and the changes of its states.
    pub(crate) fn revisions(&self) -> Vec<(&str, &[Revision])> {
        self.revisions.iter().map(|(id, own)| (id.as_str(), own.as_slice())).collect()
    }

    /// The subtasks one by one.
    pub(crate) fn held(&self) -> impl Iterator<Item = SubtaskIndex> {
        self.subtasks().map(SubtaskIndex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CheckpointId, Version};
    use crate::job::OperatorSpec;

    fn sample() -> Assignment {
        let clicks = OperatorSpec::new("clicks", 4).drop_state("old").renamed_from("hits");
        let joins = OperatorSpec::new("joins", 2).rename_state("a", "b");
        let options = JobOptions::new("/nowhere", OpenMode::Create)
            .operators([clicks, joins.max_parallelism(MaxParallelism::new(32).unwrap())])
            .members([2..4, 4..6])
            .mode(CheckpointMode::Changelog)
            .checkpoint_timeout(Duration::from_secs(60));
        let layout = options.operators.layout(6, MaxParallelism::new(64).unwrap()).unwrap();
        let from = Retained { version: Version(7), id: CheckpointId { epoch: Epoch(5), number: 2 } };
        let job = (Nonce([3; 16]), Epoch(8));
        let mut all = assign(&options, job, &layout, Some(from));
        assert_eq!(all.iter().map(Assignment::subtasks).collect::<Vec<_>>(), [2..4, 4..6]);
        all.remove(1)
    }

    #[test]
    fn golden() {
        let path = format!("{}/tests/golden/assignment-v1.bin", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, sample().to_bytes().unwrap()).unwrap();
        }
        let golden = std::fs::read(path).unwrap();
        assert_eq!(Assignment::from_bytes(&golden).unwrap(), sample());
        assert_eq!(sample().to_bytes().unwrap(), golden);
    }

    #[test]
    fn i4_a_flipped_or_missing_byte_is_an_error() {
        let bytes = sample().to_bytes().unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            assert!(Assignment::from_bytes(&flipped).is_err(), "byte {at}");
            assert!(Assignment::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut newer = bytes;
        newer[4] = 2;
        let error = Assignment::from_bytes(&newer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |change: fn(&mut Assignment)| {
            let mut assignment = sample();
            change(&mut assignment);
            let error = Assignment::from_bytes(&assignment.to_bytes().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        };
        refused(|assignment| assignment.held = (4, 4));
        refused(|assignment| assignment.held = (4, 7));
        refused(|assignment| assignment.all = 7);
        refused(|assignment| drop(assignment.revisions.pop()));
    }

    #[test]
    fn a_member_has_the_committers_options_but_for_its_own() {
        let options = sample().options("/elsewhere".into());
        let rename = Revision::Rename { from: "a".into(), to: "b".into() };
        options.validate().unwrap();
        assert_eq!(options.held().collect::<Vec<_>>(), [4, 5].map(SubtaskIndex));
        assert_eq!((options.subtasks, sample().revisions()[1]), (6, ("joins", &[rename][..])));
        assert_eq!(options.checkpoint_timeout, Duration::from_secs(60));
    }
}
