//! The share of the memory that a cache has before it needs it.
//!
//! Memory that RocksDB has filled with blocks and gives up again is lost for a while: the blocks lie
//! between others, and few allocators find larger pieces there. So a cache has its share from the
//! beginning, and gives it away only after much was written to states that are not read.

/// Bytes written without a state that is worth caching after which the share goes to others, in
/// shares.
const PATIENCE: usize = 4;

/// What is left of a share.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reserve {
    left: usize,
    /// Bytes to be written until it is given away.
    patience: usize,
}

impl Reserve {
    pub(super) fn new(share: usize) -> Self {
        Self { left: share, patience: share.saturating_mul(PATIENCE) }
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Takes bytes out of it. Returns how many more are needed.
    pub(super) fn take(&mut self, bytes: usize) -> usize {
        let taken = bytes.min(self.left);
        self.left -= taken;
        bytes - taken
    }

    /// So many bytes were written and no state is cached. Returns what is given away.
    #[inline]
    pub(super) fn unused(&mut self, written: usize) -> usize {
        self.patience = self.patience.saturating_sub(written);
        if self.patience > 0 {
            return 0;
        }
        std::mem::take(&mut self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_used_first_and_given_away_once() {
        let mut reserve = Reserve::new(100);
        assert_eq!((reserve.take(60), reserve.left()), (0, 40));
        assert_eq!((reserve.take(60), reserve.left()), (20, 0));
        let mut reserve = Reserve::new(100);
        assert_eq!((reserve.unused(399), reserve.left()), (0, 100));
        assert_eq!((reserve.unused(1), reserve.left()), (100, 0));
        assert_eq!((reserve.unused(1), reserve.take(5)), (0, 5));
        assert_eq!(Reserve::default().unused(7), 0);
    }
}
