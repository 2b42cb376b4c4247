//! The parts of a run: load, warm-up, the measured stretch, a steady one.

use std::time::Duration;

/// A part of a run with its own figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stage {
    pub(crate) kind: StageKind,
    /// Records per second of all subtasks together; None: as fast as it goes.
    pub(crate) rate: Option<f64>,
    /// None: until every key has been written once.
    pub(crate) duration: Option<Duration>,
    /// Whether the stage ends with a checkpoint and with all deferred work done.
    pub(crate) settle: bool,
    /// Whether a new base is asked for halfway.
    pub(crate) materialize: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StageKind {
    Load,
    WarmUp,
    Measured,
    /// Slow and steady, to see what a checkpoint costs apart from the load (I5).
    Steady,
}

impl StageKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::WarmUp => "warm-up",
            Self::Measured => "measured",
            Self::Steady => "steady",
        }
    }
}
