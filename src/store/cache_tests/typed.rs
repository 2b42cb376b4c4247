//! Steps on typed states, which have a TTL.

use std::sync::atomic::Ordering;

use rand::RngExt;

use super::attempt::Attempt;
use super::model::TTL;
use super::{ENTRIES, World};
use crate::env::Clock;

impl World {
    pub(super) fn typed(&mut self, attempt: &mut Attempt) {
        attempt.make_room();
        let (now, key) = (self.clock.unix_millis(), self.rng.random_range(0..6_u64));
        let Attempt { store, states, .. } = attempt;
        store.set_key(&key).unwrap();
        self.written += 1;
        let written = self.written;
        let entry = self.rng.random_range(0..ENTRIES);
        match self.rng.random_range(0..100) {
            0..15 => {
                states.value.put(store, &written).unwrap();
                self.live.values.insert(key, (written, now));
            }
            15..20 => {
                states.value.clear(store).unwrap();
                self.live.values.remove(&key);
            }
            20..40 => assert_eq!(states.value.get(store).unwrap(), self.live.read_value(key, now), "{key}"),
            40..50 => {
                states.list.append(store, &written).unwrap();
                self.live.lists.entry(key).or_default().push((written, now));
            }
            50..60 => assert_eq!(states.list.get(store).unwrap(), self.live.read_list(key, now), "{key}"),
            60..62 => {
                states.list.clear(store).unwrap();
                self.live.lists.remove(&key);
            }
            62..80 => {
                let value = vec![written as u8; self.rng.random_range(1..300)];
                states.map.put(store, &entry, &value).unwrap();
                self.live.entries.insert((key, entry), (value, now));
            }
            80..82 => {
                states.map.clear(store).unwrap();
                self.live.entries.retain(|(owner, _), _| *owner != key);
            }
            82..87 => {
                states.map.remove(store, &entry).unwrap();
                self.live.entries.remove(&(key, entry));
            }
            87..92 => self.renew(attempt, key),
            _ => {
                let expected = self.live.read_entry((key, entry), now);
                assert_eq!(states.map.get(store, &entry).unwrap(), expected, "{key}, {entry}");
            }
        }
    }

    /// Fills a map, and reads all its entries, again and again before they expire: so many that the reads
    /// themselves hand over what they renew.
    fn renew(&mut self, attempt: &mut Attempt, key: u64) {
        let Attempt { store, states, .. } = attempt;
        let now = self.clock.unix_millis();
        for entry in 0..ENTRIES {
            let value = vec![entry as u8; self.rng.random_range(1..200)];
            states.map.put(store, &entry, &value).unwrap();
            self.live.entries.insert((key, entry), (value, now));
        }
        for _ in 0..self.rng.random_range(1..5) {
            // What reads have left behind is written or taken in.
            store.set_key(&key).unwrap();
            let now = self.clock.unix_millis();
            for entry in 0..ENTRIES {
                let expected = self.live.read_entry((key, entry), now);
                assert_eq!(states.map.get(store, &entry).unwrap(), expected, "{key}, {entry}");
            }
            let more = self.rng.random_range(1..TTL);
            self.clock.millis.fetch_add(more, Ordering::Relaxed);
        }
    }
}
