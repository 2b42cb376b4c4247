//! Early cuts, with the job's requests made one by one.

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::budget::Budget;
use crate::cache::CacheLimits;
use crate::env::Env;
use crate::ids::Epoch;
use crate::key_group::{KeyGroup, KeyGroupRange};
use crate::store::attempt::Attempt;
use crate::store::event::Event;
use crate::table::TableResources;

const INLINE_LIMIT: usize = 10_000;

struct Fixture {
    engine: Engine,
    shared: Arc<StoreShared>,
    /// Held, or the store would be going down.
    _inbox: mpsc::UnboundedReceiver<Event>,
    _dir: TempDir,
}

impl Fixture {
    /// Nothing of what is cut is applied or sealed.
    fn new(budget: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let range = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(127) };
        let resources = TableResources::new(8 << 20, 1);
        let table = Table::create(&dir.path().join("table"), range, &resources).unwrap();
        let shared = StoreShared::new(Attempt::new(Epoch(1)), Budget::new(budget), DeltaSeq(0));
        let (sender, inbox) = mpsc::unbounded_channel();
        let mode = Mode::Changelog {
            applier: Applier::idle(),
            records: CacheMemory::new(CacheLimits::new(0), |_| ()),
            delta_bytes: 1 << 20,
            inline_limit: INLINE_LIMIT,
        };
        let parts = EngineParts {
            table: Arc::new(table),
            shared: Arc::clone(&shared),
            events: EventSender::new(sender, Arc::clone(&shared)),
            clock: Env::default().clock,
            seq: DeltaSeq(0),
        };
        Self { engine: Engine::new(mode, parts), shared, _inbox: inbox, _dir: dir }
    }

    /// Another key. How many deltas were cut until then.
    fn put(&mut self, key: u64, bytes: usize) -> u64 {
        self.engine.make_room().unwrap();
        self.engine.put(TableKind::Hash, &key.to_be_bytes(), &vec![0; bytes]).unwrap();
        self.engine.seq().0
    }
}

#[test]
fn an_operator_that_is_asked_cuts_what_the_manifest_does_not_take() {
    let mut f = Fixture::new(1 << 20);
    assert_eq!((f.put(1, 9_000), f.put(2, 9_000)), (0, 0), "nobody has asked");
    f.shared.attempt.ask_for_early_cut();
    assert_eq!(f.put(3, 100), 1);
    assert_eq!(f.put(4, 9_000), 1, "once for each request");
}

/// A write asks for memory only before it begins a delta, so an early cut must leave some.
#[test]
fn i6_an_early_cut_does_not_exceed_the_memory_for_deltas() {
    let mut f = Fixture::new(1 << 20);
    let held = f.shared.budget.take((1 << 20) - 20_000);
    f.put(1, 12_000);
    for key in 2..=4 {
        f.shared.attempt.ask_for_early_cut();
        assert_eq!(f.put(key, 100), 0, "there is no room for it");
        assert!(!f.shared.budget.is_full());
    }
    drop(held);
    f.shared.attempt.ask_for_early_cut();
    assert_eq!(f.put(5, 100), 1);
}

#[test]
fn a_request_that_no_write_has_seen_ends_with_the_barrier() {
    let mut f = Fixture::new(1 << 20);
    f.put(1, 100);
    f.shared.attempt.ask_for_early_cut();
    f.engine.cut(1).unwrap();
    // Less than the manifest takes, gathered slowly until the next request.
    for key in 2..=4 {
        assert_eq!(f.put(key, 2_500), 1);
    }
    f.shared.attempt.ask_for_early_cut();
    assert_eq!(f.put(5, 100), 1, "it travels in the manifest");
}
