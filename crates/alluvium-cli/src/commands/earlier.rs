//! What an earlier `alluvium load` has left in a job, looked at before anything is written there.

use alluvium::admin::{InspectedCheckpoint, InspectedRecord, Inspection};
use alluvium::{CheckpointId, RestoreFrom};

use crate::commands::job_args::none_such;
use crate::failure::{Failure, Result};
use crate::harness::job::mode_of;
use crate::harness::workload::Workload;
use crate::location::Location;
use crate::result::Mode;

/// A checkpoint of `alluvium load`.
#[derive(Debug)]
pub(crate) struct EarlierRun {
    pub(crate) checkpoint: CheckpointId,
    pub(crate) mode: Mode,
    pub(crate) workload: Workload,
    /// Whether a version above it cannot be read: a job goes on from it only if that is allowed.
    pub(crate) past_damage: bool,
}

impl EarlierRun {
    /// The checkpoint that `from` names. Where it is damaged, the newest one before it that is intact, if
    /// `fallback` allows that.
    ///
    /// # Errors
    /// If there is none that a run can go on from. The job is as it was.
    pub(crate) fn find(location: Location<'_>, from: &RestoreFrom, fallback: bool) -> Result<Self> {
        let inspection = location.ask(alluvium::admin::inspect)?;
        let checkpoint = choose(&inspection, from, fallback)?;
        let workload = workload(&checkpoint.metadata)?;
        let version = version_of(&inspection, checkpoint.id);
        let past_damage = inspection.damaged_versions.iter().any(|(damaged, _)| *damaged > version);
        Ok(Self { checkpoint: checkpoint.id, mode: mode_of(checkpoint.mode), workload, past_damage })
    }
}

fn choose<'i>(
    inspection: &'i Inspection,
    from: &RestoreFrom,
    fallback: bool,
) -> Result<&'i InspectedCheckpoint> {
    let retained = || {
        let checkpoints = inspection.records.iter().filter_map(|record| record.checkpoint.as_ref());
        checkpoints.filter(|checkpoint| checkpoint.retained)
    };
    let wanted = match from {
        RestoreFrom::Latest => retained().next_back(),
        RestoreFrom::Checkpoint(id) => retained().find(|checkpoint| checkpoint.id == *id),
        RestoreFrom::Savepoint(name) => {
            let savepoint = inspection.savepoints.iter().find(|savepoint| savepoint.name == *name);
            let savepoint = savepoint.ok_or_else(|| {
                let names: Vec<_> =
                    inspection.savepoints.iter().map(|savepoint| savepoint.name.as_str()).collect();
                none_such(&format!("savepoint {name}"), "savepoints", &names)
            })?;
            let kept = |record: &&InspectedRecord| record.version == savepoint.version;
            inspection.records.iter().find(kept).and_then(|record| record.checkpoint.as_ref())
        }
    };
    let Some(wanted) = wanted else {
        let ids: Vec<_> = retained().map(|checkpoint| checkpoint.id.to_string()).collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        return Err(match from {
            RestoreFrom::Latest => Failure::new("the job has no checkpoint: there is nothing to restore or to resume")
                .hint("a run that ended before its first checkpoint has left nothing: remove it, or choose another URL"),
            RestoreFrom::Checkpoint(id) => {
                none_such(&format!("checkpoint {id}"), "retained checkpoints", &ids)
            }
            RestoreFrom::Savepoint(name) => {
                Failure::new(format!("the checkpoint of savepoint {name} is gone"))
            }
        });
    };
    let newest = *from == RestoreFrom::Latest;
    // A version above it that can't be read may be a newer checkpoint.
    let version = version_of(inspection, wanted.id);
    let above = inspection.damaged_versions.iter().rfind(|(damaged, _)| newest && *damaged > version);
    let problem = above.map(|(_, problem)| problem).or(wanted.damage.first());
    let Some(problem) = problem else { return Ok(wanted) };
    let intact = retained()
        .rfind(|checkpoint| checkpoint.damage.is_empty() && checkpoint.unix_millis <= wanted.unix_millis);
    match intact {
        Some(intact) if fallback => Ok(intact),
        Some(intact) => Err(Failure::new(format!("the checkpoint is damaged: {problem}"))
            .hint(&format!("--fallback goes back to {}, the newest intact one", intact.id))),
        None => {
            Err(Failure::new(format!("the checkpoint is damaged, and no older one is intact: {problem}")))
        }
    }
}

fn version_of(inspection: &Inspection, id: CheckpointId) -> u64 {
    let mut records = inspection.records.iter();
    let is =
        |record: &&InspectedRecord| record.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.id == id);
    records.find(is).map_or(0, |record| record.version)
}

/// The workload that rides in a checkpoint.
pub(crate) fn workload(metadata: &[u8]) -> Result<Workload> {
    serde_json::from_slice(metadata).map_err(|_| {
        Failure::new("the checkpoint was not written by `alluvium load`: its metadata is not a workload")
            .hint("the job was left as it is")
    })
}
