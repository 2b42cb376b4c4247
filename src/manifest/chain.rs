//! An attempt's hold on the manifest chain: open, commit, notice that a later attempt has taken
//! over. Carries out what [`protocol`](super::protocol) decides.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::errors::{fenced, past_damage, unlisted};
use super::format;
use super::inline::Inline;
use super::live::Live;
use super::model::{CheckpointRecord, Manifest};
use super::open::{self, OpenMode};
use super::protocol::{Commit, CommitVerdict, Step};
use super::read::{Damaged, newest_version};
use super::retained::{Entry, Retained};
use super::roots::{Found, Roots};
use super::tries::{Tries, look_at};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, Epoch, Nonce, Version};
use crate::key_group::MaxParallelism;
use crate::remote::{ObjectName, Remote};

/// After this time without a verdict, a commit is given up. The next commit finds out what became
/// of it.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(120);

/// An attempt that has begun.
#[derive(Debug)]
pub(crate) struct Opened {
    pub chain: Chain,
    /// The checkpoints that can be restored, oldest first.
    pub checkpoints: Vec<Found>,
    /// The versions that were passed over, newest first.
    pub damaged: Vec<Damaged>,
}

/// A checkpoint to be committed.
#[derive(Debug, Clone)]
pub(crate) struct CommitDraft {
    /// References to inline bytes name manifest [`Chain::next_version`] and the offsets that
    /// [`Inline::push`] returned.
    pub record: CheckpointRecord,
    pub inline: Inline,
    /// Newest checkpoints to retain, this one included; at least 1.
    pub keep: usize,
}

/// A checkpoint that is durable and will be found by the next attempt.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    /// The manifest as written. Its version is greater than the draft's if earlier commits were
    /// adopted; references to inline bytes name the version that was written.
    pub manifest: Arc<Manifest>,
    /// Checkpoints that this commit no longer retains.
    pub dropped: Vec<Retained>,
    /// Checkpoints that were given up without a verdict, and are durable after all.
    pub adopted: Vec<CheckpointId>,
    /// Size of the manifest.
    pub bytes: u64,
}

/// An attempt's hold on the chain.
#[derive(Debug)]
pub(crate) struct Chain {
    remote: Arc<Remote>,
    deadline: Duration,
    epoch: Epoch,
    head: Arc<Manifest>,
    /// The checkpoints that `head` retains, oldest first.
    entries: VecDeque<Entry>,
    /// Checkpoints up to this version may be retained as well: the part of the list that names them
    /// could not be read.
    gaps: Option<Version>,
    /// Every object that the retained checkpoints refer to.
    live: Arc<Mutex<Live>>,
    /// Nonces of commits of the next version that ended without a verdict. Each of these requests
    /// may have been applied, or may be applied later.
    doubt: Vec<Nonce>,
    /// Why this attempt will never commit again.
    stopped: Option<Error>,
    /// Checkpoints that are no longer retained, until garbage collection takes them.
    dropped: Vec<Retained>,
    /// Adopted checkpoints that no commit has reported yet, because the commit that found them failed.
    adopted: Vec<CheckpointId>,
}

impl Chain {
    /// Begins an attempt. Every earlier attempt is fenced from here on.
    ///
    /// # Errors
    /// `NotFound` or `AlreadyExists` if the job is not as `mode` says, `ForeignData` if the place holds something
    /// else, `Incompatible` if `max_parallelism` is not the job's; nothing was written then.
    /// `UnsafeStore` if the store does not honour conditional creates, `Fenced` if another attempt
    /// began at the same time, `Corrupt`, `UnsupportedVersion`, or what the store answers.
    #[cfg(test)]
    pub(crate) async fn open(
        remote: Arc<Remote>,
        mode: OpenMode,
        max_parallelism: Option<MaxParallelism>,
    ) -> Result<Opened> {
        Self::open_past(remote, mode, max_parallelism, false).await
    }

    /// Begins an attempt. Every earlier attempt is fenced from here on. Versions at the top of the
    /// chain that cannot be read are an error, unless `past_damage` is set: then the attempt
    /// continues from the newest intact version. The damaged versions stay where they are. The
    /// attempt's record lies above them, so its epoch is greater than theirs (I2).
    ///
    /// Errors as the store answers, and: `NotFound` or `AlreadyExists` if the job is not as `mode`
    /// says, `ForeignData`, `Incompatible`, `UnsafeStore`, `Fenced`, `Corrupt`,
    /// `UnsupportedVersion`.
    pub(crate) async fn open_past(
        remote: Arc<Remote>,
        mode: OpenMode,
        max_parallelism: Option<MaxParallelism>,
        past_damage: bool,
    ) -> Result<Opened> {
        let open::Begun { head, entries, gaps, damaged } =
            open::open(&remote, mode, max_parallelism, past_damage).await?;
        let chain = Self {
            remote,
            deadline: DEFAULT_DEADLINE,
            epoch: head.epoch,
            head: Arc::new(head),
            live: Arc::new(Mutex::new(Live::new(entries.iter().map(|entry| entry.checkpoint), gaps))),
            entries: entries.into(),
            gaps,
            doubt: Vec::new(),
            stopped: None,
            dropped: Vec::new(),
            adopted: Vec::new(),
        };
        let checkpoints = chain.entries.iter().map(|entry| Found::from(entry.checkpoint)).collect();
        Ok(Opened { chain, checkpoints, damaged })
    }

    /// How long a commit may stay without a verdict. Default 2 minutes.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn max_parallelism(&self) -> MaxParallelism {
        self.head.max_parallelism
    }

    /// This attempt's newest manifest.
    #[cfg(test)]
    pub(crate) fn head(&self) -> &Arc<Manifest> {
        &self.head
    }

    /// The version of this attempt's newest manifest.
    pub(crate) fn version(&self) -> Version {
        self.head.version
    }

    /// The version that the next commit tries to create.
    pub(crate) fn next_version(&self) -> Version {
        self.head.version.next()
    }

    /// Why this attempt will never commit again, if so.
    pub(crate) fn stopped(&self) -> Option<&Error> {
        self.stopped.as_ref()
    }

    /// How many retained checkpoints there are from `version` on, counting one that is in doubt.
    pub(crate) fn retained_since(&self, version: Version) -> usize {
        let known = self.entries.len() - self.entries.partition_point(|entry| entry.version() < version);
        known + usize::from(!self.doubt.is_empty())
    }

    /// The objects that must not be deleted now.
    pub(crate) fn roots(&self) -> Roots {
        Roots { newest: self.head.version, epoch: self.epoch, live: Arc::clone(&self.live), own: true }
    }

    /// Hands over the checkpoints that commits have dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> Vec<Retained> {
        std::mem::take(&mut self.dropped)
    }

    /// Hands over the adopted checkpoints that no [`Committed`] has reported. Called after a commit that
    /// failed.
    pub(crate) fn take_adopted(&mut self) -> Vec<CheckpointId> {
        std::mem::take(&mut self.adopted)
    }

    /// Commits a checkpoint.
    ///
    /// The caller may drop the commit at any point. The next commit finds out whether the checkpoint
    /// counts, and reports it as adopted if it does. Until then the caller keeps the bytes.
    ///
    /// # Errors
    /// `Fenced`, for good, if a later attempt has begun. `StoreUnavailable` and the like without a
    /// verdict. `Internal` if the draft breaks a rule.
    pub(crate) async fn commit(&mut self, draft: CommitDraft) -> Result<Committed> {
        if let Some(error) = &self.stopped {
            return Err(error.clone());
        }
        let (deadline, name) = (self.deadline, ObjectName::manifest(self.next_version()));
        match tokio::time::timeout(deadline, self.commit_unbounded(draft)).await {
            Ok(result) => result,
            Err(_elapsed) => {
                let message = format!("no verdict on the commit within {deadline:?}");
                Err(Error::new(ErrorKind::StoreUnavailable, message).object(name))
            }
        }
    }

    async fn commit_unbounded(&mut self, draft: CommitDraft) -> Result<Committed> {
        // One turn commits, unless an earlier commit without a verdict turns out to hold the version. Then that
        // checkpoint is taken in, and the next turn tries the version above it.
        let CommitDraft { mut record, inline, keep } = draft;
        let mut drafted_for = self.next_version();
        let mut dropped = Vec::new();
        loop {
            let version = self.next_version();
            // References to inline bytes name the manifest that carries them.
            record.relocate(drafted_for, version);
            drafted_for = version;
            self.head.may_precede(&record)?;
            let nonce = self.remote.env().nonces.nonce();
            let mut manifest = self.head.next(nonce, record.clone(), self.oldest_of(keep));
            // Each turn adds parts of its own behind the draft's bytes.
            let mut inline = inline.clone();
            let whole = self.gaps.is_none_or(|gaps| manifest.retained.oldest() > gaps);
            let all = Some(&self.entries).filter(|_| whole);
            manifest.carry(&self.head, all, &mut inline)?;
            let payload = format::encode(&manifest, &inline)?;
            let bytes = payload.len() as u64;
            match self.create(version, nonce, payload).await? {
                None => {
                    dropped.extend(self.advance(manifest));
                    let adopted = self.take_adopted();
                    return Ok(Committed { manifest: Arc::clone(&self.head), dropped, adopted, bytes });
                }
                Some(earlier) => {
                    tracing::info!(%version, "an earlier commit without a verdict turns out to have succeeded");
                    self.adopted.extend(earlier.checkpoint().map(|record| record.id));
                    dropped.extend(self.advance(earlier));
                }
            }
        }
    }

    /// The oldest version that is retained if the newest `keep` checkpoints are, counting the one that
    /// is being committed.
    fn oldest_of(&self, keep: usize) -> Version {
        let dropped = (self.entries.len() + 1).saturating_sub(keep.max(1));
        if dropped == 0 {
            // Part of the list could not be read, so an older one may be retained.
            return self.head.retained.oldest();
        }
        self.entries.get(dropped).map_or(self.next_version(), Entry::version)
    }

    /// The retained checkpoints, oldest first.
    pub(crate) fn entries(&self) -> &VecDeque<Entry> {
        &self.entries
    }

    /// Makes `manifest` the head. Commits of its version are no longer in doubt. Returns the
    /// checkpoints that it drops.
    fn advance(&mut self, manifest: Manifest) -> Vec<Retained> {
        let manifest = Arc::new(manifest);
        let oldest = manifest.retained.oldest();
        let dropped = self.entries.partition_point(|entry| entry.version() < oldest);
        let dropped: Vec<_> = self.entries.drain(..dropped).map(|entry| entry.checkpoint).collect();
        // A checkpoint retains itself last.
        self.entries.extend(manifest.retained.newest());
        self.live.lock().unwrap_or_else(PoisonError::into_inner).committed(&manifest, oldest);
        self.dropped.extend(&dropped);
        self.head = manifest;
        // Requests of that version that still arrive find it taken.
        self.doubt.clear();
        dropped
    }

    /// Creates the next version. If an earlier commit of this attempt has created it already, returns
    /// that manifest instead.
    async fn create(&mut self, version: Version, nonce: Nonce, payload: Bytes) -> Result<Option<Manifest>> {
        let name = ObjectName::manifest(version);
        let mut machine = Commit::new(self.epoch, version, nonce, &self.doubt);
        let mut tries = Tries::new(&self.remote);
        let mut there = None;
        let mut step = machine.start();
        loop {
            step = match step {
                Step::Create => {
                    tries.next(&name).await?;
                    // Noted before the request: a caller may drop it at any time, and it may still
                    // be applied.
                    if !self.doubt.contains(&nonce) {
                        self.doubt.push(nonce);
                    }
                    machine.created(tries.create(&name, &payload).await)
                }
                Step::Read => {
                    let seen;
                    (seen, there) = look_at(&self.remote, version).await?;
                    machine.read(seen)
                }
                Step::List => machine.listed(newest_version(&self.remote).await?),
                Step::ReadNewest(_) => return Err(Error::internal("a commit does not read the newest")),
                Step::Done(CommitVerdict::Won(winner)) => {
                    return Ok(if winner == nonce { None } else { there });
                }
                Step::Done(CommitVerdict::Fenced(by)) => return Err(self.stop(fenced(&name, by))),
                Step::Done(CommitVerdict::Foreign { nonce, epoch }) => {
                    let message = format!(
                        "the version after epoch {}'s own is of epoch {epoch}, nonce {nonce}, which the protocol rules out",
                        self.epoch
                    );
                    let error = Error::corrupt(message).object(&name);
                    return Err(self.stop(error.advise(
                        "check that nothing else writes below this prefix, and start the job again",
                    )));
                }
                Step::Done(CommitVerdict::Damaged) => {
                    let error = Error::corrupt("the version after this attempt's own cannot be read");
                    return Err(self.stop(past_damage(error.object(&name))));
                }
                Step::Done(CommitVerdict::Unlisted) => return Err(unlisted(&name)),
            };
        }
    }

    /// Notes that the attempt is over. The first cause stays: what follows are consequences.
    fn stop(&mut self, error: Error) -> Error {
        self.stopped.get_or_insert(error).clone()
    }
}
