//! What other threads may read of the coordinator's work.

use std::collections::VecDeque;

use crate::job::members::Heard;
use crate::job::report::CheckpointSummary;
use crate::job::status::{Failures, Pending};
use crate::manifest::Chain;

/// State that other threads may read while the coordinator works.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// Checkpoints that can be restored, oldest first.
    pub(crate) retained: VecDeque<CheckpointSummary>,
    /// Whether the job still needs objects of the job that it was started from.
    pub(crate) dependent: bool,
    pub(crate) pending: Option<Pending>,
    pub(crate) failures: Failures,
    /// What members have told of themselves, in their order.
    pub(crate) heard: Vec<Heard>,
}

impl Progress {
    /// Brings the list of retained checkpoints up to date with the chain. Entries of earlier attempts whose
    /// manifests this attempt has not read are left out.
    pub(crate) fn follow(&mut self, chain: &Chain) {
        let retained = &mut self.retained;
        let entries = chain.entries();
        let oldest = entries.front().map_or(u64::MAX, |entry| entry.version().0);
        while retained.front().is_some_and(|summary| summary.version < oldest) {
            retained.pop_front();
        }
        let newest = retained.back().map_or(0, |summary| summary.version);
        let new = entries.partition_point(|entry| entry.version().0 <= newest);
        retained.extend(entries.range(new..).filter_map(|entry| {
            let (checkpoint, facts) = (entry.checkpoint, entry.facts?);
            let (id, version) = (checkpoint.id, checkpoint.version.0);
            Some(CheckpointSummary {
                id,
                version,
                unix_millis: facts.unix_millis,
                full_bytes: facts.full_bytes,
            })
        }));
    }
}
