//! What a restore has to fetch: a pure function of the checkpoint's record and the wanted ranges.

#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DeltaSeq, SubtaskIndex};
use crate::key_group::KeyGroupRange;
use crate::manifest::{BaseRef, CheckpointRecord, DeltaRef, OperatorPart, Origin, SubtaskRecord};

use super::elements::{Dealt, deal, gather};
use super::layout::Target;

/// What one subtask restores from, and what its own changelog goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubtaskPlan {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) range: KeyGroupRange,
    /// The parts that the state is made of. Together they are the range, ascending. One part if
    /// nothing was rescaled, none if there is no state.
    pub(crate) sources: Vec<Origin>,
    /// What the subtask's next checkpoints record about the origin of its state until it has a new
    /// base: either origins or a base of its own, and its own deltas since.
    pub(crate) origins: Vec<Origin>,
    pub(crate) base: Option<BaseRef>,
    pub(crate) deltas: Vec<DeltaRef>,
    /// Where its own changelog goes on.
    pub(crate) seq: DeltaSeq,
    /// The user's, as of the cut; None if no subtask of this number had the same key groups.
    pub(crate) metadata: Option<Vec<u8>>,
    /// State that is not keyed.
    pub(crate) elements: Dealt,
    pub(crate) target: Target,
}

impl SubtaskPlan {
    /// The source whose files the table is opened from: the one with the most bytes to copy, so
    /// that these are spared. The data of other sources is brought into it, by copying where
    /// necessary.
    pub(crate) fn host(&self) -> Option<usize> {
        let estimate = |source: &Origin| -> Option<u128> {
            let (base, first) = (source.base.as_ref()?, source.segments.first()?);
            Some(
                u128::from(base.state_bytes) * u128::from(source.owned.count())
                    / u128::from(first.range.count()),
            )
        };
        let sized =
            self.sources.iter().enumerate().filter_map(|(index, source)| Some((estimate(source)?, index)));
        sized.max().map(|(_, index)| index)
    }
}

/// Plans the restore of the `wanted` subtasks, which may be only some of the job's, at whatever
/// ranges. `parts` are the checkpoint's operators.
///
/// # Errors
/// [`Incompatible`](ErrorKind::Incompatible) if the checkpoint does not have all of a range;
/// [`Corrupt`](ErrorKind::Corrupt) if the record has a gap in a changelog.
pub(crate) fn plan(
    checkpoint: &CheckpointRecord,
    parts: &[OperatorPart<'_>],
    wanted: &[Target],
) -> Result<Vec<SubtaskPlan>> {
    let named = |error: Error| error.object(format!("checkpoint {}", checkpoint.id));
    for record in &checkpoint.subtasks {
        record.check_contiguous().map_err(|error| {
            named(error.object(format!("subtask {} of checkpoint {}", record.subtask, checkpoint.id)))
        })?;
    }
    let gathered: Vec<_> = parts.iter().map(gather).collect();
    let plan = |target: &Target| match target.from {
        None => Ok(empty(target)),
        Some(from) => match parts.get(from).zip(gathered.get(from)) {
            Some((part, all)) => {
                let plan = plan_one(part, target).map_err(named)?;
                Ok(SubtaskPlan { elements: deal(part, all, target.number, target.parallelism), ..plan })
            }
            None => Err(Error::internal("a subtask is restored from an operator that is not there")),
        },
    };
    wanted.iter().map(plan).collect()
}

/// Of an operator that the checkpoint does not have.
pub(super) fn empty(target: &Target) -> SubtaskPlan {
    SubtaskPlan {
        subtask: target.subtask,
        range: target.range,
        sources: Vec::new(),
        origins: Vec::new(),
        base: None,
        deltas: Vec::new(),
        seq: DeltaSeq(0),
        metadata: None,
        elements: Dealt::default(),
        target: target.clone(),
    }
}

fn plan_one(part: &OperatorPart<'_>, target: &Target) -> Result<SubtaskPlan> {
    let Target { subtask, range, .. } = *target;
    let overlapping = part.subtasks.iter().filter(|record| record.range.intersection(range).is_some());
    let mut sources: Vec<_> =
        overlapping.flat_map(SubtaskRecord::as_origins).filter_map(|origin| origin.clipped(range)).collect();
    sources.sort_by_key(|source| source.owned.first);
    // Parts that a rescale had split and that no subtask has changed since are joined again.
    sources.dedup_by(|next, source| source.join(next));
    if !range.is_tiled_by(sources.iter().map(|source| source.owned)) {
        return Err(not_all(part, subtask, range));
    }
    let number = |record: &SubtaskRecord| part.number_of(record.subtask);
    let mut alike = part.subtasks.iter().filter(|record| record.range == range);
    let alike = alike.find(|record| number(record) == target.number);
    let metadata = alike.map(|record| record.metadata.clone());
    // Deltas name their subtask. Where operators before it were rescaled, that has another number now.
    let same = alike.filter(|record| record.subtask == subtask);
    // The highest of all sources: new deltas go on above it, so their numbers are new to each source.
    let seq = sources.iter().map(Origin::seq).max().unwrap_or_default();
    if sources.iter().all(Origin::is_empty) {
        sources.clear();
    }
    // A changelog that is the subtask's own goes on; anything else is an origin of a new one.
    let (origins, base, deltas) = match (same, sources.as_slice()) {
        (Some(record), _) => (record.origins.clone(), record.base.clone(), record.deltas.clone()),
        (None, [source]) if is_own(source, subtask, range) => {
            let deltas = source.deltas().map(|(_, delta)| delta.clone());
            (Vec::new(), source.base.clone(), deltas.collect())
        }
        (None, sources) => (sources.to_vec(), None, Vec::new()),
    };
    let (elements, target) = (Dealt::default(), target.clone());
    Ok(SubtaskPlan { subtask, range, sources, origins, base, deltas, seq, metadata, elements, target })
}

/// Whether all of it was written by the subtask itself.
fn is_own(source: &Origin, subtask: SubtaskIndex, range: KeyGroupRange) -> bool {
    matches!(&source.segments[..], [only] if only.subtask == subtask && only.range == range)
        && source.owned == range
}

fn not_all(part: &OperatorPart<'_>, subtask: SubtaskIndex, range: KeyGroupRange) -> Error {
    let held: Vec<_> = part.subtasks.iter().map(|record| record.range.to_string()).collect();
    let message = format!(
        "subtask {subtask} wants key groups {range}, but the checkpoint has only [{}]",
        held.join(", ")
    );
    Error::new(ErrorKind::Incompatible, message).advise("restore a checkpoint of the whole job")
}
