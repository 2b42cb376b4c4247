//! All tests that only need a process, in one program: each program links RocksDB, which takes longer than most of
//! them run. Tests that measure memory, time or threads, or break the disk, have a program of their own.

mod bad_input;
mod claim;
mod damaged_chain;
mod declared_types;
mod flights;
mod health;
mod i1_model;
#[path = "i1_state_model/main.rs"]
mod i1_state_model;
mod i2_fencing;
mod i3_gc;
mod i4_damage;
mod i5_bytes;
mod i8_restore;
mod i9_rescale;
mod job_0_1;
mod members;
mod operators;
mod pins;
mod reader;
mod reader_typed;
mod savepoints;
mod scans;
mod sessions;
mod state_flink;
mod states;
mod stopping;
mod timers;
mod top_routes;
mod triggers;
mod ttl;
