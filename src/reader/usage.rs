//! The size of each state of a checkpoint.

use crate::error::Result;
use crate::key;
use crate::store::{StateDescription, StateUsage};

use super::CheckpointReader;

impl CheckpointReader {
    /// What a state takes up, exactly: all of it is read, so all subtasks are fetched. What has
    /// expired counts as long as compaction has not removed it.
    ///
    /// # Errors
    /// As [`CheckpointReader::scan`].
    pub fn usage(&self, state: &str) -> Result<StateUsage> {
        let info = self.info(state)?;
        let (mut entries, mut bytes) = (0, 0);
        if self.keyed(state).is_err() {
            let items = self.items_of(info.id)?;
            let bytes = items.iter().map(|item| item.len() as u64).sum();
            let (state, entries) = (StateDescription::from(info.clone()), Some(items.len() as u64));
            return Ok(StateUsage { state, registered: None, entries, bytes });
        }
        for entry in self.scan(state, b"")? {
            let (_, key, value) = entry?;
            entries += 1;
            bytes += (key::PREFIX_LEN + key.len() + value.len()) as u64;
        }
        let state = StateDescription::from(info.clone());
        Ok(StateUsage { state, registered: None, entries: Some(entries), bytes })
    }
}
