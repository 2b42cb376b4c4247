//! One attempt of the job while it runs, next to its model.

use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    Clock, ErrorKind, Job, KeyGroup, KeyGroupRange, MaxParallelism, PendingCheckpoint, StateStore,
    SubtaskIndex, TimeDomain,
};

use super::history::{History, Snapshot};
use super::kinds::States;
use super::model::{Change, KINDS, Kind, Model, Place, Timer};
use super::step::{Pools, Step};
use alluvium_testkit::clock::ManualClock;

pub(crate) struct Attempt {
    pub(crate) job: Job,
    pub(crate) subtasks: Vec<Subtask>,
    pub(crate) model: Model,
    pub(crate) pending: Option<Pending>,
    /// How many checkpoints it retains.
    pub(crate) keep: usize,
    /// How many checkpoints were triggered so far, over all attempts.
    pub(crate) triggered: u64,
    pub(crate) max_parallelism: MaxParallelism,
    pub(crate) clock: Arc<ManualClock>,
    /// Of the states with namespaces, in milliseconds.
    pub(crate) ttl: Option<u64>,
}

pub(crate) struct Subtask {
    pub(crate) store: StateStore,
    pub(crate) states: States,
}

/// A checkpoint that is under way.
pub(crate) struct Pending {
    pub(crate) checkpoint: PendingCheckpoint,
    metadata: Vec<u8>,
    cuts: Vec<Option<Cut>>,
}

/// What a subtask had at its cut.
#[derive(Debug, Clone)]
struct Cut {
    subtask: SubtaskIndex,
    range: KeyGroupRange,
    part: Model,
    metadata: Vec<u8>,
}

impl Pending {
    /// What it must restore to. None as long as not all have cut.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let mut snapshot = Snapshot { metadata: self.metadata.clone(), ..Snapshot::default() };
        for cut in self.cuts.iter().cloned() {
            let Cut { subtask, range, part, metadata } = cut?;
            snapshot.model.join(part);
            snapshot.subtask_metadata.push((subtask, range, metadata));
        }
        Some(snapshot)
    }
}

fn domain(event: bool) -> TimeDomain {
    if event { TimeDomain::Event } else { TimeDomain::Processing }
}

impl Attempt {
    fn group_of(&self, key: &str) -> KeyGroup {
        self.max_parallelism.group_of_key(key)
    }

    fn is_in(&self, group: KeyGroup) -> impl Fn(&str) -> bool + use<> {
        let max_parallelism = self.max_parallelism;
        move |key| max_parallelism.group_of_key(key) == group
    }

    /// The subtask that owns a group.
    fn owner(&mut self, group: KeyGroup) -> &mut Subtask {
        let mut owners = self.subtasks.iter_mut().filter(|subtask| subtask.store.range().contains(group));
        let owner = owners.next().unwrap();
        assert!(owners.next().is_none(), "{group} has two owners");
        owner
    }

    /// The subtask that owns a key, with that as its current key.
    fn with_key(&mut self, key: &str) -> &mut Subtask {
        let group = self.group_of(key);
        let subtask = self.owner(group);
        subtask.store.set_key(key).unwrap();
        subtask
    }

    pub(crate) fn run(&mut self, step: Step, history: &mut History) {
        match step {
            Step::Change(place, change) => self.change(&place, &change),
            Step::Merge { kind, key, into, from } => {
                let Subtask { store, states } = self.with_key(&key);
                states.windowed.merge(store, kind, into, &from);
                self.model.merge(kind, &key, into, &from, self.clock.unix_millis());
            }
            Step::Read(place) => self.compare_place(&place),
            Step::ReadMap(place, read) => {
                let Subtask { store, states } = self.with_key(&place.key);
                let found = match &place.window {
                    None => states.plain.map_read(store, &read),
                    Some(window) => states.windowed.at(window).map_read(store, &read),
                };
                assert_eq!(found, self.model.map_read(&place, &read), "{place:?}: {read:?}");
            }
            Step::Windows(kind, key) => self.compare_windows(kind, &key),
            Step::Keys(kind, group) => self.compare_keys(kind, KeyGroup(group)),
            Step::Sweep(kind, group) => self.sweep(kind, KeyGroup(group)),
            Step::Register(timer) => self.register(timer),
            Step::Delete(timer) => {
                let (event, time, key, window) = &timer;
                let Subtask { store, states } = self.with_key(key);
                states.timers.delete(store, domain(*event), *time, window).unwrap();
                self.model.delete(&timer);
            }
            Step::Fire { event, time } => _ = self.fire(event, time),
            Step::Tick(millis) => {
                self.clock.advance(millis);
                self.expire();
            }
            Step::Advance { subtask, abort, late } => self.advance(subtask, abort, late, history),
            Step::Checkpoint => self.checkpoint(history),
            Step::Materialize => self.job.materialize(),
            Step::Compact => self.job.compact().unwrap(),
            Step::Settle => self.job.settle(Duration::from_secs(60)).unwrap(),
        }
    }

    fn change(&mut self, place: &Place, change: &Change) {
        let Subtask { store, states } = self.with_key(&place.key);
        match &place.window {
            None => states.plain.apply(store, change),
            Some(window) => states.windowed.at(window).apply(store, change),
        }
        self.model.apply(place, change, self.clock.unix_millis());
    }

    fn sweep(&mut self, kind: Kind, group: KeyGroup) {
        let Subtask { store, states } = self.owner(group);
        for key in states.plain.keys(store, kind, group) {
            store.set_key(key.as_str()).unwrap();
            states.plain.apply(store, &Change::Clear(kind));
        }
        for key in self.model.keys(kind, self.is_in(group)) {
            self.model.apply(&Place { key, window: None }, &Change::Clear(kind), self.clock.unix_millis());
        }
        self.compare_keys(kind, group);
    }

    /// What has expired by now is gone from the model.
    pub(crate) fn expire(&mut self) {
        if let Some(ttl) = self.ttl {
            self.model.expire(self.clock.unix_millis() - ttl);
        }
    }

    fn register(&mut self, timer: Timer) {
        let (event, time, key, window) = &timer;
        let Subtask { store, states } = self.with_key(key);
        states.timers.register(store, domain(*event), *time, window).unwrap();
        self.model.register(timer);
    }

    /// Fires what is due in each subtask.
    fn fire(&mut self, event: bool, time: i64) -> Vec<Timer> {
        let mut all = Vec::new();
        for subtask in 0..self.subtasks.len() {
            let owns = self.owned_by(subtask);
            let Subtask { store, states } = &mut self.subtasks[subtask];
            let mut fired = Vec::new();
            while let Some(timer) = states.timers.pop_due(store, domain(event), time).unwrap() {
                fired.push((event, timer.timestamp, timer.key, timer.namespace));
            }
            assert_eq!(fired, self.model.fire(event, time, owns), "timers up to {time}");
            all.append(&mut fired);
        }
        all
    }

    fn owned_by(&self, subtask: usize) -> impl Fn(&str) -> bool + use<> {
        let (range, max_parallelism) = (self.subtasks[subtask].store.range(), self.max_parallelism);
        move |key| range.contains(max_parallelism.group_of_key(key))
    }

    // Comparisons.

    /// All timers. They cannot be listed: they fire, and are registered again.
    pub(crate) fn compare_timers(&mut self) {
        for event in [true, false] {
            self.fire(event, i64::MAX).into_iter().for_each(|timer| self.register(timer));
        }
    }

    /// Everything there is, place by place and as the states list it.
    pub(crate) fn compare_everything(&mut self, pools: &Pools) {
        for key in &pools.keys {
            self.compare_place(&Place { key: key.clone(), window: None });
            for window in &pools.windows {
                self.compare_place(&Place { key: key.clone(), window: Some(*window) });
            }
            KINDS.iter().for_each(|kind| self.compare_windows(*kind, key));
        }
        for (subtask, event) in
            (0..self.subtasks.len()).flat_map(|subtask| [(subtask, true), (subtask, false)])
        {
            let owns = self.owned_by(subtask);
            let Subtask { store, states } = &mut self.subtasks[subtask];
            let next = states.timers.next_timestamp(store, domain(event)).unwrap();
            assert_eq!(next, self.model.next_timestamp(event, owns), "the next timer");
        }
        for group in (0..self.max_parallelism.get()).map(KeyGroup) {
            KINDS.iter().for_each(|kind| self.compare_keys(*kind, group));
        }
    }

    fn compare_place(&mut self, place: &Place) {
        let Subtask { store, states } = self.with_key(&place.key);
        let found = match &place.window {
            None => states.plain.seen(store),
            Some(window) => states.windowed.at(window).seen(store),
        };
        assert_eq!(found, self.model.seen(place), "{place:?}");
    }

    fn compare_windows(&mut self, kind: Kind, key: &str) {
        let Subtask { store, states } = self.with_key(key);
        let found = states.windowed.windows(store, kind);
        assert_eq!(found, self.model.windows(kind, key), "namespaces of {key:?} in {kind:?}");
    }

    fn compare_keys(&mut self, kind: Kind, group: KeyGroup) {
        let is_in = self.is_in(group);
        let Subtask { store, states } = self.owner(group);
        let keys = states.plain.keys(store, kind, group);
        let windowed = states.windowed.keys(store, kind, group);
        let with_windows = states.windowed.keys_and_windows(store, kind, group);
        let entries = (kind == Kind::Value).then(|| states.plain.entries(store, group));
        assert_eq!(keys, self.model.keys(kind, &is_in), "keys of {group} in {kind:?}");
        assert_eq!(windowed, self.model.keys_with_windows(kind, &is_in), "keys of {group} in {kind:?}");
        assert_eq!(with_windows, self.model.keys_and_windows(kind, &is_in), "of {group} in {kind:?}");
        if let Some(entries) = entries {
            assert_eq!(entries, self.model.values(&is_in), "values of {group}");
        }
    }

    // Checkpoints.

    fn advance(&mut self, subtask: usize, abort: bool, late: bool, history: &mut History) {
        let Some(pending) = &self.pending else { return self.trigger() };
        let id = pending.checkpoint.id();
        if abort {
            self.abort(late, history);
        } else if pending.cuts[subtask].is_none() {
            assert_eq!(self.subtasks[subtask].store.due(), Some(id));
            self.cut(subtask);
        } else if pending.cuts.iter().all(Option::is_some) {
            self.finish(history);
        }
    }

    pub(crate) fn checkpoint(&mut self, history: &mut History) {
        if self.pending.is_none() {
            self.trigger();
        }
        (0..self.subtasks.len()).for_each(|subtask| self.cut(subtask));
        self.finish(history);
    }

    fn trigger(&mut self) {
        self.triggered += 1;
        let metadata = format!("coordinator {}", self.triggered).into_bytes();
        let checkpoint = self.job.trigger(metadata.clone()).unwrap();
        self.pending = Some(Pending { checkpoint, metadata, cuts: vec![None; self.subtasks.len()] });
    }

    /// The cut of one subtask, if it has not cut yet.
    fn cut(&mut self, subtask: usize) {
        let owns = self.owned_by(subtask);
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.cuts[subtask].is_none()) else {
            return;
        };
        let id = pending.checkpoint.id();
        let metadata = format!("{id} {subtask}").into_bytes();
        let store = &mut self.subtasks[subtask].store;
        store.cut(id, metadata.clone()).unwrap();
        let range = store.range();
        let part = self.model.part(owns);
        pending.cuts[subtask] = Some(Cut { subtask: store.subtask(), range, part, metadata });
    }

    fn finish(&mut self, history: &mut History) {
        let Some(pending) = self.pending.take() else { return };
        let snapshot = pending.snapshot().unwrap();
        let report = pending.checkpoint.wait().unwrap();
        history.commit(report.id, snapshot, self.keep);
        history.settle(&self.job);
    }

    fn abort(&mut self, late: bool, history: &mut History) {
        let Some(pending) = self.pending.take() else { return };
        let snapshot = pending.snapshot();
        let Pending { checkpoint, cuts, .. } = pending;
        let id = checkpoint.id();
        checkpoint.abort();
        match checkpoint.wait() {
            // It was committed before the abort came in.
            Ok(_) => history.commit(id, snapshot.unwrap(), self.keep),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
                // A barrier that comes in late does no harm.
                for (subtask, cut) in self.subtasks.iter_mut().zip(cuts) {
                    if late && cut.is_none() {
                        subtask.store.cut(id, "late").unwrap();
                    }
                }
            }
        }
    }
}
