//! Access times that reads renew, and the writes that these leave behind.

use crate::error::Result;
use crate::key;
use crate::key_group::KeyGroup;
use crate::store::engine::Engine;
use crate::store::state_options::State;

use super::StateStore;

/// Renewed bytes at which a portion is handed over in changelog mode, unless a delta is smaller.
/// In native mode they are written then.
pub(super) const RENEWED_AT_ONCE: u64 = 1 << 20;

impl StateStore {
    /// Gives a value a new access time, because it was read. Reads see the new time at once. The
    /// next call that may write, at the latest [`StateStore::set_key`], writes it. If much has
    /// gathered for one key, this call hands it over, and waits for memory as a write does.
    pub(crate) fn renew(&self, state: State, group: KeyGroup, key: &[u8], value: Vec<u8>) {
        let mut encoded = Vec::with_capacity(key::PREFIX_LEN + key.len());
        key::encode_into(&mut encoded, group, state.id, key);
        if let Engine::Changelog(changelog) = &self.engine {
            // It would have the old time once the renewed value has gone to the table.
            changelog.forget(&encoded);
        }
        if self.renewals.insert(encoded, state.table, value) {
            self.hand_over();
        }
    }

    /// Hands over what reads have gathered, from a call that has the store shared.
    fn hand_over(&self) {
        match &self.engine {
            Engine::Changelog(changelog) => {
                let Some(delta) = self.renewals.portion(|key| changelog.touches(key)) else { return };
                let handed = |layer| self.renewals.handed(layer);
                // The next call reports a failure, because this one only reads.
                let _ = changelog.hand_over(delta, handed, || self.renewals.purge());
            }
            Engine::Native(native) => {
                for (key, (_, value)) in self.renewals.take_values() {
                    if let Err(error) = native.put(&key, &value) {
                        return self.shared.fail(error);
                    }
                }
            }
        }
    }

    /// Brings what reads have renewed to where writes go, and waits for memory as they do.
    #[inline]
    pub(in crate::store) fn write_renewals(&mut self) -> Result<()> {
        if self.renewals.is_empty() {
            return Ok(());
        }
        self.put_renewals(Engine::make_room)
    }

    /// As [`StateStore::write_renewals`], but never waits, because the values are in memory
    /// already.
    pub(super) fn write_renewals_at_once(&mut self) -> Result<()> {
        if self.renewals.is_empty() {
            return Ok(());
        }
        self.put_renewals(|engine| {
            engine.freeze_if_due();
            Ok(())
        })
    }

    fn put_renewals(&mut self, make_room: impl Fn(&mut Engine) -> Result<()>) -> Result<()> {
        let (handed, values) = self.renewals.take();
        match &mut self.engine {
            Engine::Changelog(changelog) => changelog.take_in(handed),
            Engine::Native(_) => debug_assert!(handed.is_empty(), "they are written, not handed over"),
        }
        for (key, (kind, value)) in values {
            make_room(&mut self.engine)?;
            self.engine.put(kind, &key, &value)?;
        }
        debug_assert!(self.renewals.is_empty(), "what reads have left behind comes before what follows");
        Ok(())
    }
}
