//! [`Direction`]: in which direction keys are walked.

/// Up from the least key, or down from the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}
