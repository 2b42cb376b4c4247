//! TTL against a model: entries with the time of their last access.

use super::*;

/// A value with the time of its last access.
type Aged = (u64, u64);

#[derive(Debug, Clone, Default)]
struct Model {
    values: BTreeMap<u64, Aged>,
    lists: BTreeMap<u64, Vec<Aged>>,
    maps: BTreeMap<(u64, String), Aged>,
}

fn model_run(seed: u64, ttl: Ttl, steps: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let on_read = ttl == self::on_read();
    let place = ClockedJob::new(MODES[0]);
    let open = |mode: usize, subtasks| {
        let mut opened = place.open_as(MODES[mode], subtasks);
        let states = opened.stores.iter_mut().map(|store| {
            (
                store.register(value().ttl(ttl)).unwrap(),
                store.register(list().ttl(ttl)).unwrap(),
                store.register(map().ttl(ttl)).unwrap(),
            )
        });
        // Handles are good for all stores.
        let states = states.last().unwrap();
        (opened, states)
    };
    let (mut opened, mut states) = open(seed as usize % 2, 1);
    let (mut live, mut committed) = (Model::default(), Model::default());
    let mut now = 1_000;
    for step in 0..steps {
        let (value, list, map) = &states;
        let (key, new) = (rng.random_range(0..8_u64), step as u64);
        let field = format!("f{}", rng.random_range(0..4));
        let alive = |aged: &Aged| aged.1 + 10 > now;
        let store = owner(&mut opened.stores, &key);
        store.set_key(&key).unwrap();
        match rng.random_range(0..100) {
            0..10 => {
                value.put(store, &new).unwrap();
                live.values.insert(key, (new, now));
            }
            10..20 => {
                list.append(store, &new).unwrap();
                live.lists.entry(key).or_default().push((new, now));
            }
            20..30 => {
                map.put(store, &field, &new).unwrap();
                live.maps.insert((key, field), (new, now));
            }
            30..40 => {
                let expected = live.values.get_mut(&key).filter(|aged| alive(aged));
                assert_eq!(value.get(store).unwrap(), expected.as_ref().map(|aged| aged.0), "step {step}");
                expected.filter(|_| on_read).into_iter().for_each(|aged| aged.1 = now);
            }
            40..50 => {
                let elements = live.lists.entry(key).or_default();
                elements.retain(alive);
                let expected: Vec<_> = elements.iter().map(|aged| aged.0).collect();
                assert_eq!(list.get(store).unwrap(), expected, "step {step}");
                elements.iter_mut().filter(|_| on_read).for_each(|aged| aged.1 = now);
            }
            50..60 => {
                let expected = live.maps.get_mut(&(key, field.clone())).filter(|aged| alive(aged));
                let found = map.get(store, &field).unwrap();
                assert_eq!(found, expected.as_ref().map(|aged| aged.0), "step {step}");
                expected.filter(|_| on_read).into_iter().for_each(|aged| aged.1 = now);
            }
            60..66 => {
                let of_key = live.maps.iter().filter(|((owner, _), aged)| *owner == key && alive(aged));
                let expected: Vec<_> = of_key.map(|((_, field), aged)| (field.clone(), aged.0)).collect();
                assert_eq!(entries(map, store), expected, "step {step}");
            }
            66..70 => {
                let expected = live.values.iter().filter(|(_, aged)| alive(aged)).map(|(key, _)| *key);
                let expected: Vec<_> = expected.collect();
                let found = keys(&opened, |store, group| {
                    value.keys::<u64>(store, group).unwrap().map(Result::unwrap).collect()
                });
                assert_eq!(found, expected, "step {step}");
            }
            70..73 => {
                value.clear(store).unwrap();
                list.clear(store).unwrap();
                map.clear(store).unwrap();
                live.values.remove(&key);
                live.lists.remove(&key);
                live.maps.retain(|(owner, _), _| *owner != key);
            }
            73..90 => {
                now += rng.random_range(0..5);
                place.clock.set(now);
            }
            90..95 => {
                checkpoint(&opened.job, &mut opened.stores, "").unwrap();
                committed = live.clone();
            }
            95..96 => materialize(&opened.job),
            96..98 => opened.job.compact().unwrap(),
            _ => {
                drop(opened);
                (opened, states) = open(rng.random_range(0..2), rng.random_range(1..5));
                live = committed.clone();
            }
        }
    }
}

/// Crashes, restores at another parallelism and changes of mode among the steps. A failing seed is run again with
/// `ALLUVIUM_SEED=…`.
#[test]
fn i9_ttl_behaves_as_entries_with_times() {
    let seeds = std::env::var("ALLUVIUM_SEED").map(|seed| seed.parse().unwrap());
    for seed in seeds.map_or(0..8, |seed| seed..seed + 1) {
        println!("seed {seed}");
        model_run(seed, if seed % 4 < 2 { ttl() } else { on_read() }, 500);
    }
}
