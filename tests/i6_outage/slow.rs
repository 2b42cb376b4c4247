//! Stores that answer late or not at all, and slow links.

use super::*;

/// No answer at all is an outage too.
#[test]
fn i6_requests_without_an_answer_end_in_an_abort_by_the_checkpoints_timeout() {
    let line = Line::new();
    let Opened { job, mut stores, .. } = line.open(line.options().inline_limit(0));
    put(&mut stores[0], "k", b"1").unwrap();
    let gate = Gate::closed();
    let held = gate.clone();
    line.store.rule(move |call| match call.op {
        Op::Put => Fault::Hold(held.clone()),
        _ => Fault::Pass,
    });
    let start = now();
    let error = checkpoint(&job, &mut stores, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    job.health().unwrap();
    put(&mut stores[0], "k", b"2").unwrap();
    line.store.heal();
    gate.open();
    checkpoint_at_last(&job, &mut stores, "2");
    drop((job, stores));
    assert_eq!(get(&mut line.open(line.options()).stores[0], "k"), Some(b"2".to_vec()));
}

/// Nor do the files of a base, that go up side by side.
#[test]
fn i6_a_base_gets_through_a_slow_link() {
    let line = Line::new();
    let options = line.options().checkpoint_timeout(LONG);
    let Opened { job, mut stores, .. } = line.open_in_haste(options);
    for n in 0..4_000 {
        put(&mut stores[0], &format!("key {n}"), &noise(n, 1000)).unwrap();
    }
    checkpoint(&job, &mut stores, "").unwrap();
    job.settle(LONG).unwrap();
    // A few files of a megabyte or two share it: one alone would be through long before its
    // deadline.
    let link = Link::new(500_000);
    line.store.rule(move |call| match call.op {
        Op::Put if call.path.ends_with(".sst") => Fault::Carry(link.clone()),
        _ => Fault::Pass,
    });
    line.store.take_calls();
    job.materialize();
    job.settle(LONG).unwrap();
    let calls = line.store.take_calls();
    let files: Vec<_> =
        calls.iter().filter(|call| call.op == Op::Put && call.path.ends_with(".sst")).collect();
    assert!(files.len() >= 2, "too few files to share a link: {files:?}");
    let sent: u64 = files.iter().map(|call| call.bytes).sum();
    assert!(sent < 5_000_000, "{sent} bytes were sent for 4 MB: transfers were in vain");
}

/// A link on which what is held takes many times longer than a request may: those under way must
/// not take the time from each other until none of them arrives.
#[test]
fn i6_a_slow_link_is_used_by_few_at_a_time() {
    let line = Line::new();
    let options = line.options().inline_limit(10_000);
    let Opened { job, mut stores, .. } = line.open_in_haste(options.checkpoint_timeout(LONG));
    // A quarter of the memory takes 4 s, eight times the timeout.
    let link = Link::new(500_000);
    line.store.rule(move |call| match call.op {
        Op::Put => Fault::Carry(link.clone()),
        _ => Fault::Pass,
    });
    let start = now();
    std::thread::scope(|scope| {
        let store = &mut stores[0];
        let writer = scope.spawn(move || {
            for n in 0..3_000 {
                put(store, &format!("key {n}"), &noise(n, 1000)).unwrap();
            }
        });
        while !writer.is_finished() {
            if start.elapsed() > LONG {
                line.store.heal();
                writer.join().unwrap();
                panic!("no upload has got through");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    assert!(job.stats().stores[0].blocked_writes > 0, "the link was not too slow");
    checkpoint(&job, &mut stores, "through").unwrap();
    let calls = line.store.take_calls();
    let puts: Vec<_> = calls.iter().filter(|call| call.op == Op::Put && call.is_data()).collect();
    let sent: u64 = puts.iter().map(|call| call.bytes).sum();
    let sizes: Vec<_> = puts.iter().map(|call| (&call.path[call.path.len() - 15..], call.bytes)).collect();
    assert!(sent < 6_000_000, "{sent} bytes were sent for 3 MB: most transfers were in vain: {sizes:?}");
    assert!(puts.iter().any(|call| call.bytes > 2 * DELTA), "what had to wait has not gathered: {puts:?}");
}

/// Work that the job has put off is waited for: a native upload, and garbage collection.
#[test]
fn settling_waits_for_uploads_and_deletions() {
    let short = Duration::from_millis(300);
    let line = Line::new();
    let native = line.options().mode(CheckpointMode::NativeIncremental).checkpoint_timeout(LONG);
    let Opened { job, mut stores, .. } = line.open(native);
    put(&mut stores[0], "k", b"v").unwrap();
    let gate = Gate::closed();
    let held = gate.clone();
    line.store.rule(move |call| match call.is_data() {
        true => Fault::Hold(held.clone()),
        false => Fault::Pass,
    });
    let pending = job.trigger("").unwrap();
    stores[0].cut(pending.id(), "").unwrap();
    assert_eq!(job.settle(short).unwrap_err().kind(), ErrorKind::Aborted, "files are on their way");
    gate.open();
    pending.wait().unwrap();
    job.settle(LONG).unwrap();
    drop((job, stores));

    line.store.heal();
    let Opened { job, mut stores, .. } = line.open(line.options().retained(1).inline_limit(0));
    checkpoint(&job, &mut stores, "").unwrap();
    job.settle(LONG).unwrap();
    let gate = Gate::closed();
    let held = gate.clone();
    line.store.rule(move |call| match call.op {
        Op::Delete => Fault::Hold(held.clone()),
        _ => Fault::Pass,
    });
    for n in 0..16 {
        put(&mut stores[0], "k", &noise(n, 10)).unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
    }
    assert_eq!(job.settle(short).unwrap_err().kind(), ErrorKind::Aborted, "garbage is being collected");
    gate.open();
    job.settle(LONG).unwrap();
}
