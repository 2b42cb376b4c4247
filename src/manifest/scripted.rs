//! A store in memory that answers creates of manifests as a test says. All else works.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::env::{Env, SeededNonces};
use crate::fault_store::{Answer, Call, Conditions, Fault, FaultPolicy, FaultStore, Op};
use crate::remote::{Remote, RetryPolicy};

/// What becomes of one create of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// As it should be.
    Works,
    /// It is applied, the answer is lost.
    AnswerLost,
    /// It is not applied.
    Lost,
    /// It is not applied yet, see [`FaultStore::deliver`].
    Late,
    /// It is applied, and never answered.
    Hangs,
}

impl From<Put> for Fault {
    fn from(put: Put) -> Self {
        match put {
            Put::Works => Self::Pass,
            Put::AnswerLost => Answer::Lost.into(),
            Put::Lost => Self::Fail,
            Put::Late => Self::Late,
            Put::Hangs => Answer::Never.into(),
        }
    }
}

#[derive(Debug, Default)]
struct Script {
    puts: VecDeque<Put>,
    /// Reads of manifests that fail.
    failing_reads: usize,
    /// Listings that show one more manifest than there is, if there is any.
    phantoms: usize,
}

/// The script, as the store asks for it.
struct Reader(Arc<Mutex<Script>>);

impl FaultPolicy for Reader {
    fn before(&mut self, call: &Call) -> Fault {
        let mut script = self.0.lock().unwrap();
        let manifest = call.path.contains("/manifest/");
        match call.op {
            Op::Put if manifest => script.puts.pop_front().unwrap_or(Put::Works).into(),
            Op::Get if manifest && script.failing_reads > 0 => {
                script.failing_reads -= 1;
                Fault::Fail
            }
            Op::List if script.phantoms > 0 => {
                script.phantoms -= 1;
                Answer::listing(add_phantom).into()
            }
            _ => Fault::Pass,
        }
    }
}

/// One version more than there is.
fn add_phantom(objects: &mut Vec<ObjectMeta>) {
    let newest = objects.iter().max_by_key(|meta| meta.location.clone()).cloned();
    objects.extend(newest.and_then(|newest| {
        let (folder, version) = newest.location.as_ref().rsplit_once('/')?;
        let version = version.parse::<u64>().ok()? + 1;
        Some(ObjectMeta { location: Path::from(format!("{folder}/{version:020}")), ..newest })
    }));
}

pub(crate) struct Scripted {
    store: Arc<FaultStore>,
    inner: Arc<dyn ObjectStore>,
    script: Arc<Mutex<Script>>,
}

impl Deref for Scripted {
    type Target = FaultStore;

    fn deref(&self) -> &FaultStore {
        &self.store
    }
}

impl Scripted {
    pub(crate) fn new() -> Arc<Self> {
        let (inner, script) = (Arc::new(InMemory::new()), Arc::<Mutex<Script>>::default());
        let store = FaultStore::around(Arc::<InMemory>::clone(&inner));
        store.set_policy(Reader(Arc::clone(&script)));
        Arc::new(Self { store, inner, script })
    }

    /// A client of this store, with its own randomness and a quick temper.
    pub(crate) fn remote(&self, seed: u64) -> Arc<Remote> {
        let env = Env { nonces: Arc::new(SeededNonces::new(seed)), ..Env::default() };
        let retry = RetryPolicy {
            attempts: 3,
            first_pause: Duration::from_micros(10),
            max_pause: Duration::from_micros(50),
        };
        let store: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&self.store);
        Arc::new(Remote::new(store, Path::from("jobs/a"), env).with_retry(retry))
    }

    /// The answers to the next creates of manifests.
    pub(crate) fn script(&self, puts: impl IntoIterator<Item = Put>) {
        self.script.lock().unwrap().puts.extend(puts);
    }

    pub(crate) fn fail_reads(&self, count: usize) {
        self.script.lock().unwrap().failing_reads = count;
    }

    /// The next listings of a chain show one version more than there is.
    pub(crate) fn list_phantoms(&self, listings: usize) {
        self.script.lock().unwrap().phantoms = listings;
    }

    pub(crate) fn ignore_conditions(&self) {
        self.set_conditions(Conditions::Ignored);
    }

    /// Applies the deletes once more that earlier tries have asked for, as if those had been on their way
    /// until now.
    pub(crate) async fn deliver_deletes(&self) {
        for call in self.take_calls().into_iter().filter(|call| call.op == Op::Delete) {
            // Most of them are gone.
            let _ = self.inner.delete(&Path::from(call.path)).await;
        }
    }

    /// Requests made so far.
    pub(crate) fn requests(&self) -> usize {
        self.calls().len()
    }
}
