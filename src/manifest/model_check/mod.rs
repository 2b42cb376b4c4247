//! The protocol explored state by state: some attempts, each of which may pause anywhere and for
//! ever, requests whose answers are lost or that are applied late, commits that are given up,
//! garbage collection alongside, a reader that pins, and a user who makes a savepoint, from which the
//! reader may pin as well, and releases it, and makes another of the same name. An attempt may go back to the
//! savepoint: what it commits needs the savepoint's checkpoint, however long ago that was dropped. Requests to delete a
//! savepoint may arrive late, as requests to create one may. Every interleaving within the bounds is
//! visited, with the very state machines that [`chain`](super::chain) runs.
//!
//! Each guard of the protocol can be taken away, to show that the exploration would notice.

mod attempt;
mod garbage;
mod reader;
mod savepoint;
mod state;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::protocol::{Answer, Commit, CommitVerdict, Open, OpenVerdict, Seen, Step};
use super::samples::nonce;
use crate::ids::{Epoch, Nonce, Version};

#[derive(Clone, Copy)]
struct Guards {
    opens_are_kept: bool,
    newest_is_kept: bool,
    open_lists_again: bool,
    commit_lists_after_doubt: bool,
    pins_are_listed_after_the_drop: bool,
    reader_looks_again: bool,
    pins_are_listed_before_savepoints: bool,
    pins_are_listed_after_savepoints: bool,
    /// After the listings the collector looks whether a later attempt has opened.
    collector_confirms: bool,
    /// Each use of a savepoint's name has an object's name of its own.
    names_are_numbered: bool,
}

const ALL: Guards = Guards {
    opens_are_kept: true,
    newest_is_kept: true,
    open_lists_again: true,
    commit_lists_after_doubt: true,
    pins_are_listed_after_the_drop: true,
    reader_looks_again: true,
    pins_are_listed_before_savepoints: true,
    pins_are_listed_after_savepoints: true,
    collector_confirms: true,
    names_are_numbered: true,
};

/// How much may happen.
#[derive(Clone)]
struct Bounds {
    /// Commits of each attempt.
    commits: Vec<u8>,
    /// Requests that are applied later than they were given up on, over the whole run.
    late: u8,
    /// Answers that are lost, over the whole run.
    lost: u8,
    reader: bool,
    /// How often a savepoint is made, always of the same name, and released.
    saves: u8,
    /// Whether attempts may go back to the savepoint.
    back: bool,
}

/// A manifest, with all its ancestors instead of its parent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Rec {
    version: u8,
    epoch: u8,
    open: bool,
    lineage: Vec<u8>,
    /// The one retained checkpoint: version and nonce.
    retained: Option<(u8, u8)>,
    /// The checkpoint whose objects this one refers to, beside its own.
    needs: Option<(u8, u8)>,
}

impl Rec {
    fn nonce(&self) -> u8 {
        *self.lineage.last().unwrap()
    }

    fn after(head: Option<&Rec>, version: u8, epoch: u8, nonce: u8, open: bool) -> Self {
        let mut lineage = head.map_or_else(Vec::new, |head| head.lineage.clone());
        lineage.push(nonce);
        let carried = head.and_then(|head| head.retained);
        let retained = if open { carried } else { Some((version, nonce)) };
        Self { version, epoch, open, lineage, retained, needs: None }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "most attempts of most states are owners")]
enum Attempt {
    Idle,
    /// Has listed the chain.
    Listed(Option<u8>),
    Opening {
        machine: Open,
        rec: Rec,
        step: Step<OpenVerdict>,
    },
    /// Has opened, and goes back to what the savepoint named; pinned or not yet.
    GoingBack {
        rec: Rec,
        target: (u8, u8),
        pinned: bool,
    },
    Owner {
        head: Rec,
        origin: Option<Origin>,
        doubt: Vec<Nonce>,
        commit: Option<Committing>,
        gc: Gc,
    },
    Stopped,
}

/// What an attempt has gone back to, and whether its pin is still there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Origin {
    target: (u8, u8),
    pinned: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Committing {
    machine: Commit,
    rec: Rec,
    step: Step<CommitVerdict>,
    there: Option<Rec>,
    /// Pins, listed too early.
    early: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Gc {
    Rest,
    ListPins { roots: Rec },
    ListSavepoints { roots: Rec, kept: Vec<u8> },
    ListPinsAgain { roots: Rec, kept: Vec<u8> },
    Confirm { roots: Rec, pins: Vec<u8> },
    ListChain { roots: Rec, pins: Vec<u8> },
    Delete(Vec<u8>),
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Reader {
    Idle,
    Chosen((u8, u8)),
    Pinned((u8, u8)),
    Listed((u8, u8), u8),
    /// The same, by way of a savepoint.
    Found((u8, u8)),
    PinnedFound((u8, u8)),
    Reading((u8, u8)),
    Done,
}

/// A user who makes a savepoint under a pin, and releases it some time.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Saver {
    Idle,
    Chosen((u8, u8)),
    Pinned((u8, u8)),
    Listed((u8, u8), u8),
    Confirmed((u8, u8)),
    /// The pin is still there.
    Saved((u8, u8)),
    Kept((u8, u8)),
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    store: BTreeMap<u8, Rec>,
    /// Versions, and the epoch of the attempt that each belongs to, if any.
    pins: Vec<(u8, Option<u8>)>,
    /// The generations of the savepoint's name: what each names; None says that it was released.
    slots: BTreeMap<u8, Option<(u8, u8)>>,
    /// Savepoints that may yet be created, and generations that may yet be deleted.
    late_saves: Vec<(u8, (u8, u8))>,
    late_deletes: Vec<u8>,
    saves_left: u8,
    back: bool,
    late: Vec<Rec>,
    late_left: u8,
    lost_left: u8,
    attempts: Vec<Attempt>,
    /// Writes that each attempt has begun, and commits it may still begin.
    writes: Vec<u8>,
    commits_left: Vec<u8>,
    reader: Reader,
    saver: Saver,
    /// Nonces of opens and commits that were reported as successful.
    reported: Vec<u8>,
}

fn owner(head: Rec, origin: Option<Origin>) -> Attempt {
    Attempt::Owner { head, origin, doubt: Vec::new(), commit: None, gc: Gc::Rest }
}

struct Outcome {
    states: usize,
    /// What was violated, and the steps that lead there.
    violation: Option<(&'static str, Vec<String>)>,
}

/// Breadth first, so that a violation comes with one of its shortest traces.
fn explore(bounds: &Bounds, guards: Guards) -> Outcome {
    let hash = |state: &State| {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        hasher.finish()
    };
    let first = State::new(bounds);
    let mut seen = HashSet::from([hash(&first)]);
    let mut steps: Vec<(usize, String)> = vec![(0, String::new())];
    let mut queue = VecDeque::from([(first, 0)]);
    while let Some((state, at)) = queue.pop_front() {
        for (what, next) in state.successors(guards) {
            if !seen.insert(hash(&next)) {
                continue;
            }
            steps.push((at, what));
            let index = steps.len() - 1;
            if let Err(violated) = next.check() {
                let mut trace = Vec::new();
                let mut at = index;
                while at != 0 {
                    trace.push(steps[at].1.clone());
                    at = steps[at].0;
                }
                trace.reverse();
                return Outcome { states: seen.len(), violation: Some((violated, trace)) };
            }
            queue.push_back((next, index));
        }
    }
    Outcome { states: seen.len(), violation: None }
}

fn bounds(commits: &[u8], late: u8, lost: u8, reader: bool) -> Bounds {
    Bounds { commits: commits.to_vec(), late, lost, reader, saves: 0, back: false }
}

/// A reader, and a savepoint that is made and released.
fn with_savepoint(commits: &[u8]) -> Bounds {
    Bounds { saves: 1, ..bounds(commits, 0, 0, true) }
}

/// A savepoint that attempts may go back to.
fn with_a_way_back(commits: &[u8]) -> Bounds {
    Bounds { saves: 1, back: true, ..bounds(commits, 0, 0, false) }
}

/// Savepoints of one name, whose requests may be late.
fn with_late_requests(commits: &[u8], late: u8) -> Bounds {
    Bounds { saves: 2, late, ..bounds(commits, 0, 0, false) }
}

fn sound(bounds: &Bounds) {
    let outcome = explore(bounds, ALL);
    if let Some((violated, trace)) = outcome.violation {
        panic!("{violated}\n{}", trace.join("\n"));
    }
    println!("{} states", outcome.states);
    assert!(outcome.states > 10_000, "{} states are no exploration", outcome.states);
}

fn broken(bounds: &Bounds, guards: Guards, invariant: &str) {
    let outcome = explore(bounds, guards);
    let (violated, trace) = outcome.violation.expect("the guard that was removed is needed");
    println!("{violated}, after {} states and {} steps:\n{}", outcome.states, trace.len(), trace.join("\n"));
    assert!(violated.starts_with(invariant), "{violated}");
}

#[test]
fn i2_no_earlier_attempt_commits_after_a_later_one_opened() {
    sound(&bounds(&[2, 2], 1, 1, false));
}

#[test]
fn i2_holds_among_three_attempts() {
    sound(&bounds(&[1, 1, 0], 0, 1, false));
}

#[test]
#[ignore = "takes minutes; for changes to the protocol"]
fn i2_and_i3_hold_in_longer_histories() {
    sound(&bounds(&[3, 2], 2, 1, false));
    sound(&bounds(&[3, 2], 0, 2, true));
    sound(&bounds(&[2, 1, 1], 1, 1, false));
    sound(&with_savepoint(&[2, 1]));
    sound(&with_a_way_back(&[2, 2]));
    sound(&Bounds { reader: true, ..with_a_way_back(&[2, 1]) });
    sound(&with_late_requests(&[2, 1], 2));
}

#[test]
fn i3_what_is_retained_or_pinned_is_not_deleted() {
    sound(&bounds(&[2, 1], 0, 1, true));
}

#[test]
fn without_kept_open_records_a_sleeper_commits() {
    broken(&bounds(&[1, 1], 0, 0, false), Guards { opens_are_kept: false, ..ALL }, "I2");
}

#[test]
fn without_a_kept_newest_the_history_is_lost() {
    broken(&bounds(&[1, 1], 0, 0, false), Guards { newest_is_kept: false, ..ALL }, "I");
}

#[test]
fn without_the_second_listing_an_attempt_opens_in_a_hole() {
    broken(&bounds(&[2, 0], 0, 0, false), Guards { open_lists_again: false, ..ALL }, "I2");
}

#[test]
fn without_a_listing_after_doubt_a_commit_lands_in_a_hole() {
    broken(&bounds(&[2, 1], 0, 1, false), Guards { commit_lists_after_doubt: false, ..ALL }, "I2");
}

#[test]
fn without_listing_the_pins_after_the_drop_a_reader_loses_its_checkpoint() {
    broken(&bounds(&[2], 0, 0, true), Guards { pins_are_listed_after_the_drop: false, ..ALL }, "I3");
}

#[test]
fn without_a_second_look_a_reader_pins_what_is_going() {
    broken(&bounds(&[2], 0, 0, true), Guards { reader_looks_again: false, ..ALL }, "I3");
}

#[test]
fn i3_a_savepoint_and_what_is_pinned_from_it_are_not_deleted() {
    sound(&with_savepoint(&[3]));
    sound(&with_savepoint(&[2, 0]));
}

#[test]
fn without_listing_pins_before_savepoints_one_that_is_being_made_is_lost() {
    broken(&with_savepoint(&[3]), Guards { pins_are_listed_before_savepoints: false, ..ALL }, "I3");
}

#[test]
fn without_listing_pins_after_savepoints_a_reader_loses_one_that_is_released() {
    broken(&with_savepoint(&[3]), Guards { pins_are_listed_after_savepoints: false, ..ALL }, "I3");
}

#[test]
fn i3_what_an_attempt_has_gone_back_to_is_not_deleted_by_one_that_slept() {
    sound(&with_a_way_back(&[2, 1]));
}

#[test]
fn without_a_look_at_the_chain_a_sleeper_deletes_what_a_later_attempt_has_gone_back_to() {
    broken(&with_a_way_back(&[2, 1]), Guards { collector_confirms: false, ..ALL }, "I3");
}

#[test]
fn i3_savepoints_of_one_name_survive_late_requests() {
    sound(&with_late_requests(&[2], 2));
}

#[test]
fn without_numbered_names_a_late_delete_hits_a_newer_savepoint() {
    broken(&with_late_requests(&[2], 1), Guards { names_are_numbered: false, ..ALL }, "I3");
}
