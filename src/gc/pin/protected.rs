//! What savepoints and pins keep alive, as a collector lists it.

use std::collections::BTreeSet;

use super::listing::{find, names};
use super::record::Holder;
use crate::error::Result;
use crate::gc::savepoint_lookup;
use crate::ids::{Epoch, Version};
use crate::remote::{ObjectName, Remote, SavepointName};

/// The versions that savepoints and pins keep alive.
#[derive(Debug, Default)]
pub(in crate::gc) struct Protected {
    pub(in crate::gc) versions: BTreeSet<Version>,
    /// Pins of fenced attempts and released savepoints, which keep nothing.
    pub(in crate::gc) stale: BTreeSet<ObjectName>,
    /// Pins of attempts that were fenced while they made a savepoint. They keep their checkpoints until it is known
    /// whether the savepoint exists.
    pub(in crate::gc) unfinished: Vec<(ObjectName, SavepointName)>,
    seen: BTreeSet<ObjectName>,
}

/// Lists pins, savepoints, and pins again. A savepoint that is made under a pin exists before the pin
/// goes, and a pin that takes over from a savepoint exists before the savepoint goes. Any two of the three
/// listings would miss one or the other, as the exploration in `manifest::model_check` shows. `epoch` is the
/// newest attempt that the collector knows of.
///
/// # Errors
/// `Corrupt` if a pin or savepoint cannot be read, because the checkpoint that it keeps is not known.
pub(in crate::gc) async fn list_protected(remote: &Remote, epoch: Epoch) -> Result<Protected> {
    let mut protected = Protected::default();
    protected.add_pins(remote, epoch).await?;
    let savepoints = savepoint_lookup::look(remote).await?;
    protected.versions.extend(savepoints.there.iter().map(|(_, record)| record.checkpoint.version));
    protected.stale.extend(savepoints.stale);
    protected.add_pins(remote, epoch).await?;
    Ok(protected)
}

impl Protected {
    async fn add_pins(&mut self, remote: &Remote, epoch: Epoch) -> Result<()> {
        for name in names(remote).await? {
            if self.seen.contains(&name) {
                continue;
            }
            let Some((version, holder)) = find(remote, &name).await? else { continue };
            self.seen.insert(name.clone());
            match holder {
                Holder::Attempt(owner) if owner < epoch => {
                    self.stale.insert(name);
                    continue;
                }
                Holder::Saving(owner, savepoint) if owner < epoch => self.unfinished.push((name, savepoint)),
                Holder::Reader | Holder::Attempt(_) | Holder::Saving(..) | Holder::Other(..) => {}
            }
            self.versions.insert(version);
        }
        Ok(())
    }
}
