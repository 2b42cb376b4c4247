//! A job of 2 subtasks counts words, stops, and goes on with 3: every count is still there.
//!
//! `cargo run --all-features --example rescale`

use alluvium::{Job, JobOptions, OpenMode, Opened, Result, StateStore, ValueState};

const WORDS: [&str; 8] = ["river", "sand", "silt", "delta", "bank", "flood", "plain", "sea"];

fn main() -> Result<()> {
    let place = std::env::temp_dir().join(format!("alluvium-rescale-{}", std::process::id()));
    let outcome = run(&place);
    // What is left behind is only temporary.
    let _ = std::fs::remove_dir_all(&place);
    outcome
}

fn run(place: &std::path::Path) -> Result<()> {
    let url = place.join("job").display().to_string();
    let options = |subtasks| JobOptions::new(place.join("local"), OpenMode::CreateOrOpen).subtasks(subtasks);

    // The first attempt: 2 subtasks, and a source whose two partitions they read.
    let mut opened = Job::open(&url, options(2))?;
    for word in WORDS.iter().cycle().take(100) {
        count(&mut opened.stores, word)?;
    }
    let checkpoint = opened.job.trigger("")?;
    for store in &mut opened.stores {
        // Each subtask says how far it has read its partition.
        let offset = format!("partition {} read up to 50", store.subtask());
        store.cut(checkpoint.id(), offset)?;
    }
    checkpoint.wait()?;
    print("2 subtasks", &mut opened)?;
    drop(opened);

    // The next one has 3. Key groups are dealt out anew, and their state comes along.
    let mut opened = Job::open(&url, options(3))?;
    print("3 subtasks", &mut opened)?;
    // A source's partitions are no key groups: take the offsets of all the old subtasks, and deal the
    // partitions out as it suits.
    for (subtask, range, offset) in &opened.subtask_metadata {
        println!("old subtask {subtask} had key groups {range}: {}", String::from_utf8_lossy(offset));
    }
    // It goes on where it was.
    count(&mut opened.stores, "delta")?;
    let checkpoint = opened.job.trigger("")?;
    for store in &mut opened.stores {
        store.cut(checkpoint.id(), "")?;
    }
    let report = checkpoint.wait()?;
    println!("the first checkpoint with 3 subtasks: {} bytes of changes", report.delta_bytes);
    Ok(())
}

/// Brings a word to the subtask that owns its key group, and counts it there.
fn count(stores: &mut [StateStore], word: &str) -> Result<()> {
    for store in stores {
        if store.range().contains(store.max_parallelism().group_of_key(word)) {
            let counts = store.register(ValueState::<u64>::descriptor("counts"))?;
            store.set_key(word)?;
            let before = counts.get(store)?.unwrap_or(0);
            counts.put(store, &(before + 1))?;
        }
    }
    Ok(())
}

fn print(title: &str, opened: &mut Opened) -> Result<()> {
    println!("{title}:");
    for store in &mut opened.stores {
        let counts = store.register(ValueState::<u64>::descriptor("counts"))?;
        let mut found = Vec::new();
        for group in store.range().groups() {
            for entry in counts.entries::<str>(store, group)? {
                let (word, count) = entry?;
                found.push(format!("{word} {count}"));
            }
        }
        println!("  subtask {}, key groups {}: {}", store.subtask(), store.range(), found.join(", "));
    }
    Ok(())
}
