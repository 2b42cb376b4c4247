//! [`CheckpointScan`]: a state of a checkpoint in order.

use crate::error::Result;
use crate::ids::StateId;
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange};
use crate::table::OwnedCursor;

use super::CheckpointReader;

/// Key group, key and value.
type Entry = (KeyGroup, Vec<u8>, Vec<u8>);

/// An iterator over key group, key and value of a state: ascending by group, and within a group by
/// the bytes of the key. Subtasks are fetched when the scan comes to them.
#[derive(Debug)]
pub struct CheckpointScan<'a> {
    reader: &'a CheckpointReader,
    state: StateId,
    prefix: Vec<u8>,
    groups: std::ops::Range<u16>,
    at: Option<(KeyGroup, OwnedCursor)>,
}

impl<'a> CheckpointScan<'a> {
    pub(super) fn new(
        reader: &'a CheckpointReader,
        state: StateId,
        groups: KeyGroupRange,
        prefix: &[u8],
    ) -> Self {
        // Groups end below 32,768, so one more fits.
        let groups = groups.first.0..groups.last.0 + 1;
        Self { reader, state, prefix: prefix.to_vec(), groups, at: None }
    }

    fn step(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some((group, cursor)) = &mut self.at
                && let Some((key, value)) = cursor.entry()
            {
                let entry = (*group, key::user_key(key).to_vec(), value.to_vec());
                cursor.advance()?;
                return Ok(Some(entry));
            }
            let Some(group) = self.groups.next().map(KeyGroup) else {
                self.at = None;
                return Ok(None);
            };
            let mut start = Vec::new();
            key::encode_into(&mut start, group, self.state, &self.prefix);
            // Key groups stay below 32,768, so there always is a key above.
            let end = key::successor(&start).unwrap_or_else(|| vec![0xff]);
            let (cursor, _) = OwnedCursor::new(self.reader.table(group)?, &start, &end)?;
            self.at = Some((group, cursor));
        }
    }
}

impl Iterator for CheckpointScan<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            // What failed once is not passed over.
            self.groups = 0..0;
            self.at = None;
        }
        step.transpose()
    }
}
