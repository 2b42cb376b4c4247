//! The barrier of a checkpoint, and the end of a subtask's input.

use futures::channel::oneshot;

use crate::changelog::ReceiptCost;
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::store::cut::Cut;
use crate::store::engine::CutState;
use crate::store::event::{Event, FinalCut, PendingCut};

use super::StateStore;

impl StateStore {
    /// The checkpoint that was triggered and that this store has not cut for yet. One load of an
    /// atomic, cheap enough to be called between any two records.
    ///
    /// Each store sees the checkpoint at its own place in the stream. That is right only if no
    /// records travel between subtasks and each reads its own input. Otherwise all cuts must lie at
    /// one place in the stream, so send the id with the records, as a barrier
    /// (`docs/embedding.md`).
    pub fn due(&self) -> Option<CheckpointId> {
        let number = self.shared.attempt.barrier();
        (number > self.last_cut).then_some(CheckpointId { epoch: self.shared.attempt.epoch, number })
    }

    /// The barrier of checkpoint `id`: it contains all writes so far and none that follow. All cuts
    /// of a checkpoint must lie at one place in the stream. [`StateStore::restored_metadata`]
    /// returns `metadata` after a restore. The metadata lies in the checkpoint's manifest: up to 1
    /// MiB, and 16 MiB for all subtasks together. A cut that is refused because of its metadata may
    /// be made again.
    ///
    /// In changelog mode this swaps the active delta for an empty one and returns. In native mode
    /// it flushes the memtable and hard-links RocksDB's files. In both modes the uploads continue
    /// in the background, and the job receives the receipt by itself. A committer elsewhere takes
    /// it from the returned [`Cut`].
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if `id` is of another attempt, not
    /// greater than that of the last cut, or of a checkpoint that has not started, and for metadata
    /// that is too long; [`Disk`](crate::ErrorKind::Disk) in native mode; the attempt's failure, if
    /// it has failed.
    pub fn cut(&mut self, id: CheckpointId, metadata: impl Into<Vec<u8>>) -> Result<Cut> {
        let start = self.clock.monotonic();
        self.alive()?;
        if id.epoch != self.shared.attempt.epoch || id.number <= self.last_cut {
            return Err(Error::invalid(format!(
                "checkpoint {id} is not one that this store can still cut for; the last was {}-{}",
                self.shared.attempt.epoch, self.last_cut
            )));
        }
        if !self.shared.attempt.may_cut(id.number) {
            return Err(Error::invalid(format!("checkpoint {id} has not started yet"))
                .advise("cut for it when Job::due returns it"));
        }
        let metadata = metadata.into();
        self.count_metadata(&metadata)?;
        self.count_elements()?;
        // They belong before the cut. A barrier does not wait for memory: the checkpoint is what frees it.
        self.write_renewals_at_once()?;
        let (reply, receipt) = oneshot::channel();
        // From here on the checkpoint counts as cut for, whatever becomes of the files.
        self.last_cut = id.number;
        let cut = self.engine.cut(id.number);
        let now = self.clock.monotonic();
        self.shared.presence.has_cut(id.number, now);
        let micros = now.saturating_sub(start).as_micros();
        let pending = Box::new(PendingCut {
            id,
            metadata,
            elements: self.elements.list(),
            states: self.registry.list(),
            cost: ReceiptCost {
                cut_micros: u64::try_from(micros).unwrap_or(u64::MAX),
                ..ReceiptCost::default()
            },
            reply,
        });
        match cut {
            Ok(CutState::Delta(seq)) => self.events.send(Event::Barrier { seq, pending }),
            Ok(CutState::Files(seq, files)) => self.events.send(Event::NativeCut { seq, files, pending }),
            Err(error) => {
                // The job has to hear of it as well, or it would wait for the receipt.
                let seq = self.engine.seq();
                self.events.send(Event::NativeUploaded { seq, pending, result: Err(error.clone()) });
                return Err(error);
            }
        }
        Ok(Cut { id, receipt })
    }

    /// Declares the end of this subtask's input. Its state stays as it is now and is part of all
    /// later checkpoints, which no longer wait for a cut of this store (as in Flink's FLIP-147).
    /// `metadata` takes the place of that of its cuts. A restore returns it as
    /// [`StateStore::restored_metadata`], to a store like any other, so it should say that the
    /// input has ended. For a checkpoint under way that the store has not cut for, this counts as
    /// its cut.
    ///
    /// A store that is dropped without it makes all later checkpoints impossible, see
    /// [`Job::health`](crate::Job::health).
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for metadata that [`StateStore::cut`]
    /// would refuse; [`Disk`](crate::ErrorKind::Disk) in native mode; the attempt's failure, if it
    /// has failed.
    pub fn finish(mut self, metadata: impl Into<Vec<u8>>) -> Result<()> {
        self.alive()?;
        let metadata = metadata.into();
        self.count_metadata(&metadata)?;
        self.count_elements()?;
        self.write_renewals_at_once()?;
        let seq = self.engine.finish()?;
        // Before the event, because a checkpoint that begins in between must not take the store for
        // dropped.
        self.shared.presence.finish();
        let (cut, states) = (self.last_cut, self.registry.list());
        let last = FinalCut { seq, cut, metadata, elements: self.elements.list(), states };
        self.events.send(Event::Finished(Box::new(last)));
        Ok(())
    }

    /// Holds the applying of deltas back, or lets it go.
    #[cfg(test)]
    pub(crate) fn hold_applies(&self, held: bool) {
        self.engine.hold_applies(held);
    }

    fn count_elements(&mut self) -> Result<()> {
        let bytes = self.elements.share_of_checkpoint(self.operator.parallelism);
        let total = &self.shared.attempt.elements;
        total
            .replace(self.elements_len, bytes)
            .map_err(|error| error.object(format!("subtask {}", self.subtask)))?;
        self.elements_len = bytes;
        Ok(())
    }

    fn count_metadata(&mut self, metadata: &[u8]) -> Result<()> {
        let total = &self.shared.attempt.metadata;
        total
            .replace(self.metadata_len, metadata.len())
            .map_err(|error| error.object(format!("metadata of subtask {}", self.subtask)))?;
        self.metadata_len = metadata.len();
        Ok(())
    }
}
