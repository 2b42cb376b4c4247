//! Which states are worth caching: those that are read.

use std::cell::{Cell, RefCell};

use crate::ids::StateId;
use crate::state_map::StateMap;

/// Operations on a state after which its share of reads is looked at.
pub(super) const WINDOW: u32 = 1024;
/// A state is cached if at least one in so many operations is a read. A read that the cache answers
/// saves some 3 µs, and an entry costs a write some 0.2 µs.
const OPS_PER_READ: u32 = 12;

/// How often a state is read.
#[derive(Clone, Copy, Default)]
struct Usage {
    /// In this window.
    ops: u32,
    reads: u32,
    standing: Standing,
}

/// Whether a state is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) cached: bool,
    /// Its records from before this time may be stale.
    pub(super) valid_from: u32,
}

/// The usage of each state.
pub(super) struct Worth {
    /// Operations after which a state is looked at.
    window: u32,
    numbers: RefCell<StateMap<u32>>,
    usage: RefCell<Vec<Usage>>,
    /// The state of the last operation, which is nearly always that of the next.
    last: Cell<Option<(StateId, u32)>>,
    /// Number of states that are cached.
    cached: Cell<usize>,
}

impl Worth {
    pub(super) fn new(window: u32) -> Self {
        Self {
            window,
            numbers: RefCell::default(),
            usage: RefCell::default(),
            last: Cell::default(),
            cached: Cell::default(),
        }
    }

    /// Counts an operation on a state, one read or none. `now` is the time of the cache: a state
    /// that ceases to be cached needs one that no record has, which this function takes.
    #[inline]
    pub(super) fn count(&self, state: StateId, reads: u32, now: &Cell<u32>) -> Standing {
        let number = self.number(state);
        let mut all = self.usage.borrow_mut();
        let usage = &mut all[number];
        usage.ops += 1;
        usage.reads += reads;
        if usage.ops >= self.window {
            let before = usage.standing.cached;
            usage.look(now);
            self.cached.set(self.cached.get() + usize::from(usage.standing.cached) - usize::from(before));
        }
        usage.standing
    }

    /// Whether the state is cached. Counts nothing.
    pub(super) fn standing(&self, state: StateId) -> Standing {
        let number = self.number(state);
        self.usage.borrow()[number].standing
    }

    /// The time of the cache begins anew, without records.
    pub(super) fn begin_anew(&self) {
        self.usage.borrow_mut().iter_mut().for_each(|usage| usage.standing.valid_from = 0);
    }

    /// Whether any state is cached.
    pub(super) fn any(&self) -> bool {
        self.cached.get() > 0
    }

    #[inline]
    fn number(&self, state: StateId) -> usize {
        match self.last.get() {
            Some((last, number)) if last == state => number as usize,
            _ => self.search(state),
        }
    }

    fn search(&self, state: StateId) -> usize {
        let known = self.numbers.borrow().get(state);
        let number = known.unwrap_or_else(|| {
            let mut all = self.usage.borrow_mut();
            all.push(Usage::default());
            let number = all.len() as u32 - 1;
            self.numbers.borrow_mut().insert(state, number);
            number
        });
        self.last.set(Some((state, number)));
        number as usize
    }
}

impl Usage {
    /// Decides anew at the end of a window.
    fn look(&mut self, now: &Cell<u32>) {
        let cached = self.reads * OPS_PER_READ >= self.ops;
        (self.ops, self.reads) = (0, 0);
        if self.standing.cached && !cached {
            // What is written from here on is not in the cache. At the end of time the state stays
            // cached, because no later record could be told from an earlier one.
            let Some(next) = now.get().checked_add(1) else { return };
            now.set(next);
            self.standing.valid_from = next;
        }
        self.standing.cached = cached;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(worth: &Worth, state: u32, reads: u32, now: &Cell<u32>) -> Standing {
        for at in 0..WINDOW {
            worth.count(StateId(state), u32::from(at < reads), now);
        }
        worth.standing(StateId(state))
    }

    #[test]
    fn a_state_is_cached_while_it_is_read() {
        let (worth, now) = (Worth::new(WINDOW), Cell::new(0));
        assert_eq!(worth.standing(StateId(7)), Standing::default());
        assert!(!window(&worth, 7, 0, &now).cached && !worth.any());
        let few = WINDOW / OPS_PER_READ;
        assert!(!window(&worth, 7, few, &now).cached);
        assert!(window(&worth, 7, few + 1, &now).cached && worth.any());
        assert_eq!(now.get(), 0);
        // Another state changes nothing.
        assert!(!window(&worth, 8, 0, &now).cached && worth.standing(StateId(7)).cached);
        assert_eq!(window(&worth, 7, few, &now), Standing { cached: false, valid_from: 1 });
        assert_eq!(now.get(), 1, "records that come later have a later time");
        assert_eq!(window(&worth, 7, WINDOW, &now), Standing { cached: true, valid_from: 1 });
    }

    #[test]
    fn at_the_end_of_time_a_state_stays_cached() {
        let (worth, now) = (Worth::new(WINDOW), Cell::new(u32::MAX));
        assert!(window(&worth, 7, WINDOW, &now).cached);
        assert!(window(&worth, 7, 0, &now).cached && worth.any() && now.get() == u32::MAX);
        now.set(5);
        assert_eq!(window(&worth, 7, 0, &now), Standing { cached: false, valid_from: 6 });
        worth.begin_anew();
        assert_eq!(worth.standing(StateId(7)).valid_from, 0);
    }
}
