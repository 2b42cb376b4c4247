//! Whether an operator cuts its active delta ahead of a barrier, because at the barrier the delta
//! would be too large for the manifest. A pure decision.
//!
//! The job asks several times before a barrier, each time when half of the time since the last
//! request is left (`crate::job`'s `early_cuts`). What was written since the last request will
//! therefore be written once more until the barrier.

/// What is left at the barrier if nothing travels in the manifest. The barrier then has an upload of its
/// own in any case, which takes as long for nothing as for this much.
const LITTLE: usize = 64 << 10;

/// What an operator knows of the job's requests for early cuts.
#[derive(Debug, Default)]
pub(super) struct EarlyCuts {
    /// The last request that was heeded.
    request: u64,
    /// Bytes of the active delta at that request. None if the delta is newer than the request.
    bytes: Option<usize>,
}

impl EarlyCuts {
    /// Whether `request` has been heeded already. Asked before each write.
    #[inline]
    pub(super) fn knows(&self, request: u64) -> bool {
        self.request == request
    }

    /// Heeds a request: whether to cut the active delta of this many `bytes` now, so that at most
    /// about `limit` bytes, which travel in the manifest, are left at the barrier.
    pub(super) fn heed(&mut self, request: u64, bytes: usize, limit: usize) -> bool {
        // Before the first request nothing is known of the rate.
        let written_since = self.bytes.map_or(0, |before| bytes.saturating_sub(before));
        let limit = if limit == 0 { LITTLE } else { limit };
        let cut = bytes.saturating_add(written_since) > limit;
        self.request = request;
        self.bytes = Some(if cut { 0 } else { bytes });
        cut
    }

    /// The active delta was cut for another reason, and the next one is empty. That does for a
    /// `request` that no write has seen yet. Heeded later, ahead of no barrier, it would count all
    /// bytes up to the next request as written in the short time between two.
    pub(super) fn was_cut(&mut self, request: u64) {
        self.request = request;
        self.bytes = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 256;

    /// The bytes that are left at the barrier of an operator that writes `rate` bytes in a
    /// millisecond, and how often it cuts, if it is asked at `leads` milliseconds before.
    fn left(rate: usize, leads: &[usize]) -> (usize, usize) {
        let mut early = EarlyCuts::default();
        let (mut bytes, mut cuts, mut now) = (0, 0, 1000);
        for (request, lead) in leads.iter().enumerate() {
            bytes += rate * (now - lead);
            now = *lead;
            assert!(!early.knows(request as u64 + 1));
            if early.heed(request as u64 + 1, bytes, LIMIT) {
                (bytes, cuts) = (0, cuts + 1);
            }
            assert!(early.knows(request as u64 + 1));
        }
        (bytes + rate * now, cuts)
    }

    #[test]
    fn no_more_is_left_than_the_manifest_takes() {
        // A request too late for this load used to leave 300 bytes at the barrier.
        assert_eq!(left(3, &[100, 50, 25]), (150, 2));
        assert_eq!(left(2, &[100, 50, 25]), (200, 1), "what fits costs no upload of its own");
        assert_eq!(left(5, &[200, 100, 50]), (250, 3));
        for rate in 1..=10 {
            let (left, _) = left(rate, &[100, 50, 25]);
            assert!(left <= LIMIT, "{left} bytes are left at {rate}/ms");
        }
    }

    #[test]
    fn a_little_that_has_gathered_slowly_is_left_alone() {
        let mut early = EarlyCuts::default();
        assert!(!early.heed(1, 200, LIMIT) && !early.heed(2, 210, LIMIT) && !early.heed(3, 215, LIMIT));
        assert!(early.heed(4, 240, LIMIT), "it grows fast now");
    }

    #[test]
    fn where_nothing_travels_in_the_manifest_a_little_is_left_alone() {
        let mut early = EarlyCuts::default();
        assert!(!early.heed(1, 1_000, 0) && !early.heed(2, 30_000, 0), "each cut would be an upload");
        assert!(early.heed(3, 60_000, 0));
    }

    #[test]
    fn another_cut_says_nothing_of_the_rate() {
        let mut early = EarlyCuts::default();
        assert!(early.heed(1, 300, LIMIT));
        early.was_cut(1);
        assert!(!early.heed(2, 200, LIMIT), "it may have taken any time to write them");
        assert!(early.heed(3, 260, LIMIT));
    }

    #[test]
    fn a_cut_for_a_barrier_does_for_the_requests_ahead_of_it() {
        let mut early = EarlyCuts::default();
        assert!(!early.heed(1, 10, LIMIT));
        // An operator that has not written since request 2 comes to the barrier.
        early.was_cut(3);
        assert!(early.knows(3), "the first write after the barrier has nothing to cut");
        assert!(!early.heed(4, 200, LIMIT), "all of it fits, as nearly all of it was there long ago");
    }
}
