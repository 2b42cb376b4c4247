//! The compaction filter: how expired entries of states with a TTL leave the table.
//!
//! It is the one place where RocksDB drops something that no program deleted, so it looks only at
//! puts of states that the running program has registered with a TTL. It never touches the reserved
//! state with the marker, states that it does not know, or merge operands (RocksDB does not even
//! show them to it). A put that it removes leaves a tombstone where older versions of the key may
//! lie below, so nothing older shows through.
//!
//! Time and TTLs are read once for each compaction: one run never judges by two clocks.
//!
//! The merge operator leaves out expired elements at the front of lists (`merge.rs`). Deltas lose
//! expired entries by the same rules when they are sealed and when they are applied, see
//! [`ExpiriesAt::live`].

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use crate::delta::{Entry, MergeOp};
use crate::env::Clock;
use crate::ids::StateId;
use crate::key;

const NAME: &CStr = c"alluvium.ttl";

/// The last access of a list's element, in milliseconds since 1970, if it has one, and its length
/// in bytes.
pub(crate) type ElementHead = (Option<u64>, usize);

/// When the values of one state expire.
#[derive(Clone, Copy)]
pub(crate) struct Expiry {
    /// How long a value lives after its last access, in milliseconds.
    pub(crate) ttl_millis: u64,
    /// The last access that a stored value knows of, in milliseconds since 1970. None for bytes
    /// without a time, which never expire, and for those that it does not understand.
    pub(crate) last_access: fn(&[u8]) -> Option<u64>,
    /// Of a list, whose elements expire by themselves: what is known of the first element. None for
    /// other values, and for bytes that it does not understand.
    pub(crate) first_element: fn(&[u8]) -> Option<ElementHead>,
}

/// When the values of one state expire, as of now.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpiryAt {
    expiry: Expiry,
    now: u64,
}

thread_local! {
    /// Whether the thread is one of RocksDB's own, which folds for a flush or a compaction and not
    /// for a read.
    static BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

impl ExpiryAt {
    /// What of a value a fold keeps: all but the elements at its front that have expired. A read
    /// gets all of it, because what is hidden, and what is rewritten, is for the state to decide.
    pub(super) fn live_elements<'a>(&self, value: &'a [u8]) -> &'a [u8] {
        if BACKGROUND.get() { self.without_expired(value) } else { value }
    }

    fn without_expired<'a>(&self, mut value: &'a [u8]) -> &'a [u8] {
        while let Some((Some(last), len)) = (self.expiry.first_element)(value)
            && is_expired(last, self.expiry.ttl_millis, self.now)
            && let Some(rest) = value.get(len.max(1)..)
        {
            value = rest;
        }
        value
    }
}

impl Expiry {
    /// Whether the whole of a stored value has expired by `now`.
    pub(crate) fn is_expired(&self, value: &[u8], now: u64) -> bool {
        (self.last_access)(value).is_some_and(|last| is_expired(last, self.ttl_millis, now))
    }
}

/// Whether what was last accessed at `last` has expired by `now`; all in milliseconds. A time in
/// the future, from a clock that was set back, counts as fresh.
pub(crate) fn is_expired(last: u64, ttl_millis: u64, now: u64) -> bool {
    last.saturating_add(ttl_millis) <= now
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiry").field("ttl_millis", &self.ttl_millis).finish_non_exhaustive()
    }
}

/// The TTLs of a table's states, as the running program has registered them. Empty at the start:
/// what an earlier program had registered does not count, or entries would vanish before this one
/// could say that they live longer now.
#[derive(Debug)]
pub(crate) struct Expiries {
    clock: Arc<dyn Clock>,
    /// Replaced as a whole, so that a compaction takes it once and never waits.
    states: RwLock<Arc<BTreeMap<StateId, Expiry>>>,
}

impl Expiries {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, states: RwLock::default() })
    }

    /// From the next pass on, values of `state` expire. Tells whether it is the first state that
    /// does.
    pub(super) fn set(&self, state: StateId, expiry: Expiry) -> bool {
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        let first = states.is_empty();
        // A copy only where a pass holds it, so that thousands of states are registered in no time.
        Arc::make_mut(&mut states).insert(state, expiry);
        first
    }

    /// When the value of an encoded key expires; None if its state has no TTL. The clock is read
    /// only if it has.
    pub(super) fn of(&self, key: &[u8]) -> Option<ExpiryAt> {
        let state = key::state_of(key).filter(|state| *state != StateId::RESERVED)?;
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let expiry = *states.get(&state)?;
        drop(states);
        Some(ExpiryAt { expiry, now: self.clock.unix_millis() })
    }

    /// As of now.
    pub(crate) fn now(&self) -> ExpiriesAt {
        let now = self.clock.unix_millis();
        let states = Arc::clone(&self.states.read().unwrap_or_else(PoisonError::into_inner));
        ExpiriesAt { states, now, last: None }
    }
}

/// The TTLs and the time of one pass over entries in the order of their keys.
#[derive(Debug)]
pub(crate) struct ExpiriesAt {
    states: Arc<BTreeMap<StateId, Expiry>>,
    now: u64,
    /// The state of the entry before: the next is nearly always of the same.
    last: Option<(StateId, Option<Expiry>)>,
}

impl ExpiriesAt {
    /// Whether the value of an encoded key has expired.
    pub(crate) fn is_expired(&mut self, key: &[u8], value: &[u8]) -> bool {
        if self.states.is_empty() {
            return false;
        }
        let Some(state) = key::state_of(key) else { return false };
        let expiry = match self.last {
            Some((last, expiry)) if last == state => expiry,
            _ => {
                let expiry = self.states.get(&state).copied().filter(|_| state != StateId::RESERVED);
                self.last = Some((state, expiry));
                expiry
            }
        };
        expiry.is_some_and(|expiry| expiry.is_expired(value, self.now))
    }

    /// What is left of a delta's entry.
    ///
    /// A put whose value has expired becomes a delete: leaving it out would let an older value show
    /// through, which has no time if it was written before the state had a TTL. An operand whose
    /// elements have all expired is left out: it hides nothing, and a delete would take away what
    /// lies below, which may be younger by a clock that was set back.
    pub(crate) fn live<'a>(&mut self, key: &[u8], entry: Entry<'a>) -> Option<Entry<'a>> {
        match entry {
            Entry::Put(value) if self.is_expired(key, value) => Some(Entry::Delete),
            Entry::Merge { op: MergeOp::ListAppend, operand } if self.is_expired(key, operand) => None,
            _ => Some(entry),
        }
    }
}

impl CompactionFilter for ExpiriesAt {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        if self.is_expired(key, value) { CompactionDecision::Remove } else { CompactionDecision::Keep }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// Gives each compaction its filter.
pub(super) struct Factory(pub(super) Arc<Expiries>);

impl CompactionFilterFactory for Factory {
    type Filter = ExpiriesAt;

    fn create(&mut self, _context: CompactionFilterContext) -> ExpiriesAt {
        // RocksDB calls this from several threads at once, each that on which the compaction runs;
        // nothing else is changed.
        BACKGROUND.set(true);
        self.0.now()
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_group::KeyGroup;

    /// A value's time is its first byte; without one it never expires.
    const EXPIRY: Expiry = Expiry {
        ttl_millis: 10,
        last_access: |value| value.first().copied().map(u64::from),
        first_element: |value| {
            value.first().map(|byte| (Some(u64::from(*byte)).filter(|time| *time < 99), 1))
        },
    };

    fn key(state: StateId) -> Vec<u8> {
        let mut key = Vec::new();
        key::encode_into(&mut key, KeyGroup(1), state, b"k");
        key
    }

    #[test]
    fn an_entry_expires_when_its_ttl_has_passed() {
        assert!(!is_expired(5, 10, 14));
        assert!(is_expired(5, 10, 15));
        assert!(is_expired(5, 0, 5));
        assert!(!is_expired(50, 10, 15), "written by a clock that was ahead");
        assert!(!is_expired(1, u64::MAX, u64::MAX - 1));
    }

    #[derive(Debug)]
    struct FixedClock(u64);

    impl Clock for FixedClock {
        fn monotonic(&self) -> std::time::Duration {
            std::time::Duration::from_millis(self.0)
        }

        fn unix_millis(&self) -> u64 {
            self.0
        }
    }

    fn expiries(now: u64) -> Arc<Expiries> {
        Expiries::new(Arc::new(FixedClock(now)))
    }

    #[test]
    fn only_states_with_a_ttl_are_touched() {
        let expiries = expiries(15);
        assert!(!expiries.now().is_expired(&key(StateId(7)), &[0]));
        assert!(expiries.set(StateId(7), EXPIRY));
        // A mistaken call must not be able to lose the marker.
        assert!(!expiries.set(StateId::RESERVED, EXPIRY));
        let mut now = expiries.now();
        for (state, value, expired) in [
            (StateId(7), &[5][..], true),
            (StateId(7), &[6], false),
            (StateId(7), &[], false),
            (StateId(8), &[5], false),
            (StateId::RESERVED, &[5], false),
            (StateId(7), &[4], true),
        ] {
            assert_eq!(now.is_expired(&key(state), value), expired, "{state:?} {value:?}");
        }
        for short in [&b""[..], b"\x00", b"\x00\x01\x00\x00\x00"] {
            assert!(!now.is_expired(short, &[0]));
        }
    }

    #[test]
    fn elements_at_the_front_of_a_list_expire_by_themselves() {
        let expiries = expiries(15);
        assert!(expiries.of(&key(StateId(7))).is_none());
        expiries.set(StateId(7), EXPIRY);
        assert!(expiries.of(&key(StateId(8))).is_none() && expiries.of(b"").is_none());
        let at = expiries.of(&key(StateId(7))).unwrap();
        for (value, left) in [
            (&[1, 5, 6, 1][..], &[6, 1][..]),
            (&[1, 99, 1], &[99, 1]),
            (&[5, 5], &[]),
            (&[6], &[6]),
            (&[], &[]),
        ] {
            assert_eq!(at.without_expired(value), left);
        }
        assert_eq!(at.live_elements(&[1, 6]), [1, 6], "a read");
        std::thread::spawn(move || {
            BACKGROUND.set(true);
            assert_eq!(at.live_elements(&[1, 6]), [6]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_pass_that_has_begun_keeps_its_ttls() {
        let expiries = expiries(15);
        expiries.set(StateId(7), EXPIRY);
        let mut before = expiries.now();
        expiries.set(StateId(7), Expiry { ttl_millis: 100, ..EXPIRY });
        assert!(before.is_expired(&key(StateId(7)), &[5]));
        assert!(!expiries.now().is_expired(&key(StateId(7)), &[5]));
    }

    #[test]
    fn entries_of_deltas_expire_without_uncovering_what_lies_below() {
        let expiries = expiries(15);
        expiries.set(StateId(7), EXPIRY);
        let mut now = expiries.now();
        let op = MergeOp::ListAppend;
        for (entry, left) in [
            (Entry::Put(&[5]), Some(Entry::Delete)),
            (Entry::Put(&[6]), Some(Entry::Put(&[6]))),
            (Entry::Put(&[]), Some(Entry::Put(&[]))),
            (Entry::Delete, Some(Entry::Delete)),
            (Entry::Merge { op, operand: &[5] }, None),
            (Entry::Merge { op, operand: &[6] }, Some(Entry::Merge { op, operand: &[6] })),
        ] {
            assert_eq!(now.live(&key(StateId(7)), entry), left);
            assert_eq!(now.live(&key(StateId(8)), entry), Some(entry));
        }
    }
}
