//! Ctrl-C and SIGTERM end a run early, with its result; a second one ends the program at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::{Result, io};

/// Exit code after a second signal, as shells have it for Ctrl-C.
const KILLED: i32 = 130;

/// A flag that the signals set.
pub(crate) fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first one finds the flag not set yet.
        flag::register_conditional_shutdown(signal, KILLED, Arc::clone(&flag))
            .and_then(|_| flag::register(signal, Arc::clone(&flag)))
            .map_err(io("listen to signals"))?;
    }
    Ok(flag)
}
