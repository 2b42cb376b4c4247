//! Steps on raw states.

use rand::RngExt;
use rand::rngs::StdRng;

use super::attempt::Attempt;
use super::model::Key;
use super::{GROUPS, World, pick};
use crate::key_group::KeyGroup;

impl World {
    /// Half of all operations are on a few keys.
    pub(super) fn key(&mut self) -> Key {
        let few = self.rng.random_bool(0.5);
        let user = self.rng.random_range(0..if few { 20 } else { self.users.len() });
        let group = (user % usize::from(GROUPS)) as u16;
        Key { state: self.rng.random_range(0..3), group, user: self.users[user].clone() }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.rng.random_range(0..100) {
            0 => self.rng.random_range(15_000..18_000),
            1..4 => self.rng.random_range(1_000..6_000),
            4..10 => 0,
            _ => self.rng.random_range(3..400),
        };
        self.written += 1;
        self.written.to_le_bytes().into_iter().cycle().take(len).collect()
    }

    pub(super) fn write(&mut self, attempt: &mut Attempt) {
        let key = self.key();
        self.write_at(attempt, key);
    }

    fn write_at(&mut self, attempt: &mut Attempt, key: Key) {
        attempt.make_room();
        let (state, group) = (attempt.states.raw[key.state], KeyGroup(key.group));
        let long = self.live.get(&key).is_some_and(|value| value.len() > 40_000);
        match self.rng.random_range(0..10) {
            0 => {
                attempt.store.delete(state, group, &key.user).unwrap();
                self.live.raw.remove(&key);
            }
            1..5 if !long => {
                let value = self.value();
                attempt.store.append(state, group, &key.user, &value).unwrap();
                self.live.raw.entry(key).or_default().extend_from_slice(&value);
            }
            _ => {
                let value = self.value();
                attempt.store.put(state, group, &key.user, &value).unwrap();
                self.live.raw.insert(key, value);
            }
        }
    }

    pub(super) fn get(&mut self, attempt: &Attempt) {
        let key = self.key();
        attempt.get(&self.live, &key);
    }

    pub(super) fn multi_get(&mut self, attempt: &Attempt) {
        let first = self.key();
        let keys: Vec<Key> =
            (0..self.rng.random_range(1..12)).map(|_| Key { state: first.state, ..self.key() }).collect();
        let asked: Vec<_> = keys.iter().map(|key| (KeyGroup(key.group), key.user.as_slice())).collect();
        let values = attempt.store.multi_get(attempt.states.raw[first.state], &asked).unwrap();
        for (key, value) in keys.iter().zip(values) {
            assert_eq!(value.as_deref(), self.live.get(key), "{key:?}");
        }
    }

    /// A value that lies in the cache stays what it is while others are read.
    pub(super) fn borrow(&mut self, attempt: &Attempt) {
        let key = self.key();
        let (state, group) = (attempt.states.raw[key.state], KeyGroup(key.group));
        let value = attempt.store.get(state, group, &key.user).unwrap();
        (0..20).for_each(|_| self.get(attempt));
        assert_eq!(value.as_deref(), self.live.get(&key), "{key:?}");
    }

    pub(super) fn scan(&mut self, attempt: &Attempt) {
        let mut key = self.key();
        key.user.truncate(self.rng.random_range(0..3));
        attempt.scan(&self.live, &key);
    }

    /// Many writes to one state, or many reads of it.
    pub(super) fn burst(&mut self, attempt: &mut Attempt) {
        let (state, writes) = (self.rng.random_range(0..3), self.rng.random_bool(0.5));
        for _ in 0..self.rng.random_range(1..400) {
            let key = Key { state, ..self.key() };
            if writes {
                self.write_at(attempt, key);
            } else {
                attempt.get(&self.live, &key);
            }
        }
    }
}

/// Keys with much in common, a few of them odd: empty, long, and too long for the cache.
pub(super) fn users(rng: &mut StdRng) -> Vec<Vec<u8>> {
    let mut users = vec![vec![], vec![0xff], vec![7; 300], vec![0xff; 300], vec![8; 17_000]];
    let bytes = [0, 1, 0xfe, 0xff];
    while users.len() < 500 {
        let len = rng.random_range(1..30);
        users.push((0..len).map(|at| if at < 4 { pick(rng, &bytes) } else { rng.random() }).collect());
    }
    users.sort();
    users.dedup();
    for at in (1..users.len()).rev() {
        users.swap(at, rng.random_range(0..=at));
    }
    users
}
