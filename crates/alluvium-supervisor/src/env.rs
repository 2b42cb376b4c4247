//! Time and randomness: the only module that reads the clock or the random device.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// The time since a supervisor began.
#[derive(Debug)]
pub(crate) struct Clock(Instant);

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Duration {
        Instant::now().duration_since(self.0)
    }
}

/// Random bytes that nobody can guess.
#[expect(clippy::disallowed_methods, reason = "the one place that draws randomness")]
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::system("draw random bytes", error))?;
    Ok(bytes)
}
