//! States that a program drops or renames when it opens its job: pure changes of the checkpoint's
//! list of states.
//!
//! A state's id is part of each of its keys. A renamed state keeps its id under its new name, so
//! nothing is rewritten, and renaming does not interfere with rescaling. Each subtask deletes the
//! keys of a dropped state.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::StateId;
use crate::manifest::StateInfo;

use super::registry::check_name;

/// What a program asks for ([`JobOptions::drop_state`](crate::JobOptions::drop_state),
/// [`JobOptions::rename_state`](crate::JobOptions::rename_state)).
// Crosses processes, in a member's assignment: new variants go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Revision {
    Drop(String),
    Rename { from: String, to: String },
}

impl Revision {
    /// The name that no state has afterwards.
    pub(super) fn gives_up(&self) -> &str {
        match self {
            Self::Drop(name) | Self::Rename { from: name, .. } => name,
        }
    }
}

/// The states of a checkpoint after the revisions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Revised {
    pub(crate) states: Vec<StateInfo>,
    /// Those whose keys have to go.
    pub(crate) dropped: Vec<StateId>,
}

/// Whether the revisions are consistent. They stay in the program's options and are applied at
/// every start.
pub(crate) fn validate(revisions: &[Revision]) -> Result<()> {
    // A name may be given up once and taken once, but not both: at the second start the new state
    // of that name would be mistaken for the old one.
    let [mut given_up, mut taken] = [Vec::new(), Vec::new()];
    for revision in revisions {
        let (from, to) = match revision {
            Revision::Drop(name) => (name, None),
            Revision::Rename { from, to } => (from, Some(to)),
        };
        for name in [Some(from), to].into_iter().flatten() {
            check_name(name)?;
        }
        given_up.push(from);
        taken.extend(to);
    }
    let all: Vec<_> = given_up.iter().chain(&taken).collect();
    let twice = all.iter().enumerate().find(|(at, name)| all[..*at].contains(name));
    twice.map_or(Ok(()), |(_, name)| {
        Err(Error::invalid(
            "a state can be dropped or renamed once, and not to a name that is dropped or renamed",
        )
        .object(format!("state {name:?}"))
        .advise("take a drop or rename out of the options once a checkpoint has been taken with it"))
    })
}

/// Applies the revisions to the states of a checkpoint. A revision that an earlier start has
/// applied finds nothing to do.
pub(crate) fn revise(states: Vec<StateInfo>, revisions: &[Revision]) -> Result<Revised> {
    let mut revised = Revised { states, dropped: Vec::new() };
    let fresh = revised.states.is_empty();
    for revision in revisions {
        let at = |name: &str, states: &[StateInfo]| states.iter().position(|state| state.name == name);
        match revision {
            Revision::Drop(name) => {
                if let Some(at) = at(name, &revised.states) {
                    revised.dropped.push(revised.states.remove(at).id);
                }
            }
            Revision::Rename { from, to } => match (at(from, &revised.states), at(to, &revised.states)) {
                (Some(from), None) => revised.states[from].name.clone_from(to),
                (None, Some(_)) => {}
                (None, None) if fresh => {}
                (None, None) => return Err(unknown(from, &revised.states)),
                (Some(_), Some(_)) => {
                    return Err(Error::new(ErrorKind::AlreadyExists, format!("there is a state {to:?} already"))
                        .object(format!("state {from:?}"))
                        .advise("drop one of them first, or take the rename out of the options if it was done earlier"));
                }
            },
        }
    }
    Ok(revised)
}

fn unknown(name: &str, states: &[StateInfo]) -> Error {
    let mut names: Vec<_> = states.iter().map(|state| state.name.as_str()).collect();
    names.sort_unstable();
    Error::new(ErrorKind::NotFound, "the checkpoint has no state of this name to rename")
        .object(format!("state {name:?}"))
        .advise(format!("choose one of [{}]", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ValueInfo;

    fn info(name: &str) -> StateInfo {
        StateInfo {
            id: StateId::of(name),
            name: name.into(),
            kind: 1,
            merge: 0,
            key: String::new(),
            namespace: String::new(),
            map_key: String::new(),
            value: ValueInfo::default(),
            ttl: None,
        }
    }

    fn dropping(name: &str) -> Revision {
        Revision::Drop(name.into())
    }

    fn renaming(from: &str, to: &str) -> Revision {
        Revision::Rename { from: from.into(), to: to.into() }
    }

    #[test]
    fn a_dropped_state_goes_and_a_renamed_one_keeps_its_id() {
        let revisions = [dropping("views"), renaming("clicks", "hits"), dropping("never was")];
        validate(&revisions).unwrap();
        let revised = revise(vec![info("clicks"), info("views"), info("words")], &revisions).unwrap();
        assert_eq!(revised.dropped, [StateId::of("views")]);
        assert_eq!(revised.states, [StateInfo { name: "hits".into(), ..info("clicks") }, info("words")]);
        // At the next start there is nothing left to do.
        let again = revise(revised.states.clone(), &revisions).unwrap();
        assert_eq!(again, Revised { dropped: Vec::new(), ..revised });
        // Nor where there is no checkpoint yet.
        assert_eq!(revise(Vec::new(), &revisions).unwrap().states, []);
    }

    #[test]
    fn what_cannot_be_done_names_the_states() {
        let states = || vec![info("clicks"), info("views")];
        let error = revise(states(), &[renaming("clics", "hits")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(
            error.to_string().contains("\"clics\"") && error.to_string().contains("[clicks, views]"),
            "{error}"
        );
        let error = revise(states(), &[renaming("clicks", "views")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_name_plays_one_part() {
        for revisions in [
            vec![dropping("a"), renaming("b", "a")],
            vec![renaming("a", "b"), renaming("b", "c")],
            vec![renaming("a", "c"), renaming("b", "c")],
            vec![dropping("a"), dropping("a")],
            vec![renaming("a", "a")],
            vec![dropping("")],
            vec![renaming("a", "")],
        ] {
            assert_eq!(validate(&revisions).unwrap_err().kind(), ErrorKind::InvalidArgument, "{revisions:?}");
        }
        validate(&[dropping("a"), renaming("b", "c"), dropping("d")]).unwrap();
    }
}
