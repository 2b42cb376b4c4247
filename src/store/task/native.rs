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
use super::{StoreTask, given_up};

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
        // One run at a time, and the checkpoint's end may have been told before its cut came.
        if self.given_up.is_some_and(|last| pending.id <= last) {
            tokio::spawn(remove_snapshot(files.dir));
            let error = given_up(pending.id);
            return self.refuse(*pending, error);
        }
        let parts = &self.parts;
        let (uploader, known) = (Arc::clone(&parts.uploader), Arc::clone(&parts.known));
        let (range, inline_limit, events) = (parts.range, parts.inline_limit, self.events.clone());
        let (stop, stopped) = oneshot::channel();
        self.native = Some((pending.id, stop));
        tokio::spawn(async move {
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
            // Uploaded files are known and not sent again. If the next cut replaces this upload,
            // `stop` is dropped and the upload ends, because there is only one at a time.
            let result = tokio::select! {
                result = upload => result,
                _ = stopped => Err(given_up(pending.id)),
            };
            remove_snapshot(files.dir).await;
            events.send(Event::NativeUploaded { seq, pending, result });
        });
    }

    pub(super) fn native_uploaded(
        &mut self,
        seq: DeltaSeq,
        mut pending: PendingCut,
        result: Result<NativeUpload>,
    ) {
        self.native.take_if(|(native, _)| *native == pending.id);
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
    }
}
