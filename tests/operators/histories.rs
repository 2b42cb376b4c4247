//! I9 for several operators at once: whatever the history of rescales, drops, renames and new
//! operators, each restores to exactly what it held at the cut.
//!
//! A failing seed prints the command that replays it. `ALLUVIUM_SEEDS=1000` runs that many.

use alluvium::{CheckpointMode, KeyGroup, MaterializationOptions, StateOptions};
use alluvium_testkit::drive::{by_hand, materialize, noise};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

/// Seeds of an ordinary run.
const SEEDS: u64 = 12;
const NAMES: [&str; 2] = ["count", "other"];

#[test]
fn i9_operators_are_rescaled_each_by_itself() {
    let seeds = std::env::var("ALLUVIUM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let first = std::env::var("ALLUVIUM_SEED").map(|text| text.parse().unwrap());
    let all = first.map_or(0..seeds, |seed| seed..seed + 1);
    for seed in all {
        let outcome = std::panic::catch_unwind(|| World::new(seed).run());
        if let Err(payload) = outcome {
            eprintln!("replay: ALLUVIUM_SEED={seed} cargo test --all-features --test all i9_operators_are");
            std::panic::resume_unwind(payload);
        }
    }
}

/// State, group and key to value: what one operator holds.
type Model = BTreeMap<(usize, u16, Vec<u8>), Vec<u8>>;

struct World {
    rng: StdRng,
    store: Arc<InMemory>,
    local: tempfile::TempDir,
    /// What the newest checkpoint has of each operator, with the operator's number of key groups.
    committed: BTreeMap<String, (u16, Model)>,
    names: u32,
    hosts: u32,
}

/// What an operator is opened as.
struct Plan {
    id: String,
    former: Option<String>,
    groups: u16,
    subtasks: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            store: Arc::new(InMemory::new()),
            local: tempfile::tempdir().unwrap(),
            committed: BTreeMap::new(),
            names: 0,
            hosts: 0,
        }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("operator {}", self.names)
    }

    /// The operators of the next attempt, in any order, and those that it drops.
    fn plan(&mut self) -> (Vec<Plan>, Vec<String>) {
        let (mut plans, mut dropped) = (Vec::new(), Vec::new());
        for (id, (groups, _)) in self.committed.clone() {
            if self.rng.random_ratio(1, 8) {
                dropped.push(id);
                continue;
            }
            let renamed = self.rng.random_ratio(1, 6);
            let (id, former) = if renamed { (self.name(), Some(id)) } else { (id, None) };
            plans.push(Plan { id, former, groups, subtasks: 0 });
        }
        while plans.is_empty() || (plans.len() < 4 && self.rng.random_ratio(1, 3)) {
            let groups = [1, 3, 8, 16][self.rng.random_range(0..4)];
            plans.push(Plan { id: self.name(), former: None, groups, subtasks: 0 });
        }
        for plan in &mut plans {
            plan.subtasks = self.rng.random_range(1..=u32::from(plan.groups.min(4)));
        }
        let turn = self.rng.random_range(0..plans.len());
        plans.rotate_left(turn);
        (plans, dropped)
    }

    fn options(&mut self, plans: &[Plan], dropped: &[String]) -> JobOptions {
        let host = if self.rng.random_ratio(1, 3) { self.hosts + 1 } else { 0 };
        self.hosts = self.hosts.max(host);
        let native = self.rng.random_ratio(1, 3);
        let mode = if native { CheckpointMode::NativeIncremental } else { CheckpointMode::Changelog };
        let by_itself = self.rng.random_ratio(1, 4);
        let materialization = if by_itself { MaterializationOptions::default() } else { by_hand() };
        let specs = plans.iter().map(|plan| {
            let spec = OperatorSpec::new(&plan.id, plan.subtasks);
            // It may be left out once a checkpoint has the operator.
            let spec = match self.committed.contains_key(&plan.id) {
                true => spec,
                false => spec.max_parallelism(groups(plan.groups)),
            };
            plan.former.iter().fold(spec, OperatorSpec::renamed_from)
        });
        let options = JobOptions::new(self.local.path().join(format!("host {host}")), OpenMode::CreateOrOpen)
            .operators(specs.collect::<Vec<_>>())
            .mode(mode)
            .memory(80_000_000)
            .delta_bytes([4096, 100_000][self.rng.random_range(0..2)])
            .inline_limit([0, 500, 131_072][self.rng.random_range(0..3)])
            .materialization(materialization);
        dropped.iter().fold(options, JobOptions::allow_dropped_operator)
    }

    fn run(mut self) {
        for _ in 0..7 {
            let (plans, dropped) = self.plan();
            let options = self.options(&plans, &dropped);
            let Opened { job, mut stores, .. } = open(&self.store, options).unwrap();
            let mut models = BTreeMap::new();
            for plan in &plans {
                let known = self.committed.get(plan.former.as_ref().unwrap_or(&plan.id));
                models.insert(
                    plan.id.clone(),
                    (plan.groups, known.map(|(_, model)| model.clone()).unwrap_or_default()),
                );
            }
            compare(&mut stores, &models);
            for _ in 0..[0, 60, 300][self.rng.random_range(0..3)] {
                self.step(&job, &mut stores, &mut models);
            }
            if self.rng.random_ratio(2, 3) {
                self.checkpoint(&job, &mut stores, &models);
            }
            // And crash.
        }
    }

    fn checkpoint(&mut self, job: &Job, stores: &mut [StateStore], models: &BTreeMap<String, (u16, Model)>) {
        checkpoint(job, stores, "").unwrap();
        self.committed.clone_from(models);
    }

    fn step(&mut self, job: &Job, stores: &mut [StateStore], models: &mut BTreeMap<String, (u16, Model)>) {
        let (what, which) = (self.rng.random_range(0..100), self.rng.random_range(0..stores.len()));
        let store = &mut stores[which];
        let state = self.rng.random_range(0..NAMES.len());
        let range = store.range();
        let group = KeyGroup(self.rng.random_range(range.first.0..=range.last.0));
        let key = vec![b'a' + self.rng.random_range(0..8_u8); self.rng.random_range(0..3)];
        let handle = store.state(&StateOptions::new(NAMES[state])).unwrap();
        let (_, model) = models.get_mut(store.operator().unwrap()).unwrap();
        let len = self.rng.random_range(0..200);
        let value = noise(self.rng.next_u64(), len);
        match what {
            0..50 => {
                store.put(handle, group, &key, &value).unwrap();
                model.insert((state, group.0, key), value);
            }
            50..65 => {
                store.delete(handle, group, &key).unwrap();
                model.remove(&(state, group.0, key));
            }
            65..85 => {
                store.append(handle, group, &key, &value).unwrap();
                model.entry((state, group.0, key)).or_default().extend_from_slice(&value);
            }
            85..90 => {
                store.delete_prefix(handle, group, &key).unwrap();
                model.retain(|(of, at, there), _| (*of, *at) != (state, group.0) || !there.starts_with(&key));
            }
            90..96 => self.checkpoint(job, stores, models),
            96..98 => materialize(job),
            _ => job.compact().unwrap(),
        }
    }
}

/// Each operator has what its model says, in its own key groups.
fn compare(stores: &mut [StateStore], models: &BTreeMap<String, (u16, Model)>) {
    for (id, (groups, model)) in models {
        let mut own: Vec<_> = stores.iter_mut().filter(|store| store.operator() == Some(id)).collect();
        let owned: u32 =
            own.iter().map(|store| u32::from(store.range().last.0 - store.range().first.0) + 1).sum();
        assert_eq!(owned, u32::from(*groups), "{id} has all of its key groups");
        let mut found = Model::new();
        for store in &mut own {
            for (state, name) in NAMES.iter().enumerate() {
                let handle = store.state(&StateOptions::new(*name)).unwrap();
                for group in store.range().groups() {
                    for entry in store.scan_prefix(handle, group, b"").unwrap() {
                        let (key, value) = entry.unwrap();
                        assert_eq!(store.get(handle, group, &key).unwrap().unwrap(), value);
                        found.insert((state, group.0, key), value);
                    }
                }
            }
        }
        assert!(found == *model, "{id}: {} entries instead of {}", found.len(), model.len());
    }
}
