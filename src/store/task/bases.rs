//! Bases: when one is due, a snapshot of the table is uploaded beside the task.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ids::DeltaSeq;
use crate::key_group::KeyGroupRange;
use crate::manifest::BaseRef;
use crate::materialize::{
    self, Decision, History, Known, MaterializationReport, Uploaded, Uploader, blocking,
};
use crate::messages::FromStore;
use crate::store::applier::{SnapshotOrder, Work};
use crate::store::event::Event;
use crate::table::{self, TableFiles};

use super::{StoreTask, guarded};

/// Pause after a first base could not be uploaded in spite of the retries below; doubles up to the
/// longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where a materialization stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MaterializationState {
    Idle,
    /// A snapshot is being taken or uploaded, since this moment.
    Running(Duration),
}

impl StoreTask {
    /// Asks the policy whether a base is due.
    pub(super) fn decide(&mut self) {
        // A materialization under way is what the policy would ask for now.
        if self.materialization != MaterializationState::Idle || !self.parts.mode.logs_changes() {
            return;
        }
        let decision = materialize::decide(
            self.now(),
            &self.parts.policy,
            self.parts.share,
            &self.history,
            self.parts.tail.bytes_since_base(),
        );
        if matches!(decision, Decision::Run(_)) {
            self.wanted = true;
            self.start_materialization();
        }
    }

    /// Starts a materialization if one is wanted and none is under way.
    pub(super) fn start_materialization(&mut self) {
        if !self.wanted
            || self.materialization != MaterializationState::Idle
            || !self.parts.mode.logs_changes()
        {
            return;
        }
        self.wanted = false;
        self.history.on_demand |= std::mem::take(&mut self.demanded);
        self.materialization = MaterializationState::Running(self.now());
        self.snapshots += 1;
        // Numbered, because the files of an earlier snapshot may still be in removal.
        let dir = self.parts.dir.join(format!("base-{}", self.snapshots));
        let events = self.events.clone();
        let work = Work::Snapshot(SnapshotOrder {
            dir: dir.clone(),
            done: Box::new(move |result| events.send(Event::Snapshot { dir, result })),
        });
        if self.parts.applier.send(work).is_err() {
            // The job is going down.
            self.materialization = MaterializationState::Idle;
        }
    }

    pub(super) fn upload_base(&mut self, dir: PathBuf, snapshot: Result<(DeltaSeq, TableFiles)>) {
        let (seq, files) = match snapshot {
            Ok((seq, files)) if materialize::is_news(seq, self.parts.tail.base_seq(), &self.history) => {
                (seq, files)
            }
            Ok(_) => {
                // Nothing was applied since the last base.
                self.materialization = MaterializationState::Idle;
                self.history.last_run = Some(self.now());
                self.history.on_demand = false;
                tokio::spawn(remove_snapshot(dir));
                return;
            }
            Err(error) => {
                tokio::spawn(remove_snapshot(dir));
                return self.materialized(DeltaSeq(0), Err(error));
            }
        };
        let (uploader, known) = (Arc::clone(&self.parts.uploader), Arc::clone(&self.parts.known));
        let (range, events) = (self.parts.range, self.events.clone());
        let run = async move {
            let result = upload(&uploader, &known, &files, range, seq).await;
            remove_snapshot(dir).await;
            events.send(Event::Materialized { seq, result });
        };
        tokio::spawn(guarded(Arc::clone(&self.parts.shared.attempt), run));
    }

    /// Uploads the base that the first checkpoint waits for, for as long as it takes (I6): a later
    /// snapshot would not do, because it may stand after the checkpoint's cut.
    pub(super) fn upload_first_base(
        &mut self,
        files: TableFiles,
        seq: DeltaSeq,
        runtime: &tokio::runtime::Handle,
    ) {
        self.materialization = MaterializationState::Running(self.now());
        let (uploader, known) = (Arc::clone(&self.parts.uploader), Arc::clone(&self.parts.known));
        let (range, events) = (self.parts.range, self.events.clone());
        let (shared, committer) = (Arc::clone(&self.parts.shared), self.parts.committer.clone());
        let clock = Arc::clone(&uploader.remote.env().clock);
        let run = async move {
            let mut pause = FIRST_PAUSE;
            loop {
                match upload(&uploader, &known, &files, range, seq).await {
                    Ok(done) => {
                        remove_snapshot(files.dir).await;
                        return events.send(Event::Materialized { seq, result: Ok(done) });
                    }
                    Err(error) => {
                        if let Some(damage) = known.damage() {
                            shared.fail(damage.clone());
                            committer.tell(FromStore::Failed(damage));
                        }
                        if shared.attempt.health().is_err() {
                            return;
                        }
                        shared.bases.failed(&error, clock.monotonic());
                        tracing::warn!(%error, "the first base could not be uploaded; trying again");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        };
        runtime.spawn(guarded(Arc::clone(&self.parts.shared.attempt), run));
    }

    pub(super) fn materialized(&mut self, seq: DeltaSeq, result: Result<(BaseRef, Uploaded)>) {
        let MaterializationState::Running(start) =
            std::mem::replace(&mut self.materialization, MaterializationState::Idle)
        else {
            return;
        };
        self.retire_strays();
        self.note_base(result.as_ref().err());
        match result {
            Ok((base, uploaded)) => {
                // From now on its objects are the tail's to retire.
                self.parts.known.published(&uploaded.index, &base.object);
                self.history =
                    History { opened: self.history.opened, last_run: Some(start), ..History::default() };
                debug_assert_eq!(base.seq, seq, "the base stands at its snapshot");
                self.parts.tail.materialized(base);
                let report = MaterializationReport {
                    subtask: self.parts.uploader.names.subtask(),
                    start_ms: start.as_secs_f64() * 1e3,
                    duration_ms: self.now().saturating_sub(start).as_secs_f64() * 1e3,
                    seq,
                    new_bytes: uploaded.new_bytes,
                    new_files: uploaded.new_files as u64,
                    reused_bytes: uploaded.reused_bytes,
                    reused_files: uploaded.reused_files as u64,
                };
                self.parts.committer.tell(FromStore::Materialized(report));
            }
            Err(error) => {
                self.stop_if_damaged();
                // The changelog goes on without the base. Uploaded files are not sent again.
                tracing::warn!(%error, "a materialization failed and will be tried again");
                // The policy waits longer after each failure.
                self.history.failures += 1;
                self.history.last_failure = self.now();
            }
        }
    }

    /// Notes for health that a base was completed, or failed.
    pub(super) fn note_base(&self, error: Option<&Error>) {
        let bases = &self.parts.shared.bases;
        match error {
            None => bases.succeeded(),
            Some(error) => bases.failed(error, self.now()),
        }
    }

    /// Ends the attempt if the local files were found to be damaged. No base can come from them,
    /// and reads may fail at any time. The state in the object store is intact, and a restart
    /// begins from there.
    pub(super) fn stop_if_damaged(&self) {
        if let Some(damage) = self.parts.known.damage() {
            self.parts.shared.fail(damage.clone());
            self.parts.committer.tell(FromStore::Failed(damage));
        }
    }

    /// Retires the files that were uploaded for failed bases and that the next base does not use.
    pub(super) fn retire_strays(&self) {
        let strays = self.parts.known.take_strays();
        if !strays.is_empty() {
            self.parts.committer.tell(FromStore::Retired(strays));
        }
    }
}

/// Uploads what the store lacks of a snapshot, then the base that refers to it.
async fn upload(
    uploader: &Uploader,
    known: &Known,
    files: &TableFiles,
    range: KeyGroupRange,
    seq: DeltaSeq,
) -> Result<(BaseRef, Uploaded)> {
    let uploaded = uploader.upload(files, range, seq, table::OPERATOR_NAME, known).await?;
    // Told before the base exists: if publishing fails, the object may lie there all the same.
    known.begun(uploaded.object.clone());
    Ok((uploader.publish(&uploaded).await?, uploaded))
}

/// Snapshots are hard links; one that stays behind pins files that RocksDB has deleted.
pub(super) async fn remove_snapshot(dir: PathBuf) {
    let removed = blocking(move || match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::disk("remove a snapshot", &dir, error))
        }
        _ => Ok(()),
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "a snapshot's directory stays behind until the next start");
    }
}
