//! The operators of a job, as its options name them.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::ids::OperatorId;
use crate::key_group::MaxParallelism;
use crate::manifest::OperatorRecord;
use crate::restore::{Layout, OperatorLayout, Resolved};
use crate::store::{Revision, validate_revisions};

/// One operator of a job, for [`JobOptions::operators`](crate::JobOptions::operators): its id, its
/// number of subtasks, and what becomes of its states.
///
/// ```
/// use alluvium::{JobOptions, MaxParallelism, OpenMode, OperatorSpec};
///
/// # fn main() -> alluvium::Result<()> {
/// let options = JobOptions::new("/var/cache/job", OpenMode::CreateOrOpen).operators([
///     OperatorSpec::new("sessions", 4).max_parallelism(MaxParallelism::new(256)?),
///     OperatorSpec::new("routes", 2),
/// ]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OperatorSpec {
    id: String,
    subtasks: u32,
    max_parallelism: Option<MaxParallelism>,
    /// The empty one is that of a job without named operators.
    formerly: Option<String>,
    revisions: Vec<Revision>,
}

impl OperatorSpec {
    /// An operator with this number of subtasks, which may differ at every start. `id` is what its
    /// state is found by at the next start: 1 to 128 bytes, no control characters, unique in the
    /// job. It has nothing to do with the operator's place in the list, which may change.
    pub fn new(id: impl Into<String>, subtasks: u32) -> Self {
        Self { id: id.into(), subtasks, max_parallelism: None, formerly: None, revisions: Vec::new() }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its number of subtasks.
    pub fn subtasks(&self) -> u32 {
        self.subtasks
    }

    /// Number of key groups of the operator. Fixed with the first checkpoint that has the operator;
    /// from then on it must be the same or unset. Default: the job's
    /// ([`JobOptions::max_parallelism`](crate::JobOptions::max_parallelism)).
    #[must_use]
    pub fn max_parallelism(mut self, groups: MaxParallelism) -> Self {
        self.max_parallelism = Some(groups);
        self
    }

    /// The operator goes on from the state of the operator of this id, if the checkpoint has that.
    /// If it does not, an earlier start has renamed it, so this may stay in the program. Opening
    /// fails with [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if the checkpoint has operators
    /// of both ids. Default none.
    #[must_use]
    pub fn renamed_from(mut self, id: impl Into<String>) -> Self {
        self.formerly = Some(id.into());
        self
    }

    /// The operator goes on from the state of a job that named no operators, if the checkpoint is
    /// of such a job. May stay in the program. Default: such a checkpoint is refused.
    #[must_use]
    pub fn was_unnamed(mut self) -> Self {
        self.formerly = Some(String::new());
        self
    }

    /// As [`JobOptions::drop_state`](crate::JobOptions::drop_state), for a state of this operator.
    #[must_use]
    pub fn drop_state(mut self, name: impl Into<String>) -> Self {
        self.revisions.push(Revision::Drop(name.into()));
        self
    }

    /// As [`JobOptions::rename_state`](crate::JobOptions::rename_state), for a state of this operator.
    #[must_use]
    pub fn rename_state(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.revisions.push(Revision::Rename { from: from.into(), to: to.into() });
        self
    }
}

/// The operators that a job was given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operators {
    /// Empty where the job names none: then it has one, with the job's own settings.
    specs: Vec<OperatorSpec>,
    droppable: Vec<String>,
}

impl Operators {
    pub(super) fn set(&mut self, specs: Vec<OperatorSpec>) {
        self.specs = specs;
    }

    pub(super) fn may_drop(&mut self, id: String) {
        self.droppable.push(id);
    }

    pub(crate) fn are_named(&self) -> bool {
        !self.specs.is_empty()
    }

    /// Subtasks of all together.
    pub(super) fn subtasks(&self) -> u32 {
        self.specs.iter().fold(0, |sum, spec| sum.saturating_add(spec.subtasks))
    }

    /// Each operator's id and changes of its states. `of_job` are those of a job without names.
    pub(crate) fn revisions<'a>(&'a self, of_job: &'a [Revision]) -> Vec<(&'a str, &'a [Revision])> {
        if !self.are_named() {
            return vec![("", of_job)];
        }
        self.specs.iter().map(|spec| (spec.id.as_str(), spec.revisions.as_slice())).collect()
    }

    /// What is to be restored, of a job with `subtasks` of this max parallelism. The places of the
    /// tables are yet to be filled in.
    pub(crate) fn layout(&self, subtasks: u32, max_parallelism: MaxParallelism) -> Result<Layout> {
        let droppable = self.droppable.iter().map(|id| id_or_unnamed(id)).collect::<Result<_>>()?;
        let operator = |spec: &OperatorSpec| {
            Ok(OperatorLayout {
                id: OperatorId::new(&spec.id)?,
                formerly: spec.formerly.as_deref().map(id_or_unnamed).transpose()?,
                max_parallelism: spec.max_parallelism,
                subtasks: spec.subtasks,
            })
        };
        let unnamed = || {
            let id = OperatorId::default();
            vec![OperatorLayout { id, formerly: None, max_parallelism: None, subtasks }]
        };
        let named = self.specs.iter().map(operator).collect::<Result<Vec<_>>>()?;
        let operators = if named.is_empty() { unnamed() } else { named };
        Ok(Layout { operators, droppable, max_parallelism, dirs: BTreeMap::new() })
    }

    /// The operators as checkpoints have them; none where they have no names.
    pub(crate) fn records(&self, resolved: &[Resolved]) -> Result<Vec<OperatorRecord>> {
        let record = |(spec, resolved): (&OperatorSpec, &Resolved)| {
            let (id, max_parallelism) = (OperatorId::new(&spec.id)?, resolved.max_parallelism);
            Ok(OperatorRecord { id, max_parallelism, subtasks: spec.subtasks })
        };
        self.specs.iter().zip(resolved).map(record).collect()
    }

    /// Whether they are consistent. `of_job` are changes of states that were asked of the job.
    pub(super) fn validate(&self, of_job: &[Revision]) -> Result<()> {
        let mut names = Vec::new();
        for spec in &self.specs {
            let id = OperatorId::new(&spec.id)?;
            let named = |error: Error| error.within(&id);
            if spec.subtasks == 0 {
                return Err(named(Error::invalid("an operator has at least 1 subtask")));
            }
            if let Some(max) = spec.max_parallelism.filter(|max| spec.subtasks > u32::from(max.get())) {
                let (subtasks, max) = (spec.subtasks, max.get());
                let message = format!("{subtasks} subtasks are more than the max parallelism of {max}");
                return Err(named(Error::invalid(message)));
            }
            validate_revisions(&spec.revisions).map_err(named)?;
            if let Some(former) = &spec.formerly {
                id_or_unnamed(former)?;
                names.push(former.as_str());
            }
            names.push(spec.id.as_str());
        }
        for id in &self.droppable {
            id_or_unnamed(id)?;
            names.push(id.as_str());
        }
        let twice = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
        if let Some((_, name)) = twice {
            let message = "the id is given twice: as an operator's, a former one, or one that may be dropped";
            return Err(Error::invalid(message).object(id_or_unnamed(name)?));
        }
        if self.are_named() && !of_job.is_empty() {
            return Err(Error::invalid(
                "the job has several lists of states: whose are to be dropped or renamed?",
            )
            .advise(format!(
                "say it of one of the operators [{}]: OperatorSpec::drop_state, \
                     OperatorSpec::rename_state",
                self.ids()
            )));
        }
        Ok(())
    }

    fn ids(&self) -> String {
        self.specs.iter().map(|spec| spec.id.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// An id of the past, where the empty one is that of a job without named operators.
fn id_or_unnamed(id: &str) -> Result<OperatorId> {
    if id.is_empty() { Ok(OperatorId::default()) } else { OperatorId::new(id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn operators(specs: &[OperatorSpec], droppable: &[&str]) -> Operators {
        let mut operators = Operators::default();
        operators.set(specs.to_vec());
        droppable.iter().for_each(|id| operators.may_drop((*id).to_owned()));
        operators
    }

    #[test]
    fn each_operator_is_laid_out() {
        let all = operators(
            &[OperatorSpec::new("a", 2).was_unnamed(), OperatorSpec::new("b", 1).renamed_from("c")],
            &["d"],
        );
        all.validate(&[]).unwrap();
        assert_eq!(all.subtasks(), 3);
        let layout = all.layout(3, MaxParallelism::default()).unwrap();
        assert_eq!((layout.operators[0].subtasks, layout.operators[1].subtasks), (2, 1));
        assert_eq!(layout.operators[0].formerly, Some(OperatorId::default()));
        assert_eq!(layout.operators[1].formerly, OperatorId::new("c").ok());
        assert_eq!(layout.droppable, [OperatorId::new("d").unwrap()]);
    }

    #[test]
    fn what_is_inconsistent_is_refused() {
        let one = |id: &str| OperatorSpec::new(id, 1);
        let groups = MaxParallelism::new(2).unwrap();
        for (wrong, word) in [
            (operators(&[one("")], &[]), "\"\""),
            (operators(&[one(&"x".repeat(129))], &[]), "128"),
            (operators(&[OperatorSpec::new("a", 0)], &[]), "\"a\""),
            (operators(&[OperatorSpec::new("a", 3).max_parallelism(groups)], &[]), "3 subtasks"),
            (operators(&[one("a"), one("b"), one("a")], &[]), "\"a\""),
            (operators(&[one("a"), one("b")], &["b"]), "\"b\""),
            (operators(&[one("a").renamed_from("b"), one("b")], &[]), "\"b\""),
            (operators(&[one("a").was_unnamed(), one("b").was_unnamed()], &[]), "unnamed"),
            (operators(&[one("a").renamed_from("c"), one("b")], &["c"]), "\"c\""),
            (operators(&[one("a").drop_state("s").drop_state("s")], &[]), "\"s\""),
        ] {
            let error = wrong.validate(&[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
        let error =
            operators(&[one("a"), one("b")], &[]).validate(&[Revision::Drop("s".into())]).unwrap_err();
        assert!(error.to_string().contains("[a, b]"), "{error}");
    }
}
