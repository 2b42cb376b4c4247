//! What an attempt does, beside the model.

use super::*;

impl Attempt {
    pub(super) fn compare_everything(&self, keys: &[Vec<u8>]) {
        for (subtask, (store, model)) in self.stores.iter().zip(&self.models).enumerate() {
            for (state, handle) in self.states[subtask].iter().enumerate() {
                for group in store.range().groups() {
                    let scan = store.scan_prefix(*handle, group, b"").unwrap();
                    let found: Vec<_> = scan.map(Result::unwrap).collect();
                    let expected = range(model, state, group.0, b"", None);
                    assert_eq!(shown(&found), shown(&expected), "scan of state {state}, group {group}");
                    assert!(found == expected, "values of state {state}, group {group}");
                    let asked: Vec<_> = keys.iter().map(|key| (group, key.as_slice())).collect();
                    let many = store.multi_get(*handle, &asked).unwrap();
                    for (key, value) in keys.iter().zip(many) {
                        let expected = model.get(&(state, group.0, key.clone()));
                        let one = store.get(*handle, group, key).unwrap();
                        assert!(one.as_deref() == expected.map(Vec::as_slice), "get of {key:?}");
                        assert!(value.as_deref() == expected.map(Vec::as_slice), "multi_get of {key:?}");
                    }
                }
            }
        }
    }

    /// One random operation.
    pub(super) fn step(&mut self, world: &mut World) {
        let rng = &mut world.rng;
        let subtask = rng.random_range(0..self.stores.len());
        let state = rng.random_range(0..world.states.len());
        let handle = self.states[subtask][state];
        let range_of = self.stores[subtask].range();
        let group = KeyGroup(rng.random_range(range_of.first.0..=range_of.last.0));
        let key = world.keys[rng.random_range(0..world.keys.len())].clone();
        let (store, model) = (&mut self.stores[subtask], &mut self.models[subtask]);
        let place = (state, group.0, key.clone());
        match rng.random_range(0..1000) {
            0..300 => {
                let value = value(rng);
                store.put(handle, group, &key, &value).unwrap();
                model.insert(place, value);
            }
            300..420 => {
                store.delete(handle, group, &key).unwrap();
                model.remove(&place);
            }
            420..600 => {
                let bytes = value(rng);
                store.append(handle, group, &key, &bytes).unwrap();
                model.entry(place).or_default().extend_from_slice(&bytes);
            }
            600..650 => {
                let prefix = &key[..rng.random_range(0..=key.len())];
                store.delete_prefix(handle, group, prefix).unwrap();
                let hit = |(of, at, key): &(usize, u16, Vec<u8>)| {
                    (*of, *at) == (state, group.0) && key.starts_with(prefix)
                };
                model.retain(|place, _| !hit(place));
            }
            650..750 => {
                let found = store.get(handle, group, &key).unwrap();
                assert!(found.as_deref() == model.get(&place).map(Vec::as_slice), "get of {key:?}");
            }
            750..780 => {
                let asked: Vec<_> = world.keys.iter().rev().map(|key| (group, key.as_slice())).collect();
                let found = store.multi_get(handle, &asked).unwrap();
                for ((_, key), found) in asked.iter().zip(found) {
                    let expected = model.get(&(state, group.0, key.to_vec()));
                    assert!(found.as_deref() == expected.map(Vec::as_slice), "multi_get of {key:?}");
                }
            }
            780..820 => {
                let prefix = &key[..rng.random_range(0..=key.len())];
                let scan = store.scan_prefix(handle, group, prefix).unwrap();
                let found: Vec<_> = scan.map(Result::unwrap).collect();
                assert!(found == with_prefix(model, state, group.0, prefix), "scan_prefix of {prefix:?}");
            }
            820..850 => {
                let end = world.keys[rng.random_range(0..world.keys.len())].clone();
                let end = rng.random_bool(0.8).then_some(end.as_slice());
                let scan = store.scan_range(handle, group, &key, end).unwrap();
                let expected = range(model, state, group.0, &key, end);
                if rng.random_bool(0.5) {
                    assert!(scan.map(Result::unwrap).eq(expected), "scan_range of {key:?}..{end:?}");
                } else if self.scans.len() < 8 {
                    self.scans.push((scan, expected));
                }
            }
            850..870 => drain(&mut self.scans),
            870..930 => self.advance_checkpoint(world, subtask),
            930..945 => self.checkpoint(world),
            945..960 => self.job.materialize(),
            960..966 => self.job.compact().unwrap(),
            966..972 => self.job.settle(Duration::from_secs(60)).unwrap(),
            972..980 => {
                // More than the memory for deltas: writes wait for the background.
                for n in 0..rng.random_range(10..60) {
                    let key = world.keys[rng.random_range(0..world.keys.len())].clone();
                    let value = noise(rng.next_u64() + n, 30_000);
                    store.put(handle, group, &key, &value).unwrap();
                    model.insert((state, group.0, key), value);
                }
            }
            980..990 => match store.try_reserve() {
                Ok(()) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            },
            _ => {
                self.job.health().unwrap();
                store.health().unwrap();
                let stats = store.stats();
                assert_eq!(stats.table.background_errors, 0);
            }
        }
    }

    /// The next step of a checkpoint that goes on beside the operations: trigger, the cut of one
    /// subtask, the end or an abort.
    pub(super) fn advance_checkpoint(&mut self, world: &mut World, subtask: usize) {
        let Some(pending) = &mut self.pending else {
            self.trigger(world);
            return;
        };
        let id = pending.checkpoint.id();
        if pending.cuts.iter().any(Option::is_none) {
            assert_eq!(self.job.trigger(Vec::new()).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        if world.rng.random_ratio(1, 12) {
            self.abort(world);
        } else if pending.cuts[subtask].is_none() {
            assert_eq!(self.stores[subtask].due(), Some(id));
            self.cut(subtask);
        } else if pending.cuts.iter().all(Option::is_some) {
            self.finish(world);
        }
    }

    /// A whole checkpoint.
    pub(super) fn checkpoint(&mut self, world: &mut World) {
        if self.pending.is_none() {
            self.trigger(world);
        }
        for subtask in 0..self.stores.len() {
            if self.pending.as_ref().is_some_and(|pending| pending.cuts[subtask].is_none()) {
                self.cut(subtask);
            }
        }
        self.finish(world);
    }

    pub(super) fn trigger(&mut self, world: &mut World) {
        self.triggered += 1;
        let metadata = format!("{} {}", world.attempts, self.triggered).into_bytes();
        let checkpoint = self.job.trigger(metadata.clone()).unwrap();
        assert!(world.committed.keys().all(|id| *id < checkpoint.id()), "ids only grow");
        self.pending = Some(Pending { checkpoint, metadata, cuts: vec![None; self.stores.len()] });
    }

    pub(super) fn cut(&mut self, subtask: usize) {
        let Some(pending) = &mut self.pending else { return };
        let id = pending.checkpoint.id();
        let metadata = format!("{id} {subtask}").into_bytes();
        self.stores[subtask].cut(id, metadata.clone()).unwrap();
        assert_eq!(self.stores[subtask].due(), None, "a store that has cut");
        pending.cuts[subtask] = Some((self.models[subtask].clone(), metadata));
    }

    pub(super) fn finish(&mut self, world: &mut World) {
        let Some(Pending { checkpoint, metadata, cuts }) = self.pending.take() else { return };
        let id = checkpoint.id();
        let report = checkpoint.wait().unwrap();
        assert_eq!(report.id, id);
        let subtasks = cuts.into_iter().collect::<Option<Vec<_>>>().unwrap();
        world.commit(id, Snapshot { metadata, subtasks }, self.keep);
        let found: Vec<_> = self.job.checkpoints().iter().map(|summary| summary.id).collect();
        assert_eq!(found, world.retained);
    }

    pub(super) fn abort(&mut self, world: &mut World) {
        let Some(Pending { checkpoint, metadata, cuts }) = self.pending.take() else { return };
        let id = checkpoint.id();
        checkpoint.abort();
        match checkpoint.wait() {
            // It was committed before the abort came in.
            Ok(_) => {
                let subtasks = cuts.into_iter().collect::<Option<Vec<_>>>().unwrap();
                world.commit(id, Snapshot { metadata, subtasks }, self.keep);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
                // A barrier that comes in late does no harm.
                for (store, cut) in self.stores.iter_mut().zip(cuts) {
                    if cut.is_none() && world.rng.random_bool(0.5) {
                        store.cut(id, b"late".to_vec()).unwrap();
                    }
                }
            }
        }
    }
}
