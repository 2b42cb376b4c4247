//! Bounds and ends that the random operations of `model_tests.rs` do not reach.

use super::room::SECOND_CHANCES;
use super::*;
use crate::cache::worth::WINDOW;

fn cache(bytes: u64) -> RecordCache {
    let mut cache = RecordCache::new(CacheMemory::new(CacheLimits::new(bytes), |_| ()));
    (0..WINDOW).for_each(|_| _ = cache.get(b"key of a group"));
    cache.put(b"key of a group", b"old");
    cache
}

#[test]
fn after_the_last_moment_nothing_old_is_right_again() {
    let mut cache = cache(1 << 20);
    // Of the first moment, which comes again.
    assert_eq!(cache.get(b"key of a group"), Cached::Value(b"old"));
    cache.now.set(u32::MAX - 1);
    for _ in 0..3 {
        cache.delete_range(b"key of a group", b"key of a grouq");
        assert_eq!(cache.get(b"key of a group"), Cached::Unknown, "at {}", cache.now.get());
        cache.put(b"key of another", b"new");
        assert_eq!(cache.get(b"key of another"), Cached::Value(b"new"));
    }
    assert_eq!(cache.now.get(), 1, "time has begun anew");
}

/// With little memory as well, the index leaves the chunks theirs.
#[test]
fn the_smallest_cache_takes_in_small_records_and_large_ones() {
    for len in [0, 100, 10_000] {
        let mut cache = cache(LEAST_BYTES as u64);
        let mut hits = 0;
        for number in 0..20_000_u32 {
            let key = [b"key of".as_slice(), &number.to_be_bytes()].concat();
            cache.get(&key);
            cache.put(&key, &vec![7; len]);
            hits += u32::from(cache.get(&key) != Cached::Unknown);
            assert!(cache.held() <= LEAST_BYTES, "{} bytes", cache.held());
        }
        assert_eq!(cache.log.chunks(), if len == 0 { FEWEST_CHUNKS } else { 3 }, "{len}");
        assert!(hits > 19_000, "{hits} records of {len} bytes were taken in");
    }
}

#[test]
fn a_value_that_reads_renew_keeps_no_other_out() {
    let mut cache = cache(1 << 20);
    let keys = [b"key of state 1", b"key of state 2"];
    keys.iter().for_each(|key| cache.offer(*key, Some(b"value")));
    cache.forget(keys[1]);
    cache.settle();
    assert_eq!(cache.get(keys[0]), Cached::Value(b"value"));
    assert_eq!(cache.get(keys[1]), Cached::Unknown);
}

#[test]
fn what_was_lent_is_given_up_little_by_little() {
    // More records than a chunk has are never given up by one write.
    let most = (CHUNK / 128 + LEAST_SHED / 128 + SECOND_CHANCES) as u64;
    let key = |number: u32| [b"key of".as_slice(), &number.to_be_bytes()].concat();
    let put = |cache: &mut RecordCache, number| {
        let before = cache.stats().evictions;
        cache.get(&key(number));
        cache.put(&key(number), &[7; 100]);
        assert!(cache.stats().evictions - before <= most, "of {before} at {number}");
    };
    let share = 8 << 20;
    let mut cache = cache(share);
    cache.lend(share / 2);
    let mut next = 72_000;
    (0..next).for_each(|number| put(&mut cache, number));
    // The next key would make the index grow.
    while cache.index.growth(cache.index.hash(&key(next))) == 0 {
        put(&mut cache, next);
        next += 1;
    }
    let before = cache.stats();
    assert!(before.bytes > share / 5 * 6 && before.evictions == 0, "{before:?}");
    cache.lend(0);
    // Nor does the index grow now, at the expense of many chunks.
    assert!(!cache.grow_index(cache.index.hash(&key(next))));
    assert_eq!(cache.stats().evictions, 0);
    let mut writes = 0;
    while cache.stats().bytes > share {
        put(&mut cache, next + writes);
        writes += 1;
        assert!(writes < 10_000, "{:?}", cache.stats());
    }
    assert!(writes > 500, "{writes} writes have given it back");
}

#[test]
fn an_index_that_grows_takes_the_memory_from_the_records() {
    let limit = 8 << 20;
    let mut cache = cache(limit as u64);
    let (mut most_freed, mut before) = (0, 0);
    for number in 0..200_000_u32 {
        let key = [b"key of".as_slice(), &number.to_be_bytes()].concat();
        cache.put(&key, &[7; 10]);
        cache.get(&key);
        assert!(cache.held() <= limit, "{} of {limit} bytes", cache.held());
        most_freed = most_freed.max(before.max(cache.log.chunks()) - cache.log.chunks());
        before = cache.log.chunks();
    }
    assert!(most_freed <= 2, "one write has given up {most_freed} chunks");
    assert!(cache.held() > limit / 10 * 9);
}
