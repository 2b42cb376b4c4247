//! What a collector learns from earlier sweeps, and writes down for later ones.

use std::collections::BTreeSet;

use super::Collector;
use crate::error::Result;
use crate::gc::open_records;
use crate::ids::{Epoch, Version};
use crate::manifest::RecordKind;
use crate::remote::{ObjectName, Remote};

impl Collector {
    /// Learns what earlier sweeps have found out, and forgets what is there no more.
    pub(super) async fn recall(&mut self, remote: &Remote, epoch: Epoch, listing: &[String]) -> Result<()> {
        let names: BTreeSet<_> = listing.iter().filter_map(|name| ObjectName::parse(name)).collect();
        self.kinds.retain(|version, _| names.contains(&ObjectName::manifest(*version)));
        self.damaged.retain(|version| names.contains(&ObjectName::manifest(*version)));
        // Its own, which the listing may be too old to show.
        self.kinds.insert(Version(epoch.0), RecordKind::Open);
        let newest = names.iter().rev().find_map(|name| match name {
            ObjectName::Opened(epoch) => Some(*epoch),
            _ => None,
        });
        if let Some(newest) = newest.filter(|newest| self.opened.written.is_none_or(|known| known < *newest))
        {
            let name = ObjectName::Opened(newest);
            match remote.get_optional(&name).await?.map(|bytes| open_records::decode(&bytes)).transpose() {
                Ok(Some(versions)) => self.opened.read(newest, versions),
                // A newer one is there by now.
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, %name, "open records are looked at one by one"),
            }
        }
        let opened = self.opened.versions.iter();
        self.kinds.extend(opened.map(|version| (*version, RecordKind::Open)));
        Ok(())
    }

    /// Writes down what is worth it. Without it, the next attempt looks for itself.
    pub(super) async fn remember(&mut self, remote: &Remote, epoch: Epoch) {
        let opened = self.kinds.iter().filter(|(_, kind)| **kind == RecordKind::Open);
        self.opened.versions.extend(opened.map(|(version, _)| *version));
        if !self.opened.worth_writing(epoch) {
            return;
        }
        let written = async {
            let bytes = open_records::encode(&self.opened.versions)?;
            remote.put_data(&ObjectName::Opened(epoch), bytes).await
        };
        match written.await {
            Ok(()) => self.opened.wrote(epoch),
            Err(error) => tracing::debug!(%error, "what is known of open records was not written"),
        }
    }
}
