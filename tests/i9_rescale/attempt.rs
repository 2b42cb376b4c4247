//! What an attempt does, beside the model.

use super::*;

impl Attempt {
    pub(super) fn owner(&mut self, group: u16) -> &mut StateStore {
        self.stores.iter_mut().find(|store| store.range().contains(KeyGroup(group))).unwrap()
    }

    pub(super) fn compare(&self, keys: &[Vec<u8>]) {
        for store in &self.stores {
            for (state, handle) in self.states.iter().enumerate() {
                for group in store.range().groups() {
                    let scan = store.scan_prefix(*handle, group, b"").unwrap();
                    let found: Vec<_> = scan.map(Result::unwrap).collect();
                    let from = (state, group.0, Vec::new());
                    let expected = self
                        .model
                        .range(from..)
                        .take_while(|((of, at, _), _)| (*of, *at) == (state, group.0));
                    let expected: Vec<_> =
                        expected.map(|((.., key), value)| (key.clone(), value.clone())).collect();
                    assert_eq!(
                        shown(&found),
                        shown(&expected),
                        "scan of {store:?}, state {state}, group {group}"
                    );
                    assert!(found == expected, "values of {store:?}, state {state}, group {group}");
                    for key in keys {
                        let value = store.get(*handle, group, key).unwrap();
                        let expected = self.model.get(&(state, group.0, key.clone()));
                        assert!(
                            value.as_deref() == expected.map(Vec::as_slice),
                            "get of {key:?} of {store:?}"
                        );
                    }
                }
            }
        }
    }

    /// One random operation.
    pub(super) fn step(&mut self, world: &mut World) {
        let rng = &mut world.rng;
        let state = rng.random_range(0..STATES.len());
        let handle = self.states[state];
        let group = rng.random_range(0..world.groups);
        let key = world.keys[rng.random_range(0..world.keys.len())].clone();
        let place = (state, group, key.clone());
        match rng.random_range(0..1000) {
            0..350 => {
                let len = if rng.random_ratio(1, 20) { 4000 } else { rng.random_range(0..200) };
                let value = noise(rng.next_u64(), len);
                self.owner(group).put(handle, KeyGroup(group), &key, &value).unwrap();
                self.model.insert(place, value);
            }
            350..480 => {
                self.owner(group).delete(handle, KeyGroup(group), &key).unwrap();
                self.model.remove(&place);
            }
            480..750 => {
                let len = rng.random_range(0..50);
                let bytes = noise(rng.next_u64(), len);
                self.owner(group).append(handle, KeyGroup(group), &key, &bytes).unwrap();
                self.model.entry(place).or_default().extend_from_slice(&bytes);
            }
            750..830 => {
                let prefix = key[..rng.random_range(0..=key.len())].to_vec();
                self.owner(group).delete_prefix(handle, KeyGroup(group), &prefix).unwrap();
                self.model
                    .retain(|(of, at, key), _| (*of, *at) != (state, group) || !key.starts_with(&prefix));
            }
            830..900 => self.checkpoint(world),
            900..920 => {
                // In the midst of a checkpoint: what was cut belongs to the next one.
                let pending = self.job.trigger("given up").unwrap();
                if self.stores.len() > 1 {
                    self.stores[0].cut(pending.id(), "").unwrap();
                }
                pending.abort();
                pending.wait().unwrap_err();
            }
            920..940 => self.job.materialize(),
            940..950 => materialize(&self.job),
            950..960 => self.job.compact().unwrap(),
            960..970 => self.job.settle(Duration::from_secs(60)).unwrap(),
            _ => {
                let found =
                    self.owner(group).get(handle, KeyGroup(group), &key).unwrap().map(|value| value.to_vec());
                assert!(found.as_ref() == self.model.get(&place), "get of {key:?}");
            }
        }
    }

    pub(super) fn checkpoint(&mut self, world: &mut World) {
        let pending = self.job.trigger("").unwrap();
        let id = pending.id();
        let mut metadata = Vec::new();
        for store in &mut self.stores {
            let own = format!("{id} {}", store.subtask()).into_bytes();
            store.cut(id, own.clone()).unwrap();
            metadata.push((store.subtask(), store.range(), own));
        }
        pending.wait().unwrap();
        assert!(world.committed.insert(id, (self.model.clone(), metadata)).is_none(), "{id} was given twice");
        world.retained.push(id);
        let drop = world.retained.len().saturating_sub(self.keep);
        world.retained.drain(..drop);
    }
}
