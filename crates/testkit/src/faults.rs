//! The store whose faults a test decides.

use std::future::Future;

pub use alluvium::test_util::{
    Answer, Call, Conditions, Fault, FaultPolicy, FaultStore, Gate, Link, ListingEdit, Op,
};

/// Runs a future to its end on a thread of its own, so that it works inside a runtime as well.
pub fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        scope.spawn(move || runtime().block_on(future)).join().unwrap()
    })
}
