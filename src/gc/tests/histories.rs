//! Random histories of attempts, commits, crashes, readers and collectors.

use super::*;

/// A collection that was planned for by an attempt, and may run at any time after.
struct Paused {
    job: Job,
    roots: Roots,
    dropped: Vec<Retained>,
}

async fn random_history(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let store = Scripted::new();
    let outside = store.remote(seed * 1000);
    let mut attempts = 1;
    let mut job = Job::open(store.remote(seed * 1000 + attempts), |_| 0).await;
    let mut readers: Vec<(Pin, Manifest)> = Vec::new();
    let mut saved: Vec<(String, Manifest)> = Vec::new();
    let mut paused: Vec<Paused> = Vec::new();
    for _ in 0..100 {
        match rng.random_range(0..21) {
            0..5 => {
                job.cut();
                if rng.random_bool(0.3) {
                    job.persist().await;
                }
                if rng.random_bool(0.2) {
                    store.script([[Put::Lost, Put::AnswerLost, Put::Late][rng.random_range(0..3)]]);
                    store.fail_reads(rng.random_range(0..9));
                }
                job.commit(rng.random_range(1..4)).await;
                store.fail_reads(0);
            }
            5 => job.pack().await,
            6 => {
                job.describe(rng.random_range(0..3));
                job.materialize(&mut rng).await;
            }
            7 => drop(job.put(DataKind::Sst).await),
            8 | 9 => drop(job.collect().await),
            10 => drop(job.sweep().await),
            11 => {
                if let Some(retained) = retained_now(&outside).await.first() {
                    attempts += 1;
                    let from = RestoreFrom::Checkpoint(retained.id);
                    readers.push(pin(&store.remote(seed * 1000 + attempts), &from).await.unwrap());
                }
            }
            12 if !readers.is_empty() => {
                let (pin, _) = readers.swap_remove(rng.random_range(0..readers.len()));
                pin.release().await.unwrap();
            }
            13 => {
                // Another attempt takes over, while this one's collection is still to come.
                attempts += 1;
                let remote = store.remote(seed * 1000 + attempts);
                let next = Job::open(remote, |count| rng.random_range(0..count.max(1))).await;
                let mut old = std::mem::replace(&mut job, next);
                let (roots, dropped) = (old.chain.roots(), old.chain.take_dropped());
                paused.push(Paused { job: old, roots, dropped });
            }
            14 if !paused.is_empty() => {
                let index = rng.random_range(0..paused.len());
                let Paused { mut job, roots, dropped } = paused.swap_remove(index);
                let collector = &mut job.collector;
                let _ = collector.collect(&job.remote, &roots, dropped).await.unwrap();
                let swept = collector.sweep(&job.remote, &roots, false).await.unwrap();
                assert!(matches!(swept, Collection::Overtaken(_)), "{swept:?}");
                job.cut();
                assert!(!job.commit(1).await, "I2: fenced, however late");
            }
            16 => {
                if let Some(retained) = retained_now(&outside).await.first() {
                    // Few names, so that they are given again.
                    let (name, version) = (format!("s{}", rng.random_range(0..4)), retained.version);
                    let from = RestoreFrom::Checkpoint(retained.id);
                    let taken = saved.iter().any(|(there, _)| *there == name);
                    let made =
                        savepoint::create(&outside, &name.parse().unwrap(), &from, Holder::Reader).await;
                    match made {
                        Ok(_) => saved.push((name, read_manifest(&outside, version).await.unwrap().0)),
                        Err(error) => assert!(taken && error.kind() == ErrorKind::AlreadyExists, "{error}"),
                    }
                }
            }
            17 if !saved.is_empty() => {
                let (name, _) = saved.swap_remove(rng.random_range(0..saved.len()));
                savepoint::release(&outside, &name.parse().unwrap()).await.unwrap();
            }
            18 if !saved.is_empty() => {
                let (name, _) = &saved[rng.random_range(0..saved.len())];
                readers.push(pin(&outside, &the_savepoint(name)).await.unwrap());
            }
            19 if !saved.is_empty() => {
                // An attempt goes back to a savepoint, however old.
                let (name, _) = &saved[rng.random_range(0..saved.len())];
                attempts += 1;
                let next = Job::open_savepoint(store.remote(seed * 1000 + attempts), name).await;
                let mut old = std::mem::replace(&mut job, next);
                let (roots, dropped) = (old.chain.roots(), old.chain.take_dropped());
                paused.push(Paused { job: old, roots, dropped });
            }
            15 => {
                store.deliver().await;
                store.deliver_deletes().await;
                let roots = Roots::read(&outside).await.unwrap().unwrap();
                done(Collector::new().sweep(&outside, &roots, false).await.unwrap());
            }
            20 if !saved.is_empty() => {
                // A switch: an attempt goes back to a savepoint and commits; then its user releases it.
                let (name, _) = saved.swap_remove(rng.random_range(0..saved.len()));
                attempts += 1;
                let next = Job::open_savepoint(store.remote(seed * 1000 + attempts), &name).await;
                let mut old = std::mem::replace(&mut job, next);
                let (roots, dropped) = (old.chain.roots(), old.chain.take_dropped());
                paused.push(Paused { job: old, roots, dropped });
                job.cut();
                assert!(job.commit(1).await);
                savepoint::release(&outside, &name.parse().unwrap()).await.unwrap();
            }
            _ => {}
        }
        let mut pinned: Vec<_> = readers.iter().map(|(_, manifest)| manifest.clone()).collect();
        pinned.extend(saved.iter().map(|(_, manifest)| manifest.clone()));
        pinned.extend(job.origin.iter().map(|(_, manifest)| manifest.clone()));
        check_live(&outside, &pinned).await;
    }

    // In the end nothing is left over but what is needed, and the records of attempts.
    for (pin, _) in readers {
        pin.release().await.unwrap();
    }
    for (name, _) in saved {
        savepoint::release(&outside, &name.parse().unwrap()).await.unwrap();
    }
    store.deliver().await;
    let mut last = Job::open(store.remote(seed * 1000 + 999), |count| count.saturating_sub(1)).await;
    last.sweep().await;
    let mut needed = BTreeSet::new();
    for retained in retained_now(&outside).await {
        let (manifest, _) = read_manifest(&outside, retained.version).await.unwrap();
        needed.insert(ObjectName::manifest(retained.version).to_string());
        needed.extend(manifest.references().map(ToString::to_string));
    }
    for name in objects(&outside).await.difference(&needed) {
        let version = match ObjectName::parse(name) {
            Some(ObjectName::Manifest(version)) => version,
            Some(ObjectName::Opened(_)) => continue,
            // That a name was released is remembered for ever.
            Some(ObjectName::Savepoint(_, Generation(1 | 3 | 5 | 7 | 9 | 11 | 13))) => continue,
            _ => panic!("{name} is left over"),
        };
        let (manifest, _) = read_manifest(&outside, version).await.unwrap();
        assert!(manifest.checkpoint().is_none(), "{name} is left over");
    }
}

#[tokio::test]
async fn i3_random_histories_never_lose_what_is_needed_and_leave_nothing_behind() {
    for seed in 0..60 {
        println!("seed {seed}");
        random_history(seed).await;
    }
}
