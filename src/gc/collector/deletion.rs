//! Carries out a plan, against a store that may refuse.

use super::{Collector, GcReport, report};
use crate::error::Result;
use crate::gc::confirmed::Confirmed;
use crate::gc::plan::GcPlan;
use crate::gc::savepoint;
use crate::manifest::RecordKind;
use crate::remote::{ObjectName, Refused, Remote, SavepointName};

impl Collector {
    pub(super) async fn execute(
        &mut self,
        remote: &Remote,
        confirmed: Confirmed,
        plan: GcPlan,
    ) -> Result<GcReport> {
        // Open records fence attempts that have slept, for however long (I2).
        let checkpoint = |name: &ObjectName| match name {
            ObjectName::Manifest(version) => self.kinds.get(version) == Some(&RecordKind::Checkpoint),
            _ => false,
        };
        assert!(plan.manifests.iter().all(checkpoint), "I2: only checkpoints are deleted");
        let report = report(&plan);
        // Manifests first. A crash in between leaves data that no manifest names, and the next sweep
        // takes it. In the other order a manifest would be left whose objects are gone, and a reader
        // would take it for a damaged checkpoint.
        for names in [plan.manifests, plan.data] {
            if let Some(refused) = self.delete(remote, &confirmed, &names).await? {
                return Ok(GcReport { refused, foreign: report.foreign, ..GcReport::default() });
            }
            // Forgotten only now: whatever the store has not confirmed is asked for again.
            for name in names {
                self.dead.remove(&name);
                if let ObjectName::Manifest(version) = name {
                    self.kinds.remove(&version);
                }
            }
        }
        Ok(report)
    }

    /// Deletes objects. Returns how many the store refuses to delete, if any.
    async fn delete(
        &mut self,
        remote: &Remote,
        confirmed: &Confirmed,
        names: &[ObjectName],
    ) -> Result<Option<usize>> {
        if names.is_empty() {
            return Ok(None);
        }
        // While the store refuses, one request is enough to see whether that has changed.
        let first = if self.refused > 0 { &names[..1] } else { names };
        let mut refused = remote.delete_collected(confirmed, first.to_vec()).await?;
        if refused.is_none() && first.len() < names.len() {
            refused = remote.delete_collected(confirmed, names.to_vec()).await?;
        }
        let Some(refused) = refused else {
            self.refused = 0;
            return Ok(None);
        };
        let count = if first.len() < names.len() { names.len() } else { refused.count };
        self.say_refused(count, &refused);
        Ok(Some(count))
    }

    /// Warns once that objects cannot be deleted, and again when they have become twice as many.
    fn say_refused(&mut self, count: usize, refused: &Refused) {
        if count < self.refused.saturating_mul(2).max(1) {
            return;
        }
        let Refused { example, error, .. } = refused;
        tracing::warn!(
            objects = count, %example, kind = %error.kind(),
            "the store refuses to delete what is no longer needed; it stays, and costs its space",
        );
        tracing::debug!(%error, "the refusal");
        self.refused = count;
    }
}

/// Removes the pins of attempts that were fenced while they made a savepoint. Objects that only these pins kept go with
/// the next collection.
pub(super) async fn settle(remote: &Remote, unfinished: Vec<(ObjectName, SavepointName)>) {
    for (pin, name) in unfinished {
        let settled = async {
            savepoint::settle(remote, &name).await?;
            remote.withdraw(vec![pin.clone()]).await
        };
        if let Err(error) = settled.await {
            tracing::warn!(%error, %pin, savepoint = %name, "the pin of a savepoint that was not finished stays behind");
        }
    }
}
