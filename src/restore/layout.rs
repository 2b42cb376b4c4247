//! Which subtasks a job is restored to: its operators, each found again in a checkpoint by its id, and
//! each with as many subtasks as it is given now. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{OperatorId, SubtaskIndex};
use crate::key_group::{KeyGroupRange, MaxParallelism};
use crate::manifest::{Manifest, OperatorPart};

/// A subtask to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) subtask: SubtaskIndex,
    /// Its operator's place among the wanted ones.
    pub(crate) operator: usize,
    /// Its number among those of the operator, and how many they are.
    pub(crate) number: u32,
    pub(crate) parallelism: u32,
    /// The place of its operator among those of the checkpoint. None: it starts empty.
    pub(crate) from: Option<usize>,
    pub(crate) max_parallelism: MaxParallelism,
    pub(crate) range: KeyGroupRange,
    /// Where its table will be. Whatever is there is removed.
    pub(crate) dir: PathBuf,
}

/// What is wanted of a checkpoint that is known only when it has been read.
pub(crate) trait Targets: Sync {
    /// The subtasks to be restored from the checkpoint of `manifest`, or to be started empty.
    ///
    /// # Errors
    /// `Incompatible` and `InvalidArgument` if the checkpoint does not fit what is wanted.
    fn targets(&self, manifest: Option<&Manifest>) -> Result<Vec<Target>>;
}

/// These, whatever the checkpoint is.
impl<T: AsRef<[Target]> + Sync + ?Sized> Targets for T {
    fn targets(&self, _: Option<&Manifest>) -> Result<Vec<Target>> {
        Ok(self.as_ref().to_vec())
    }
}

/// The operators of a job. A plain value, so that every process that has some of the subtasks comes to
/// the same ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// In the order of their subtasks.
    pub(crate) operators: Vec<OperatorLayout>,
    /// Operators that the checkpoint may have although the job has them no more.
    pub(crate) droppable: Vec<OperatorId>,
    /// Of operators that have none of their own.
    pub(crate) max_parallelism: MaxParallelism,
    /// Where the table of each subtask will be that is to be restored here.
    #[serde(skip)]
    pub(crate) dirs: BTreeMap<SubtaskIndex, PathBuf>,
}

/// One operator of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperatorLayout {
    pub(crate) id: OperatorId,
    /// What older checkpoints call it.
    pub(crate) formerly: Option<OperatorId>,
    /// None: that of the checkpoint, or else of the job.
    pub(crate) max_parallelism: Option<MaxParallelism>,
    pub(crate) subtasks: u32,
}

/// An operator of a job, found in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Its place among the operators of the checkpoint. None: it is new.
    pub(crate) from: Option<usize>,
    pub(crate) max_parallelism: MaxParallelism,
}

impl Layout {
    /// For each operator of the job its place among those of the checkpoint, None if it is new.
    ///
    /// # Errors
    /// `Incompatible` if the job has left one out, `AlreadyExists` if one is there under its former
    /// name as well.
    pub(crate) fn matches(&self, parts: &[OperatorPart<'_>]) -> Result<Vec<Option<usize>>> {
        let find = |id: &OperatorId| parts.iter().position(|part| part.id == id);
        let mut found = Vec::with_capacity(self.operators.len());
        for OperatorLayout { id, formerly, .. } in &self.operators {
            let former = formerly.as_ref().and_then(|former| Some((former, find(former)?)));
            match (find(id), former) {
                (Some(_), Some((former, _))) => return Err(both(id, former)),
                (own, former) => found.push(own.or(former.map(|(_, at)| at))),
            }
        }
        let left_out = |(at, part): &(usize, &OperatorPart<'_>)| {
            // One without subtasks is an empty record.
            !found.contains(&Some(*at)) && !self.droppable.contains(part.id) && !part.subtasks.is_empty()
        };
        match parts.iter().enumerate().find(left_out) {
            Some((_, part)) => Err(self.refusal(part.id)),
            None => Ok(found),
        }
    }

    fn refusal(&self, id: &OperatorId) -> Error {
        let has_names = self.operators.iter().any(|operator| operator.id.is_named());
        let error = match id.is_named() {
            true => Error::new(
                ErrorKind::Incompatible,
                "the checkpoint has an operator that the job has left out",
            ),
            false => Error::new(
                ErrorKind::Incompatible,
                "the checkpoint is of a job without named operators, and the job has no operator that takes its state over",
            ),
        };
        let advice = match (id.is_named(), has_names) {
            (true, true) => {
                "give it to JobOptions::operators again; or let its state go: JobOptions::allow_dropped_operator"
            }
            (true, false) => "open the job with JobOptions::operators",
            (false, _) => {
                "say OperatorSpec::was_unnamed of the operator that takes it over; or let its state go: \
                 JobOptions::allow_dropped_operator(\"\")"
            }
        };
        error.object(id).advise(advice)
    }
}

impl Layout {
    /// The operators of the job as the checkpoint of `manifest` has them, in their order.
    ///
    /// # Errors
    /// As [`Layout::matches`]; `Incompatible` if a max parallelism is not the recorded one,
    /// `InvalidArgument` for more subtasks than key groups.
    pub(crate) fn resolve(&self, manifest: Option<&Manifest>) -> Result<Vec<Resolved>> {
        let parts = manifest.map(Manifest::operators).unwrap_or_default();
        let found = self.operators.iter().zip(self.matches(&parts)?).map(|(layout, from)| {
            let recorded = from.and_then(|from| parts.get(from)).map(|part| part.max_parallelism);
            let max_parallelism = layout.agree(recorded, self.max_parallelism)?;
            if layout.subtasks > u32::from(max_parallelism.get()) {
                return Err(layout.too_many(max_parallelism));
            }
            Ok(Resolved { from, max_parallelism })
        });
        found.collect()
    }
}

impl Targets for Layout {
    fn targets(&self, manifest: Option<&Manifest>) -> Result<Vec<Target>> {
        let mut targets = Vec::with_capacity(self.dirs.len());
        let mut next = SubtaskIndex(0);
        let operators = self.operators.iter().zip(self.resolve(manifest)?);
        for (operator, (layout, Resolved { from, max_parallelism })) in operators.enumerate() {
            let parallelism = layout.subtasks;
            for number in 0..parallelism {
                let subtask = next;
                next = next.next();
                let Some(dir) = self.dirs.get(&subtask).cloned() else { continue };
                let range = max_parallelism
                    .range_of(SubtaskIndex(number), parallelism)
                    .ok_or_else(|| layout.too_many(max_parallelism))?;
                targets.push(Target {
                    subtask,
                    operator,
                    number,
                    parallelism,
                    from,
                    max_parallelism,
                    range,
                    dir,
                });
            }
        }
        Ok(targets)
    }
}

impl OperatorLayout {
    fn agree(&self, recorded: Option<MaxParallelism>, of_job: MaxParallelism) -> Result<MaxParallelism> {
        match (recorded, self.max_parallelism) {
            (Some(fixed), Some(wanted)) if fixed != wanted => {
                let (fixed, wanted) = (fixed.get(), wanted.get());
                let message = format!("it was created with max parallelism {fixed}, not {wanted}");
                Err(Error::new(ErrorKind::Incompatible, message)
                    .object(&self.id)
                    .advise("leave it unset or as it is: keys are placed by it"))
            }
            (recorded, wanted) => Ok(recorded.or(wanted).unwrap_or(of_job)),
        }
    }

    fn too_many(&self, max: MaxParallelism) -> Error {
        let (subtasks, max) = (self.subtasks, max.get());
        let error = Error::invalid(format!("{subtasks} subtasks are more than the max parallelism of {max}"));
        if self.id.is_named() {
            return error.object(&self.id).advise("give the operator fewer subtasks");
        }
        error.advise("open the job with fewer subtasks")
    }
}

fn both(id: &OperatorId, former: &OperatorId) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("the checkpoint has {former} beside it, which is its former name"),
    )
    .object(id)
    .advise("take the former name out of the options")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::samples::with_operators;

    fn id(name: &str) -> OperatorId {
        if name.is_empty() { OperatorId::default() } else { OperatorId::new(name).unwrap() }
    }

    fn operator(name: &str, subtasks: u32) -> OperatorLayout {
        OperatorLayout { id: id(name), formerly: None, max_parallelism: None, subtasks }
    }

    fn layout(operators: Vec<OperatorLayout>) -> Layout {
        let max_parallelism = MaxParallelism::new(16).unwrap();
        let dirs = (0..100).map(|subtask| (SubtaskIndex(subtask), PathBuf::from(subtask.to_string())));
        Layout { operators, droppable: Vec::new(), max_parallelism, dirs: dirs.collect() }
    }

    /// Subtask, operator, number, from, max parallelism, first group.
    fn facts(target: &Target) -> (u32, usize, u32, Option<usize>, u16, u16) {
        let Target { subtask, operator, number, from, max_parallelism, range, .. } = target;
        (subtask.0, *operator, *number, *from, max_parallelism.get(), range.first.0)
    }

    #[test]
    fn each_operator_is_found_by_its_id_and_has_its_own_key_groups() {
        let (manifest, _) = with_operators();
        let mut layout = layout(vec![operator("new", 2), operator("joins", 1), operator("clicks", 3)]);
        let targets = layout.targets(Some(&manifest)).unwrap();
        let found: Vec<_> = targets.iter().map(facts).collect();
        let expected = [
            (0, 0, 0, None, 16, 0),
            (1, 0, 1, None, 16, 8),
            (2, 1, 0, Some(1), 32, 0),
            (3, 2, 0, Some(0), 128, 0),
            (4, 2, 1, Some(0), 128, 43),
            (5, 2, 2, Some(0), 128, 86),
        ];
        assert_eq!(found, expected);
        assert_eq!(targets[4].dir, PathBuf::from("4"));
        let fresh = layout.targets(None).unwrap();
        assert!(fresh.iter().all(|target| target.from.is_none() && target.max_parallelism.get() == 16));
        // Only what is to be restored here; nothing else of it changes.
        layout.dirs.retain(|subtask, _| [1, 4].contains(&subtask.0));
        let found: Vec<_> = layout.targets(Some(&manifest)).unwrap().iter().map(facts).collect();
        assert_eq!(found, [expected[1], expected[4]]);
    }

    #[test]
    fn what_is_left_out_has_to_be_said() {
        let (manifest, _) = with_operators();
        let mut layout = layout(vec![operator("clicks", 1)]);
        let error = layout.targets(Some(&manifest)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        let text = error.to_string();
        assert!(text.contains("\"joins\"") && text.contains("allow_dropped_operator"), "{text}");
        layout.droppable = vec![id("joins"), id("never was")];
        assert_eq!(layout.targets(Some(&manifest)).unwrap().len(), 1);
        // A program that knows no operators would take the state of one for that of all.
        layout.operators = vec![operator("", 1)];
        let text = layout.targets(Some(&manifest)).unwrap_err().to_string();
        assert!(text.contains("\"clicks\"") && text.contains("JobOptions::operators"), "{text}");
    }

    #[test]
    fn an_operator_goes_on_from_its_former_name_once() {
        let (manifest, _) = with_operators();
        let hits = OperatorLayout { formerly: Some(id("clicks")), ..operator("hits", 2) };
        let again = layout(vec![hits.clone(), operator("joins", 1)]);
        assert_eq!(again.targets(Some(&manifest)).unwrap()[0].from, Some(0));
        // A later start finds the new name.
        let joins = OperatorLayout { formerly: Some(id("never was")), ..operator("joins", 1) };
        assert_eq!(
            layout(vec![operator("clicks", 2), joins]).targets(Some(&manifest)).unwrap()[2].from,
            Some(1)
        );
        let both = OperatorLayout { formerly: Some(id("clicks")), ..operator("joins", 1) };
        let error = layout(vec![both, operator("clicks", 2)]).targets(Some(&manifest)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }

    #[test]
    fn a_job_of_before_is_named_once() {
        let (mut manifest, _) = with_operators();
        let crate::manifest::Record::Checkpoint(record) = &mut manifest.record else { unreachable!() };
        record.operators.clear();
        record.subtasks.truncate(2);
        let named = layout(vec![operator("clicks", 1)]);
        let error = named.targets(Some(&manifest)).unwrap_err();
        assert!(error.to_string().contains("was_unnamed"), "{error}");
        let taker = OperatorLayout { formerly: Some(id("")), ..operator("clicks", 1) };
        let named = layout(vec![operator("new", 1), taker]);
        let found: Vec<_> = named.targets(Some(&manifest)).unwrap().iter().map(facts).collect();
        assert_eq!(found, [(0, 0, 0, None, 16, 0), (1, 1, 0, Some(0), 128, 0)]);
    }

    #[test]
    fn bounds_are_each_operators_own() {
        let (manifest, _) = with_operators();
        let many = layout(vec![operator("clicks", 33), operator("joins", 33)]);
        let error = many.targets(Some(&manifest)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let text = error.to_string();
        assert!(
            text.contains("33 subtasks") && text.contains("of 32") && text.contains("\"joins\""),
            "{text}"
        );
        let other = OperatorLayout { max_parallelism: MaxParallelism::new(64).ok(), ..operator("joins", 1) };
        let error = layout(vec![operator("clicks", 1), other]).targets(Some(&manifest)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("32, not 64"), "{error}");
    }
}
