//! Native checkpoints: the files that a cut has linked are uploaded beside the task.

use std::path::PathBuf;
use std::sync::Arc;

use futures::channel::oneshot;

use crate::changelog::ReceiptBase;
use crate::error::Result;
use crate::ids::{CheckpointId, DeltaSeq};
use crate::store::applier::{SnapshotOrder, Work};
use crate::store::event::{Event, NativeUpload, PendingCut};
use crate::table::{self, TableFiles};

use super::bases::remove_snapshot;
use super::{StoreTask, given_up, guarded};

/// A snapshot of a native checkpoint, to be uploaded.
struct NativeCut {
    seq: DeltaSeq,
    files: TableFiles,
    pending: Box<PendingCut>,
}

/// The uploads of native checkpoints. There is one at a time: the end of an upload settles what
/// later ones may refer to, and would take the files of one that has begun already for garbage
/// ([`Known::settle`](crate::materialize::Known::settle)). An upload that was told to stop may
/// still come to its end instead, so the next begins when it is heard of no more.
#[derive(Default)]
pub(super) struct NativeUploads {
    running: Option<Running>,
    waiting: Option<NativeCut>,
}

struct Running {
    id: CheckpointId,
    /// Stops it when dropped. None: it was told.
    stop: Option<oneshot::Sender<()>>,
}

impl NativeUploads {
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

impl StoreTask {
    /// The cut of a store that has finished. Its table stands still, so a native checkpoint of it
    /// is one of whatever files the table has by now.
    pub(super) fn cut_finished(&mut self, id: CheckpointId) {
        let Some(last) = &self.last else { return };
        let (seq, pending) = (last.seq, last.pending_cut(id));
        if self.parts.mode.logs_changes() {
            return self.barrier(seq, pending);
        }
        let dir = self.parts.dir.join(format!("cut-{}", id.number));
        let events = self.events.clone();
        let order = SnapshotOrder {
            dir: dir.clone(),
            done: Box::new(move |result| events.send(Event::FinishedSnapshot { dir, pending, result })),
        };
        // Otherwise the applier has panicked; the failure is recorded there, and ends the
        // checkpoint.
        let _ = self.parts.applier.send(Work::Snapshot(order));
    }

    pub(super) fn finished_snapshot(
        &mut self,
        dir: PathBuf,
        pending: Box<PendingCut>,
        result: Result<(DeltaSeq, TableFiles)>,
    ) {
        match result {
            Ok((seq, files)) => self.upload_native(seq, files, pending),
            Err(error) => {
                tokio::spawn(remove_snapshot(dir));
                self.note_base(Some(&error));
                self.refuse(*pending, error);
            }
        }
    }

    pub(super) fn upload_native(&mut self, seq: DeltaSeq, files: TableFiles, pending: Box<PendingCut>) {
        let cut = NativeCut { seq, files, pending };
        // The checkpoint's end may have been told before its cut came.
        if self.given_up.is_some_and(|last| cut.pending.id <= last) {
            return self.refuse_native(cut);
        }
        let Some(running) = &mut self.native.running else { return self.start_native(cut) };
        // A cut for the next checkpoint says that this one was given up.
        running.stop = None;
        if let Some(older) = self.native.waiting.replace(cut) {
            self.refuse_native(older);
        }
    }

    /// The checkpoint was given up: its upload stops, or does not begin.
    pub(super) fn give_up_native(&mut self, id: CheckpointId) {
        if let Some(running) = self.native.running.as_mut().filter(|running| running.id == id) {
            running.stop = None;
        }
        if let Some(cut) = self.native.waiting.take_if(|cut| cut.pending.id == id) {
            self.refuse_native(cut);
        }
    }

    fn refuse_native(&self, cut: NativeCut) {
        tokio::spawn(remove_snapshot(cut.files.dir));
        let error = given_up(cut.pending.id);
        self.refuse(*cut.pending, error);
    }

    fn start_native(&mut self, NativeCut { seq, files, pending }: NativeCut) {
        let parts = &self.parts;
        let (uploader, known) = (Arc::clone(&parts.uploader), Arc::clone(&parts.known));
        let (range, inline_limit, events) = (parts.range, parts.inline_limit, self.events.clone());
        let (stop, stopped) = oneshot::channel();
        self.native.running = Some(Running { id: pending.id, stop: Some(stop) });
        let run = async move {
            let upload = async {
                let uploaded = uploader.upload(&files, range, seq, table::OPERATOR_NAME, &known).await?;
                let (bytes, objects) = (uploaded.new_bytes, uploaded.new_files as u64);
                let largest = uploaded.largest;
                let index = uploaded.encoded.len() as u64;
                if index > inline_limit {
                    known.begun(uploaded.object.clone());
                    let base = ReceiptBase::Stored(uploader.publish(&uploaded).await?);
                    let (bytes, objects, largest) = (bytes + index, objects + 1, largest.max(index));
                    return Ok(NativeUpload { base, bytes, objects, largest });
                }
                let index = uploaded.encoded.clone();
                // Where the index lies is known once the manifest has a version.
                let nowhere = uploaded.object.clone();
                let reference = uploaded.index.reference(nowhere, 0, &index);
                Ok(NativeUpload { base: ReceiptBase::Inline { index, reference }, bytes, objects, largest })
            };
            // Uploaded files are known and not sent again. If the checkpoint is given up, `stop` is
            // dropped. That is looked at first, so that an upload which was stopped before it ran sends
            // nothing.
            let result = tokio::select! {
                biased;
                _ = stopped => Err(given_up(pending.id)),
                result = upload => result,
            };
            remove_snapshot(files.dir).await;
            events.send(Event::NativeUploaded { seq, pending, result });
        };
        tokio::spawn(guarded(Arc::clone(&parts.shared.attempt), run));
    }

    pub(super) fn native_uploaded(
        &mut self,
        seq: DeltaSeq,
        mut pending: PendingCut,
        result: Result<NativeUpload>,
    ) {
        // A cut that has failed at once is told in the same way, and may come while an upload is under
        // way.
        self.native.running.take_if(|running| running.id == pending.id);
        self.retire_strays();
        // It is not tried again by itself: health tells of it until the next checkpoint.
        self.note_base(result.as_ref().err());
        match result {
            Ok(sent) => {
                pending.cost.sst_bytes = sent.bytes;
                pending.cost.late_bytes += sent.bytes;
                pending.cost.largest_object = sent.largest;
                pending.cost.puts += sent.objects;
                self.answer(pending, seq, Vec::new(), Some(sent.base), Vec::new());
            }
            Err(error) => {
                self.stop_if_damaged();
                self.refuse(pending, error);
            }
        }
        if self.native.running.is_none()
            && let Some(next) = self.native.waiting.take()
        {
            self.start_native(next);
        }
    }
}
