//! [`Direction`]: the order in which keys are visited.

/// Upwards from the least key, or downwards from the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}
