//! I1 and I9 for typed state: a committed checkpoint restores to exactly what the program had written, in every
//! kind of state, with and without namespaces or TTL, and of timers.
//!
//! A job is driven by random steps ([`step`]) next to a model of plain collections ([`model`]), over several
//! subtasks ([`attempt`]). It is crashed (dropped without a word) at random moments and opened again: at the
//! newest checkpoint or an older one, by as many subtasks or others, in the same local directory or another, in
//! the same mode or the other ([`world`]). After every restore all there is is compared with the model as it was at the cut, key by
//! key and namespace by namespace, and by what the states list.
//!
//! A failing seed prints the command that replays it and says what it did. `ALLUVIUM_SEEDS=1000` runs that many.
#![allow(clippy::unwrap_used)]

mod attempt;
mod history;
mod kinds;
mod model;
mod step;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Cached, World};

/// Seeds of an ordinary run.
const SEEDS: u64 = 6;

#[test]
fn i1_typed_state_under_random_steps_crashes_and_restores() {
    let seeds = std::env::var("ALLUVIUM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let (next, cached) = (AtomicU64::new(0), Mutex::new(Cached::default()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let of_seed = run_printing_seed(seed, false);
                    cached.lock().unwrap().add(of_seed);
                }
            });
        }
    });
    let cached = cached.into_inner().unwrap();
    println!("{cached:?}");
    assert!(cached.hits > 0 && cached.misses > 0, "the cache of records was in play: {cached:?}");
}

/// Runs the one seed in `ALLUVIUM_SEED`, if it is set, and prints each of its steps.
#[test]
fn replay() {
    if let Ok(seed) = std::env::var("ALLUVIUM_SEED") {
        run_printing_seed(seed.parse().unwrap(), true);
    }
}

fn run_printing_seed(seed: u64, trace: bool) -> Cached {
    let outcome = std::panic::catch_unwind(|| World::new(seed, trace).run());
    outcome.unwrap_or_else(|payload| {
        eprintln!("replay: ALLUVIUM_SEED={seed} cargo test --all-features --test all i1_state_model::replay");
        std::panic::resume_unwind(payload);
    })
}
