//! The thread that brings a store's frozen deltas into its table, in order, each in one atomic step
//! with its sequence number. It also takes the snapshots for materialization, between two deltas,
//! so that their flush blocks nobody else.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ids::DeltaSeq;
use crate::table::{Table, TableFiles};

use super::shared::{Held, StoreShared};

/// How often a snapshot that waits for level 0 looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the applier has to do next.
pub(crate) enum Work {
    Apply(Held),
    Snapshot(SnapshotOrder),
    Stop,
}

/// A snapshot, and the delta that it stands at.
pub(crate) type Taken = Result<(DeltaSeq, TableFiles)>;

/// Hard-link the table's files into `dir` and tell `done` of them, and which delta they stand at.
pub(crate) struct SnapshotOrder {
    pub(crate) dir: PathBuf,
    pub(crate) done: Box<dyn FnOnce(Taken) + Send>,
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
    let mut waiting: Option<SnapshotOrder> = None;
    loop {
        // RocksDB would hold back a snapshot's flush for as long as level 0 is crowded, and with it every
        // delta that follows. The snapshot waits instead; deltas go on.
        if waiting.is_some() && !table.is_crowded() {
            waiting.take().into_iter().for_each(|order| order.carry_out(table));
        }
        let work = match &waiting {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => inbox.recv_timeout(LOOK_AGAIN),
        };
        match work {
            Ok(Work::Apply(held)) => apply(held, table, shared),
            Ok(Work::Snapshot(order)) => waiting = Some(order),
            Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn apply(held: Held, table: &Table, shared: &StoreShared) {
    let layer = &held.layer;
    // After a failure nothing may follow: a later delta without this one would be a hole.
    if shared.attempt.health().is_err() {
        return;
    }
    // The operator never waits for memtables: it has its own bound, which this delta counts towards.
    table.make_room(layer.delta.bytes() as u64, || shared.attempt.health().is_err());
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

impl SnapshotOrder {
    fn carry_out(self, table: &Table) {
        (self.done)(table.applied().and_then(|seq| Ok((seq, table.checkpoint(&self.dir)?))));
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::budget::Budget;
    use super::super::shared::{Attempt, Layer};
    use super::*;
    use crate::delta::{ActiveDelta, TableKind};
    use crate::ids::Epoch;
    use crate::key;
    use crate::key_group::{KeyGroup, KeyGroupRange};
    use crate::table::TableResources;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn i6_a_snapshot_waits_for_level_0_and_deltas_do_not_wait_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let range = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(3) };
        let resources = TableResources::new(8 << 20, 1);
        let table = Arc::new(Table::create(&dir.path().join("table"), range, &resources).unwrap());
        table.hold_compactions();
        let mut seq = DeltaSeq(0);
        while !table.is_crowded() {
            seq = seq.next();
            table.set_applied(seq).unwrap();
            table.flush().unwrap();
        }
        let shared = StoreShared::new(Attempt::new(Epoch(1)), Budget::new(1 << 20), seq);
        let (applier, _thread) = start("test".into(), Arc::clone(&table), Arc::clone(&shared)).unwrap();
        let (done, taken) = channel();
        let done = Box::new(move |result| done.send(result).unwrap());
        applier.send(Work::Snapshot(SnapshotOrder { dir: dir.path().join("base"), done })).unwrap();

        let mut delta = ActiveDelta::new();
        let mut key = Vec::new();
        key::encode_into(&mut key, KeyGroup(1), crate::ids::StateId::of("state"), b"key");
        delta.put(TableKind::Hash, &key, b"value");
        seq = seq.next();
        let layer = Layer::new(seq, delta.cut());
        shared.set_frozen(seq);
        let share = Arc::new(shared.budget.take(1));
        applier.send(Work::Apply(Held { layer: Arc::clone(&layer), _share: share })).unwrap();
        for _ in 0..SOON.as_millis() {
            if layer.is_applied() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert!(layer.is_applied(), "the delta went past the waiting snapshot");
        assert!(taken.try_recv().is_err(), "no snapshot while level 0 is crowded");

        table.compact_all().unwrap();
        assert_eq!(
            taken.recv_timeout(SOON).unwrap().unwrap().0,
            seq,
            "it stands at what was applied meanwhile"
        );
        assert!(
            Table::open(&dir.path().join("base"), range, &resources).unwrap().get(&key).unwrap().is_some()
        );
    }
}
