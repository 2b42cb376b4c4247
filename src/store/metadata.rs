//! The limits on a checkpoint's metadata and on state that is not keyed. All of it lies in the
//! manifest, which every restore and many commands read as a whole.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Longest metadata of one cut or of a trigger.
const LONGEST: usize = 1 << 20;
/// Of all subtasks of a checkpoint together.
const TOGETHER: u64 = 16 << 20;

/// Bytes of metadata of the last cuts of all stores of an attempt.
#[derive(Debug, Default)]
pub(crate) struct Total(AtomicU64);

impl Total {
    /// A subtask replaces metadata of `old` bytes by `new` ones, unless that is too long. Subtasks
    /// that do so at the same moment may both be refused where one would have fit.
    pub(crate) fn replace(&self, old: usize, new: usize) -> Result<()> {
        let [old, new_len] = [old, new].map(|len| len as u64);
        let others = self.0.fetch_add(new_len, Ordering::Relaxed).saturating_sub(old);
        check(new, others).inspect_err(|_| _ = self.0.fetch_sub(new_len, Ordering::Relaxed))?;
        self.0.fetch_sub(old, Ordering::Relaxed);
        Ok(())
    }
}

/// Bytes of state that is not keyed at the last cuts of all stores of an attempt, as checkpoints have
/// them. Each store bounds its own.
#[derive(Debug, Default)]
pub(crate) struct ElementsTotal(AtomicU64);

impl ElementsTotal {
    /// A subtask replaces `old` bytes by `new` ones, unless they would be too many.
    pub(crate) fn replace(&self, old: u64, new: u64) -> Result<()> {
        let Some(more) = new.checked_sub(old) else {
            self.0.fetch_sub(old - new, Ordering::Relaxed);
            return Ok(());
        };
        // Only what is new is added, so that cuts at the same moment do not count the rest twice.
        let sum = self.0.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if more > 0 && sum > TOGETHER {
            self.0.fetch_sub(more, Ordering::Relaxed);
            return Err(Error::invalid(format!(
                "state that is not keyed has {sum} bytes in all subtasks together"
            ))
            .advise(format!(
                "together it may have up to {TOGETHER} bytes, because each checkpoint has it whole"
            )));
        }
        Ok(())
    }
}

/// Whether metadata of `len` bytes may stand beside `others` bytes in one manifest.
pub(crate) fn check(len: usize, others: u64) -> Result<()> {
    if len > LONGEST {
        return Err(Error::invalid(format!("metadata of {len} bytes is too long"))
            .advise(format!("a cut or trigger may carry up to {LONGEST} bytes; keep more in a state")));
    }
    let sum = others.saturating_add(len as u64);
    if sum > TOGETHER {
        return Err(Error::invalid(format!("metadata of {len} bytes makes {sum} of all subtasks together"))
            .advise(format!("together they may carry up to {TOGETHER} bytes; keep more in a state")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_that_is_not_keyed_is_bounded_over_all_subtasks() {
        let total = ElementsTotal::default();
        total.replace(0, TOGETHER).unwrap();
        let error = total.replace(0, 1).unwrap_err().to_string();
        assert!(error.contains("16777217 bytes"), "{error}");
        total.replace(TOGETHER, TOGETHER - 1).unwrap();
        total.replace(0, 1).unwrap();
        assert_eq!(total.0.load(Ordering::Relaxed), TOGETHER);
        assert!(total.replace(1, 2).is_err());
        assert_eq!(total.0.load(Ordering::Relaxed), TOGETHER, "what is refused counts for nothing");
    }

    #[test]
    fn each_and_all_together_are_bounded() {
        let total = Total::default();
        assert!(total.replace(0, LONGEST + 1).unwrap_err().to_string().contains("1048577"));
        for _ in 0..16 {
            total.replace(0, LONGEST).unwrap();
        }
        let error = total.replace(0, 1).unwrap_err().to_string();
        assert!(error.contains("16777217 of all subtasks"), "{error}");
        // A later cut of one of them replaces what it gave before.
        total.replace(LONGEST, LONGEST).unwrap();
        total.replace(LONGEST, 7).unwrap();
        total.replace(0, LONGEST - 7).unwrap();
        assert_eq!(total.0.load(Ordering::Relaxed), TOGETHER);
        assert!(total.replace(7, 8).is_err());
        assert_eq!(total.0.load(Ordering::Relaxed), TOGETHER, "what is refused counts for nothing");
    }
}
