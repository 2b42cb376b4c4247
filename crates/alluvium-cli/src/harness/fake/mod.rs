//! A backend whose pauses, bytes and durations are known, in a time that only its own costs move: the
//! figures that the driver and the report come to must be those that were put in.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alluvium::{CheckpointId, Epoch, KeyGroup};

use crate::failure::{Failure, Result};
use crate::harness::backend::{
    Backend, Checkpoint, Events, Gauges, GoOn, Materialization, Operator, RecordCounters, Time,
};
use crate::harness::stage::StageKind;
use crate::result::MemoryParts;

/// What everything costs.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    pub(crate) put: Duration,
    /// This put (counted from 0) takes so much longer.
    pub(crate) stall: Option<(u64, Duration)>,
    pub(crate) cut: Duration,
    pub(crate) settle: Duration,
    pub(crate) interval: Duration,
    pub(crate) checkpoint: Duration,
    /// Bytes of the n-th checkpoint.
    pub(crate) bytes: fn(u64) -> u64,
    /// While these checkpoints are taken a compaction runs.
    pub(crate) compacting: fn(u64) -> bool,
    /// Puts that are lost: every so manieth.
    pub(crate) lose_every: Option<u64>,
    /// Fails at this put.
    pub(crate) fail_at: Option<u64>,
    /// From this put on every put waits until the run is given up.
    pub(crate) stuck_at: Option<u64>,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            put: Duration::from_micros(10),
            stall: None,
            cut: Duration::from_millis(5),
            settle: Duration::from_millis(500),
            interval: Duration::from_millis(100),
            checkpoint: Duration::from_millis(20),
            bytes: |_| 1000,
            compacting: |_| false,
            lose_every: None,
            fail_at: None,
            stuck_at: None,
        }
    }
}

/// Time that stands still unless it is moved.
#[derive(Debug, Default)]
pub(crate) struct SimTime(AtomicU64);

impl SimTime {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Time for SimTime {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, moment: Duration) {
        self.0.fetch_max(moment.as_nanos() as u64, Ordering::SeqCst);
    }
}

/// A job of one subtask.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) costs: Costs,
    pub(crate) time: SimTime,
    pub(crate) events: Events,
    next_trigger: AtomicU64,
    cuts: AtomicU64,
    puts: AtomicU64,
    leveled: AtomicU64,
    begun: Mutex<Vec<StageKind>>,
    abandoned: AtomicBool,
}

impl Fake {
    pub(crate) fn new(costs: Costs) -> (Arc<Self>, FakeOperator) {
        let next_trigger = AtomicU64::new(costs.interval.as_nanos() as u64);
        let fake = Arc::new(Self {
            costs,
            time: SimTime::default(),
            events: Events::default(),
            next_trigger,
            cuts: AtomicU64::new(0),
            puts: AtomicU64::new(0),
            leveled: AtomicU64::new(0),
            begun: Mutex::default(),
            abandoned: AtomicBool::new(false),
        });
        let groups = (0..128).map(KeyGroup).collect();
        (Arc::clone(&fake), FakeOperator { fake, values: BTreeMap::new(), groups })
    }
}

impl Backend for Fake {
    fn begins(&self, stage: StageKind) {
        self.begun.lock().unwrap().push(stage);
    }

    fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
    }

    fn checkpoint(&self, go_on: GoOn<'_>) -> Result<()> {
        let before = self.cuts.load(Ordering::SeqCst);
        self.next_trigger.store(self.time.now().as_nanos() as u64, Ordering::SeqCst);
        while self.cuts.load(Ordering::SeqCst) == before {
            go_on()?;
            std::thread::yield_now();
        }
        Ok(())
    }

    fn level(&self, _: GoOn<'_>) -> Result<()> {
        // Outside of every stage: what it takes must show in no figure.
        self.next_trigger.store(u64::MAX, Ordering::SeqCst);
        self.time.advance(Duration::from_secs(77));
        let (start, id) = (self.time.now(), CheckpointId { epoch: Epoch(1), number: 0 });
        self.time.advance(self.costs.checkpoint);
        let end = self.time.now();
        let checkpoint =
            Checkpoint { id, start, end, bytes: 1, puts: 1, bytes_after_trigger: 1, largest_object: 1 };
        self.events.record(|log| log.checkpoints.push(checkpoint));
        self.leveled.fetch_add(1, Ordering::SeqCst);
        self.next_trigger.store((end + self.costs.interval).as_nanos() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn settle(&self, _: GoOn<'_>) -> Result<()> {
        // No barrier falls into it, so that the number of checkpoints does not hang on the threads' timing.
        self.next_trigger.store(u64::MAX, Ordering::SeqCst);
        self.time.advance(self.costs.settle);
        let next = self.time.now() + self.costs.interval;
        self.next_trigger.store(next.as_nanos() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn materialize(&self) {
        let start = self.time.now();
        let materialization =
            Materialization { start, end: start + Duration::from_millis(30), bytes: 500_000, files: 3 };
        self.events.record(|log| log.materializations.push(materialization));
    }

    fn health(&self) -> Result<()> {
        Ok(())
    }

    fn trouble(&self) -> Option<alluvium::Error> {
        None
    }

    fn gauges(&self) -> Gauges {
        let cuts = self.cuts.load(Ordering::SeqCst);
        let puts = self.puts.load(Ordering::SeqCst);
        Gauges {
            running_compactions: u64::from((self.costs.compacting)(cuts)),
            stored_bytes: cuts * 1000,
            last_checkpoint: self.events.read(|log| log.checkpoints.last().copied()),
            // Of four reads one is a miss.
            records: RecordCounters {
                hits: 3 * puts,
                misses: puts,
                evictions: 2 * puts,
                entries: 900,
                bytes: 90_000,
                limit_bytes: 100_000,
            },
            memory: MemoryParts { records: 90_000, deltas: puts, ..MemoryParts::default() },
            ..Gauges::default()
        }
    }
}

/// Its only operator.
#[derive(Debug)]
pub(crate) struct FakeOperator {
    fake: Arc<Fake>,
    pub(crate) values: BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>>,
    pub(crate) groups: Vec<KeyGroup>,
}

impl FakeOperator {
    /// Takes the cost of a write; false where the write is to be lost.
    fn write(&self) -> Result<bool> {
        let costs = &self.fake.costs;
        let n = self.fake.puts.fetch_add(1, Ordering::SeqCst);
        self.fake.time.advance(costs.put);
        if let Some((at, stall)) = costs.stall
            && at == n
        {
            self.fake.time.advance(stall);
        }
        if costs.stuck_at.is_some_and(|at| n >= at) {
            while !self.fake.abandoned.load(Ordering::SeqCst) {
                self.fake.time.advance(Duration::from_millis(1));
                std::thread::sleep(Duration::from_millis(1));
            }
            return Err(Failure::new("the fake was given up"));
        }
        if costs.fail_at == Some(n) {
            return Err(Failure::new("the fake fails"));
        }
        Ok(costs.lose_every.is_none_or(|every| n % every != every - 1))
    }
}

impl Operator for FakeOperator {
    fn read<T>(&self, group: KeyGroup, key: &[u8], with: impl FnOnce(Option<&[u8]>) -> T) -> Result<T> {
        Ok(with(self.values.get(&(group, key.to_vec())).map(Vec::as_slice)))
    }

    fn put(&mut self, group: KeyGroup, key: &[u8], value: &[u8]) -> Result<()> {
        if self.write()? {
            self.values.insert((group, key.to_vec()), value.to_vec());
        }
        Ok(())
    }

    fn append(&mut self, group: KeyGroup, key: &[u8], element: &[u8]) -> Result<()> {
        if self.write()? {
            self.values.entry((group, key.to_vec())).or_default().extend_from_slice(element);
        }
        Ok(())
    }

    fn delete(&mut self, group: KeyGroup, key: &[u8]) -> Result<()> {
        if self.write()? {
            self.values.remove(&(group, key.to_vec()));
        }
        Ok(())
    }

    fn delete_prefix(&mut self, group: KeyGroup, prefix: &[u8]) -> Result<()> {
        if self.write()? {
            self.values.retain(|(g, key), _| *g != group || !key.starts_with(prefix));
        }
        Ok(())
    }

    fn groups(&self) -> Vec<KeyGroup> {
        self.groups.clone()
    }

    fn scan(&self, group: KeyGroup, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let range = (group, Vec::new())..;
        for ((_, key), value) in self.values.range(range).take_while(|((g, _), _)| *g == group) {
            each(key, value);
        }
        Ok(())
    }

    fn due(&self) -> Option<CheckpointId> {
        // The time first: `settle` puts the trigger off before it moves the time.
        let now = self.fake.time.now().as_nanos() as u64;
        let trigger = self.fake.next_trigger.load(Ordering::SeqCst);
        let number = self.fake.cuts.load(Ordering::SeqCst) + 1;
        (now >= trigger).then_some(CheckpointId { epoch: Epoch(1), number })
    }

    fn cut(&mut self, id: CheckpointId, _: u64) -> Result<()> {
        let fake = &self.fake;
        let start = fake.time.now();
        fake.time.advance(fake.costs.cut);
        fake.next_trigger.store((start + fake.costs.interval).as_nanos() as u64, Ordering::SeqCst);
        let end = start + fake.costs.checkpoint;
        let bytes = (fake.costs.bytes)(id.number);
        let checkpoint = Checkpoint {
            id,
            start,
            end,
            bytes,
            puts: 2,
            bytes_after_trigger: 2 * bytes,
            largest_object: bytes,
        };
        fake.events.record(|log| log.checkpoints.push(checkpoint));
        fake.cuts.store(id.number, Ordering::SeqCst);
        Ok(())
    }
}
