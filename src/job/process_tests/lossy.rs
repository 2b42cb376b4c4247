//! A message between stores and coordinator that is lost, doubled or late changes nothing but time:
//! random histories over a post that a seed decides on. What is committed is read back and compared
//! with what was cut; at the end the post becomes reliable, and the next checkpoint has everything.
//!
//! What goes up may be lost, doubled, and overtaken. What goes down may be lost and late, and keeps
//! its order: an old word of where a delta was packed to must not come after a newer one, so a
//! transport numbers what it carries to a store, and drops what is out of turn.
//!
//! A failing seed prints the command that replays it. `ALLUVIUM_SEEDS=1000` runs that many.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::delta::DeltaReader;
use crate::error::ErrorKind;
use crate::messages::ToStore;

const SEEDS: u64 = 40;
const CHECKPOINTS: usize = 30;

/// The post, and what it is carrying.
struct Carrier {
    post: Post,
    up: Vec<FromStore>,
    down: Vec<VecDeque<ToStore>>,
    rng: StdRng,
    /// Nothing is lost, doubled or late any more.
    reliable: bool,
    lost: usize,
    doubled: usize,
}

impl Carrier {
    /// Takes in what was sent, and delivers some of what it has.
    fn turn(&mut self, process: &Process) {
        while let Ok(message) = self.post.up.try_recv() {
            self.up.push(message);
        }
        for (store, (receiver, queue)) in self.post.down.iter_mut().zip(&mut self.down).enumerate() {
            while let Ok(event) = receiver.try_recv() {
                match event {
                    Event::Told(message) => queue.push_back(message),
                    // A question within the process.
                    other => process.stores[store].events.send(other),
                }
            }
        }
        if self.reliable {
            self.up.drain(..).for_each(|message| drop(process.commands.send(Command::Told(message))));
            for (store, queue) in process.stores.iter().zip(&mut self.down) {
                queue.drain(..).for_each(|message| store.events.tell(message));
            }
            return;
        }
        if !self.up.is_empty() && self.rng.random_ratio(1, 4) {
            let message = self.up.swap_remove(self.rng.random_range(0..self.up.len()));
            match self.rng.random_range(0..10) {
                0 => self.lost += 1,
                1 => {
                    self.doubled += 1;
                    self.up.push(message.clone());
                    drop(process.commands.send(Command::Told(message)));
                }
                _ => drop(process.commands.send(Command::Told(message))),
            }
        }
        let store = self.rng.random_range(0..self.down.len());
        if self.rng.random_ratio(1, 2)
            && let Some(message) = self.down[store].pop_front()
        {
            if self.rng.random_ratio(1, 8) {
                self.lost += 1;
            } else {
                process.stores[store].events.tell(message);
            }
        }
    }

    /// Carries messages for ever, a few in each turn of the tasks.
    async fn carry(&mut self, process: &Process) {
        loop {
            self.turn(process);
            tokio::task::yield_now().await;
        }
    }
}

struct World {
    process: Process,
    carrier: Carrier,
    /// For each checkpoint, how far each store had written at its cut.
    cuts: BTreeMap<CheckpointId, Vec<DeltaSeq>>,
    committed: usize,
    given_up: usize,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (process, post) = Process::with_post(rng.random_range(1..5)).await;
        let down = post.down.iter().map(|_| VecDeque::new()).collect();
        let (up, reliable, lost, doubled) = (Vec::new(), false, 0, 0);
        let carrier = Carrier { post, up, down, rng, reliable, lost, doubled };
        Self { process, carrier, cuts: BTreeMap::new(), committed: 0, given_up: 0 }
    }

    /// One checkpoint. After some time without a commit it is given up, unless all messages arrive.
    async fn checkpoint(&mut self) {
        let (id, report) = self.process.trigger();
        let rng = &mut self.carrier.rng;
        for store in &mut self.process.stores {
            for _ in 0..rng.random_range(0..3) {
                // Less than the manifest takes, or more.
                store.write(if rng.random_ratio(1, 3) { 20 << 10 } else { 1 << 10 });
            }
            store.cut(id);
        }
        self.cuts.insert(id, self.process.stores.iter().map(|store| store.seq).collect());
        let patience = if self.carrier.reliable { usize::MAX } else { rng.random_range(500..4000) };
        let Self { process, carrier, .. } = self;
        let outcome = async {
            let mut report = pin!(report);
            for _ in 0..patience {
                if let std::task::Poll::Ready(report) = poll!(report.as_mut()) {
                    return report;
                }
                tokio::task::yield_now().await;
            }
            drop(process.commands.send(Command::Abort(id)));
            report.await
        };
        let carried = async {
            match futures::future::select(pin!(outcome), pin!(carrier.carry(process))).await {
                futures::future::Either::Left((outcome, _)) => outcome,
                futures::future::Either::Right(((), _)) => unreachable!("it carries for ever"),
            }
        };
        let sealed = || process.stores.iter().all(Store::is_sealed);
        match drive(&process.time, sealed, carried).await.unwrap() {
            Ok(report) => {
                assert_eq!(report.id, id);
                self.committed += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
                self.given_up += 1;
            }
        }
        self.check().await;
    }

    /// The newest checkpoint holds what was cut for it: each delta once, in order, as it was sealed.
    async fn check(&self) {
        let manifest = self.process.newest().await;
        let Some(checkpoint) = manifest.checkpoint() else { return };
        let cuts = &self.cuts[&checkpoint.id];
        assert_eq!(checkpoint.subtasks.len(), cuts.len());
        for (subtask, cut) in checkpoint.subtasks.iter().zip(cuts) {
            assert_eq!(subtask.seq, *cut, "{} of {}", subtask.subtask, checkpoint.id);
            let mut next = DeltaSeq(1);
            for delta in &subtask.deltas {
                let range = delta.offset..delta.offset + delta.length;
                let bytes = self.process.beside.get_range(&delta.object, range).await.unwrap();
                assert_eq!(crc32c::crc32c(&bytes), delta.crc32c, "{delta:?}");
                for reader in DeltaReader::open_all(bytes).unwrap() {
                    let header = reader.header();
                    assert_eq!((header.subtask, header.first), (subtask.subtask, next), "{delta:?}");
                    next = header.last.next();
                }
            }
            assert_eq!(next, cut.next(), "{} of {}", subtask.subtask, checkpoint.id);
        }
    }

    async fn run(mut self) -> Self {
        for _ in 0..CHECKPOINTS {
            self.checkpoint().await;
            assert!(self.process.attempt.health().is_ok(), "the attempt goes on");
        }
        self.carrier.reliable = true;
        let before = self.committed;
        self.checkpoint().await;
        assert_eq!(self.committed, before + 1, "with a reliable post a checkpoint completes");
        let Self { process, carrier, .. } = &mut self;
        let freed = async {
            while process.stores.iter().any(|store| store.shared.budget.held() > 0) {
                carrier.turn(process);
                tokio::task::yield_now().await;
            }
        };
        // Never ends if what is durable still counts.
        tokio::time::timeout(Duration::from_secs(60), drive(&process.time, || true, freed)).await.unwrap();
        self
    }
}

fn run_printing_seed(seed: u64) -> [usize; 4] {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let world = runtime.block_on(async { World::new(seed).await.run().await });
        [world.committed, world.given_up, world.carrier.lost, world.carrier.doubled]
    };
    std::panic::catch_unwind(run).unwrap_or_else(|payload| {
        let test = "job::process_tests::lossy::replay";
        eprintln!("replay: ALLUVIUM_SEED={seed} cargo test --all-features --lib {test}");
        std::panic::resume_unwind(payload)
    })
}

#[test]
fn i1_messages_that_are_lost_doubled_or_late_change_nothing_but_time() {
    let seeds = std::env::var("ALLUVIUM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let mut total = [0; 4];
    for seed in 0..seeds {
        total.iter_mut().zip(run_printing_seed(seed)).for_each(|(total, more)| *total += more);
    }
    println!("committed, given up, lost, doubled: {total:?}");
    assert!(total.iter().all(|count| *count as u64 >= seeds), "{total:?}: too little happened");
}

/// A receipt that another attempt's store has sent here must not tell this attempt's store that its
/// checkpoint was given up.
#[tokio::test]
async fn i2_a_receipt_of_another_epoch_is_ignored() {
    let (mut process, mut post) = Process::with_post(1).await;
    let (id, _report) = process.trigger();
    process.cut_all(id, 10);
    let sealed = || process.stores.iter().all(Store::is_sealed);
    let Some(FromStore::Receipt(receipt)) = drive(&process.time, sealed, post.up.recv()).await else {
        panic!("the store has cut");
    };
    for epoch in [id.epoch.0 - 1, id.epoch.0 + 1] {
        let mut foreign = receipt.clone();
        foreign.checkpoint.epoch = crate::ids::Epoch(epoch);
        drop(process.commands.send(Command::Told(FromStore::Receipt(foreign))));
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(post.down[0].try_recv().is_err(), "nothing was told to the store");
}

/// Runs the one seed in `ALLUVIUM_SEED`, if it is set.
#[test]
fn replay() {
    if let Ok(seed) = std::env::var("ALLUVIUM_SEED") {
        run_printing_seed(seed.parse().unwrap());
    }
}
