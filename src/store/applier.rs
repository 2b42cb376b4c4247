//! The thread that brings a store's frozen deltas into its table, in order, each in one atomic step
//! with its sequence number. It also takes the snapshots for materialization, between two deltas,
//! so that their flush blocks nobody else.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::error::{Error, Result};
use crate::ids::DeltaSeq;
use crate::table::Table;

use super::shared::{Held, StoreShared};

/// What the applier has to do next.
pub(crate) enum Work {
    Apply(Held),
    /// Hard-link the table's files into `dir` and tell `done` which delta they stand at.
    Snapshot {
        dir: PathBuf,
        done: Box<dyn FnOnce(Result<DeltaSeq>) + Send>,
    },
    Stop,
}

/// The applier's inbox.
pub(crate) type Applier = Sender<Work>;

/// The applier's thread; dropping this ends it.
#[derive(Debug)]
pub(crate) struct ApplierThread {
    inbox: Applier,
    thread: Option<JoinHandle<()>>,
}

impl Drop for ApplierThread {
    fn drop(&mut self) {
        // Joined, so that RocksDB is closed by whoever drops the job: a process that exits while another
        // thread closes it runs into RocksDB's own destructors.
        let _ = self.inbox.send(Work::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic was recorded by the guard.
            let _ = thread.join();
        }
    }
}

/// Starts the thread.
pub(crate) fn start(
    name: String,
    table: Arc<Table>,
    shared: Arc<StoreShared>,
) -> Result<(Applier, ApplierThread)> {
    let (sender, receiver) = channel();
    let guard = PanicGuard(Arc::clone(&shared));
    let thread = thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _guard = guard;
            run(&receiver, &table, &shared);
        })
        .map_err(|error| Error::internal("cannot start the applier's thread").source(error))?;
    Ok((sender.clone(), ApplierThread { inbox: sender, thread: Some(thread) }))
}

fn run(inbox: &Receiver<Work>, table: &Table, shared: &StoreShared) {
    for work in inbox {
        match work {
            Work::Apply(held) => {
                let layer = &held.layer;
                // After a failure nothing may follow: a later delta without this one would be a hole.
                if shared.attempt.health().is_err() {
                    continue;
                }
                let tombstones = layer.delta.tombstones().iter();
                match table.apply(layer.seq, tombstones, layer.delta.iter()) {
                    Ok(()) => {
                        layer.set_applied();
                        let seq = layer.seq;
                        // Freed before anyone is told, so that a waiting writer finds the memory.
                        drop(held);
                        shared.set_applied(seq);
                    }
                    Err(error) => shared.fail(error),
                }
            }
            Work::Stop => return,
            Work::Snapshot { dir, done } => {
                done(table.applied().and_then(|seq| table.checkpoint(&dir).map(|()| seq)));
            }
        }
    }
}

/// Turns a panic of the thread into a failure that callers see.
struct PanicGuard(Arc<StoreShared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(Error::internal("the applier's thread panicked"));
        }
    }
}
