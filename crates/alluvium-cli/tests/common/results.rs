//! Made-up results of runs, for tests of the report. Nothing in here was measured: the figures follow
//! from a seed, and are only shaped like those of a run.

use serde_json::{Value, json};

/// Length of the measured stretch in seconds.
pub(crate) const SECONDS: usize = 120;

struct Random(u64);

impl Random {
    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Mostly near `middle`, seldom far above it.
    fn skewed(&mut self, middle: f64, tail: f64) -> f64 {
        let sum: f64 = (0..4).map(|_| self.unit()).sum::<f64>() - 2.0;
        middle * (sum * tail).exp()
    }
}

fn percentiles(values: impl IntoIterator<Item = f64>) -> Value {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = |q: f64| values[((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1];
    let max = values[values.len() - 1];
    json!({"n": values.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": max})
}

/// How the memory is divided at a time: the cache of records fills, and with it RocksDB's share shrinks.
fn memory(changelog: bool, t: f64, compacting: bool) -> Value {
    let memtables = if compacting { 20_000_000 } else { 40_000_000 };
    if !changelog {
        return json!({"records": 0, "deltas": 0, "recycled": 0, "memtables": memtables, "blocks": 420_000_000});
    }
    let records = (60e6 + t * 9e6).min(300e6) as u64;
    json!({
        "records": records, "deltas": 9_000_000, "recycled": 4_000_000,
        "memtables": memtables, "blocks": 440_000_000 - records,
    })
}

/// A result of one mode (`changelog`, `native`, `none`), paced or at full speed.
pub(crate) fn result(mode: &str, rate: u64, repeat: u32) -> Value {
    let native = mode == "native";
    let mut random = Random(u64::from(repeat) * 1000 + mode.len() as u64);
    let speed = match (rate, mode) {
        (0, "changelog") => 231_000.0,
        (0, "native") => 158_000.0,
        (0, _) => 243_000.0,
        (rate, _) => rate as f64,
    };
    // Compactions come and go; native checkpoints upload what they rewrote.
    let compacting = |t: f64| (t / 9.0).fract() < if native { 0.28 } else { 0.2 };
    let materializing =
        |t: f64| mode == "changelog" && ((31.0..39.5).contains(&t) || (91.0..99.0).contains(&t));

    let mut series = Vec::new();
    if mode != "none" {
        for second in 0..SECONDS {
            let t = second as f64 + 0.4 + random.unit() * 0.02;
            let (ms, bytes) = match (native, compacting(t)) {
                (false, _) => (random.skewed(41.0, 0.22), random.skewed(2.1e5, 0.1)),
                (true, false) => (random.skewed(240.0, 0.25), random.skewed(9e6, 0.2)),
                (true, true) => (random.skewed(820.0, 0.5), random.skewed(4.4e7, 0.4)),
            };
            let floor = 30.0 + bytes / 50e6 * 1e3;
            series.push(json!({
                "start_s": t, "duration_ms": ms.max(floor), "bytes": bytes as u64, "puts": if native { 7 } else { 1 },
                "floor_ms": floor, "beside_rewriting": compacting(t) || materializing(t),
            }));
        }
    }
    let of = |field: &'static str| series.iter().filter_map(move |point| point[field].as_f64());

    let mut samples = Vec::new();
    for step in 1..=SECONDS * 4 {
        let t = step as f64 / 4.0;
        let slow = if compacting(t) { 2.4 } else { 1.0 };
        let rate_now = if rate == 0 {
            random.skewed(speed, 0.1) / (0.8 + 0.2 * slow)
        } else {
            random.skewed(speed, 0.004)
        };
        let cut = native && step % 4 == 2;
        samples.push(json!({
            "t_s": t,
            "records": (speed * t) as u64,
            "records_per_s": rate_now,
            "latency_p99_ms": random.skewed(if cut { 46.0 } else { 0.9 }, 0.3) * slow,
            "durable_lag_ms": (t.fract() * 1e3 + if native { 320.0 * slow } else { 60.0 }) % 1900.0,
            "state_bytes": 410_000_000_u64 + (t * 6e5) as u64,
            "held_bytes": if native { 0 } else { 9_000_000 },
            "l0_files": ((t / 9.0).fract() * 7.0) as u64,
            "pending_compaction_bytes": (random.skewed(3.0e7, 0.1) * (t / 9.0).fract()) as u64,
            "running_compactions": u64::from(compacting(t)),
            "put_bytes": (t * if native { 1.9e7 } else { 5.1e6 }) as u64,
            "memory": memory(mode == "changelog", t, compacting(t)),
        }));
    }
    let lag = samples.iter().filter_map(|sample| sample["durable_lag_ms"].as_f64());
    let mut result = json!({
        "schema_version": 1,
        "started_at": "2026-11-24T06:12:00Z",
        "system": "alluvium",
        "version": "0.1.0",
        "mode": mode,
        "workload": {
            "keys": 2_000_000, "value_bytes": 100, "subtasks": 2, "max_parallelism": 128,
            "operation": "read-modify-write", "distribution": "uniform", "seed": 0,
        },
        "settings": {
            "rate": rate, "duration_s": SECONDS, "warm_up_s": 10, "memory_bytes": 512_000_000,
        },
        "machine": {"cores": 2, "memory": 25_200_000_000_u64, "load_average_before": 0.08},
        "options": {
            "write_buffer_size": if native { "67108864" } else { "33554432" },
            "max_background_jobs": "2", "compression": "kLZ4Compression", "level0_file_num_compaction_trigger": "4",
        },
        "load": {"records": 2_000_000, "load_s": 11.2, "records_per_s": 178_571.4},
        "measured_s": SECONDS as f64 + 0.7,
        "drain_s": 0.7,
        "records": (speed * SECONDS as f64) as u64,
        "records_per_s": speed * SECONDS as f64 / (SECONDS as f64 + 0.7),
        "cpu_s_per_million_records": random.skewed(if native { 9.1 } else { 6.3 }, 0.03),
        "rss_peak_bytes": 791_000_000,
        "local_write_bytes": 3_100_000_000_u64,
        "operator_pause_ms": percentiles((0..SECONDS * 2).map(|_| random.skewed(if native { 38.0 } else { 1.1 }, 0.4))),
        "record_latency_ms": percentiles((0..999).map(|_| random.skewed(if native { 1.9 } else { 0.4 }, 1.1))),
        "compaction_debt": {
            "start": {"pending_bytes": 0, "l0_files": 2, "live_sst_bytes": 405_000_000},
            "last_record": {"pending_bytes": 24_000_000, "l0_files": 5, "live_sst_bytes": 470_000_000},
            "end": {"pending_bytes": 0, "l0_files": 1, "live_sst_bytes": 468_000_000},
        },
        "memory": {"peak": memory(mode == "changelog", 60.0, false), "end": memory(mode == "changelog", 120.0, true)},
        "samples": samples.clone(),
    });
    if mode == "changelog" {
        result["record_cache"] = json!({
            "hits": 19_400_000, "misses": 600_000, "hit_rate": 0.97, "evictions": 41_000,
            "entries": 1_900_000, "bytes": 290_000_000, "limit_bytes": 200_000_000,
        });
    }
    if mode == "none" {
        return result;
    }
    let settings = &mut result["settings"];
    settings["checkpoint_interval_ms"] = json!(1000);
    settings["store"] = json!("file");
    result["store_model"] =
        json!({"latency_ms": 30, "stream_bytes_per_s": 50e6, "shared_bytes_per_s": 100e6});
    result["durable_lag_ms"] = percentiles(lag);
    result["checkpoints"] = json!({
        "n": series.len(), "failed": 0,
        "duration_ms": percentiles(of("duration_ms")),
        "floor_ms": percentiles(of("floor_ms")),
        "cut_ms": percentiles((0..SECONDS * 2).map(|_| random.skewed(if native { 36.0 } else { 0.06 }, 0.3))),
        "bytes": percentiles(of("bytes")),
        "puts_per_checkpoint": if native { 7.2 } else { 1.0 },
    });
    let bytes: f64 = of("bytes").sum();
    result["store"] = json!({
        "put_bytes": bytes as u64 + if native { 0 } else { 530_000_000 },
        "puts": if native { 860 } else { 190 }, "gets": 0, "deletes": if native { 700 } else { 40 }, "lists": 6,
        "live_bytes_end": 484_000_000, "live_bytes_peak": if native { 730_000_000 } else { 960_000_000 },
    });
    result["restore"] = json!({
        "total_ms": if native { 4980 } else { 5610 }, "first_record_ms": if native { 5010 } else { 5650 },
        "download_ms": if native { 4820 } else { 4790 }, "open_ms": 110, "replay_ms": if native { 0 } else { 640 },
        "bytes": 478_000_000, "objects": if native { 41 } else { 58 }, "new_process": true, "page_cache_warm": true,
        "keys": 2_000_000, "missing_keys": 0, "wrong_keys": 0, "extra_keys": 0,
    });
    if mode == "changelog" {
        result["settings"]["materialization_interval_ms"] = json!(60_000);
        result["materializations"] = json!([
            {"start_s": 31.0, "end_s": 39.5, "bytes": 262_000_000, "files": 9},
            {"start_s": 91.0, "end_s": 99.0, "bytes": 268_000_000, "files": 10},
        ]);
    }
    result["checkpoint_series"] = Value::Array(series);
    if repeat > 0 {
        result["repeat"] = json!(repeat);
    }
    result
}
