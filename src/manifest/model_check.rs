//! The protocol explored state by state: some attempts, each of which may pause anywhere and for
//! ever, requests whose answers are lost or that are applied late, commits that are given up,
//! garbage collection alongside, a reader that pins, and a user who makes a savepoint, from which the
//! reader may pin as well, and releases it, and makes another of the same name. An attempt may go back to the
//! savepoint: what it commits needs the savepoint's checkpoint, however long ago that was dropped. Requests to delete a
//! savepoint may arrive late, as requests to create one may. Every interleaving within the bounds is
//! visited, with the very state machines that [`chain`](super::chain) runs.
//!
//! Each guard of the protocol can be taken away, to show that the exploration would notice.

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

impl State {
    fn new(bounds: &Bounds) -> Self {
        let count = bounds.commits.len();
        Self {
            store: BTreeMap::new(),
            pins: Vec::new(),
            slots: BTreeMap::new(),
            late_saves: Vec::new(),
            late_deletes: Vec::new(),
            saves_left: bounds.saves,
            back: bounds.back,
            late: Vec::new(),
            late_left: bounds.late,
            lost_left: bounds.lost,
            attempts: vec![Attempt::Idle; count],
            writes: vec![0; count],
            commits_left: bounds.commits.clone(),
            reader: if bounds.reader { Reader::Idle } else { Reader::Done },
            saver: if bounds.saves > 0 { Saver::Idle } else { Saver::Done },
            reported: Vec::new(),
        }
    }

    fn newest(&self) -> Option<&Rec> {
        self.store.last_key_value().map(|(_, rec)| rec)
    }

    /// What the savepoint's name stands for.
    fn savepoint(&self) -> Option<(u8, u8)> {
        self.slots.last_key_value().and_then(|(_, slot)| *slot)
    }

    /// The versions whose pins count for an attempt.
    fn pins_for(&self, epoch: u8) -> Vec<u8> {
        let counts = |owner: Option<u8>| owner.is_none_or(|owner| owner >= epoch);
        self.pins.iter().filter(|(_, owner)| counts(*owner)).map(|(version, _)| *version).collect()
    }

    /// Whether a checkpoint is there, with all that it refers to.
    fn holds(&self, (version, nonce): (u8, u8)) -> bool {
        let there = |(version, nonce): (u8, u8)| self.store.get(&version).filter(|rec| rec.nonce() == nonce);
        there((version, nonce)).is_some_and(|rec| rec.needs.is_none_or(|needs| there(needs).is_some()))
    }

    fn newest_version(&self) -> Option<Version> {
        self.newest().map(|rec| Version(rec.version.into()))
    }

    fn see(&self, version: u8) -> Seen {
        self.store.get(&version).map_or(Seen::Absent, |rec| Seen::Record {
            nonce: nonce(rec.nonce()),
            epoch: Epoch(rec.epoch.into()),
        })
    }

    fn report(&mut self, nonce: u8) {
        self.reported.push(nonce);
        self.reported.sort_unstable();
        self.reported.dedup();
    }

    fn apply(&mut self, rec: &Rec) -> bool {
        let absent = !self.store.contains_key(&rec.version);
        if absent {
            self.store.insert(rec.version, rec.clone());
        }
        absent
    }

    /// A nonce of its own for each write of each attempt.
    fn draw(&mut self, who: usize) -> u8 {
        self.writes[who] += 1;
        who as u8 * 16 + self.writes[who]
    }

    /// Everything that can come of one conditional create.
    fn create(&self, rec: &Rec) -> Vec<(State, Answer)> {
        let mut applied = self.clone();
        let answer = if applied.apply(rec) { Answer::Created } else { Answer::Exists };
        let mut outcomes = vec![(applied.clone(), answer)];
        if self.lost_left > 0 {
            applied.lost_left -= 1;
            // Applied, and the answer is lost, or is that to a retry which met its own first try.
            outcomes.push((applied.clone(), Answer::Exists));
            outcomes.push((applied, Answer::Unclear));
            // Never applied.
            let mut lost = self.clone();
            lost.lost_left -= 1;
            outcomes.push((lost, Answer::Unclear));
        }
        if self.late_left > 0 {
            let mut late = self.clone();
            late.late_left -= 1;
            late.late.push(rec.clone());
            late.late.sort_unstable_by_key(|rec| (rec.version, rec.nonce()));
            outcomes.push((late, Answer::Unclear));
        }
        outcomes
    }

    /// I2 and I3 as they must hold in every state.
    fn check(&self) -> Result<(), &'static str> {
        let Some(newest) = self.newest() else { return Ok(()) };
        if !self.reported.iter().all(|nonce| newest.lineage.contains(nonce)) {
            return Err("I2: what was reported as committed or opened is not part of the history");
        }
        if newest.retained.is_some_and(|retained| !self.holds(retained)) {
            return Err("I3: the retained checkpoint is gone");
        }
        match self.reader {
            Reader::Reading(target) if !self.holds(target) => {
                return Err("I3: a checkpoint is gone while it is read");
            }
            _ => {}
        }
        for attempt in &self.attempts {
            // One that is fenced will never commit.
            if let Attempt::Owner { head, origin: Some(Origin { target, .. }), .. } = attempt
                && head.epoch == newest.epoch
                && !self.holds(*target)
            {
                return Err("I3: a checkpoint is gone that an attempt has gone back to");
            }
        }
        if let Saver::Saved(target) | Saver::Kept(target) = self.saver
            && self.savepoint() != Some(target)
        {
            return Err("I3: a savepoint is gone that nobody has released");
        }
        match self.savepoint() {
            Some(target) if !self.holds(target) => Err("I3: the checkpoint of a savepoint is gone"),
            _ => Ok(()),
        }
    }

    fn successors(&self, guards: Guards) -> Vec<(String, State)> {
        let mut all = Vec::new();
        for who in 0..self.attempts.len() {
            self.attempt(who, guards, &mut all);
        }
        for index in 0..self.late.len() {
            let mut next = self.clone();
            let rec = next.late.remove(index);
            next.apply(&rec);
            all.push((format!("a late request for {} arrives", rec.version), next));
        }
        for index in 0..self.late_saves.len() {
            let mut next = self.clone();
            let (slot, target) = next.late_saves.remove(index);
            next.slots.entry(slot).or_insert(Some(target));
            all.push((format!("a late savepoint arrives as generation {slot}"), next));
        }
        for index in 0..self.late_deletes.len() {
            let mut next = self.clone();
            let slot = next.late_deletes.remove(index);
            next.slots.remove(&slot);
            all.push((format!("a late delete of generation {slot} arrives"), next));
        }
        self.read(guards, &mut all);
        self.save(guards, &mut all);
        all
    }

    fn attempt(&self, who: usize, guards: Guards, all: &mut Vec<(String, State)>) {
        let mut push = |what: &str, mut next: State, attempt: Attempt| {
            next.attempts[who] = attempt;
            all.push((format!("{who}: {what}"), next));
        };
        match &self.attempts[who] {
            Attempt::Stopped => {}
            Attempt::Idle => {
                let newest = self.newest().map(|rec| rec.version);
                push("lists", self.clone(), Attempt::Listed(newest));
            }
            Attempt::Listed(newest) => {
                let head = newest.map(|newest| self.store.get(&newest));
                if head == Some(None) {
                    return push("finds the newest collected", self.clone(), Attempt::Idle);
                }
                if self.writes[who] >= 3 {
                    // Started over often enough.
                    return;
                }
                let mut next = self.clone();
                let version = newest.unwrap_or(0) + 1;
                let rec = Rec::after(head.flatten(), version, version, next.draw(who), true);
                let machine = Open::new(Version(version.into()), nonce(rec.nonce()));
                let step = machine.start();
                push("begins to open", next, Attempt::Opening { machine, rec, step });
            }
            Attempt::Opening { machine, rec, step } => {
                let opening = |step| Attempt::Opening { machine: machine.clone(), rec: rec.clone(), step };
                match step {
                    Step::Create => {
                        for (next, answer) in self.create(rec) {
                            push(
                                &format!("open {}: {answer:?}", rec.version),
                                next,
                                opening(machine.created(answer)),
                            );
                        }
                    }
                    Step::Read => {
                        push("reads its version", self.clone(), opening(machine.read(self.see(rec.version))));
                    }
                    Step::List => {
                        let newest = self.newest_version();
                        let own = Some(Version(rec.version.into()));
                        let seen = if guards.open_lists_again { newest } else { own };
                        push("lists again", self.clone(), opening(machine.listed(seen)));
                    }
                    Step::ReadNewest(newest) => {
                        let step = machine.newest_read(self.see(newest.0 as u8));
                        push("reads the newest", self.clone(), opening(step));
                    }
                    Step::Done(OpenVerdict::Opened) => {
                        let mut next = self.clone();
                        next.report(rec.nonce());
                        if let Some(target) = self.savepoint().filter(|_| self.back) {
                            let rec = rec.clone();
                            let back = Attempt::GoingBack { rec, target, pinned: false };
                            push("is open, and goes back to the savepoint", next.clone(), back);
                        }
                        let owner = owner(rec.clone(), None);
                        push("is open", next, owner);
                    }
                    Step::Done(OpenVerdict::StartOver) => push("starts over", self.clone(), Attempt::Idle),
                    Step::Done(OpenVerdict::Fenced(_) | OpenVerdict::Unlisted) => {
                        push("gives way", self.clone(), Attempt::Stopped);
                    }
                }
            }
            Attempt::GoingBack { rec, target, pinned: false } => {
                let mut next = self.clone();
                next.pins.push((target.0, Some(rec.epoch)));
                let (rec, target) = (rec.clone(), *target);
                push("pins what the savepoint names", next, Attempt::GoingBack { rec, target, pinned: true });
            }
            Attempt::GoingBack { rec, target, pinned: true } => {
                let mut next = self.clone();
                if self.savepoint() == Some(*target) {
                    let origin = Origin { target: *target, pinned: true };
                    push("sees the savepoint again", next, owner(rec.clone(), Some(origin)));
                } else {
                    next.unpin(*target, Some(rec.epoch));
                    push("misses the savepoint", next, Attempt::Stopped);
                }
            }
            Attempt::Owner { head, origin, doubt, commit, gc } => {
                if let Some(Origin { target, pinned: true }) = origin
                    && head.version > head.epoch
                {
                    let mut next = self.clone();
                    next.unpin(*target, Some(head.epoch));
                    let (head, doubt, commit, gc) = (head.clone(), doubt.clone(), commit.clone(), gc.clone());
                    let origin = Some(Origin { target: *target, pinned: false });
                    push("lets its pin go", next, Attempt::Owner { head, origin, doubt, commit, gc });
                }
                self.commit(who, guards, *origin, (head, doubt, commit.as_ref(), gc), all);
                self.collect(who, guards, *origin, (head, doubt, commit.as_ref(), gc), all);
            }
        }
    }

    fn commit(
        &self,
        who: usize,
        guards: Guards,
        origin: Option<Origin>,
        (head, doubt, commit, gc): (&Rec, &[Nonce], Option<&Committing>, &Gc),
        all: &mut Vec<(String, State)>,
    ) {
        let mut push = |what: &str, mut next: State, head: &Rec, doubt: &[Nonce], commit, gc: &Gc| {
            next.attempts[who] =
                Attempt::Owner { head: head.clone(), origin, doubt: doubt.to_vec(), commit, gc: gc.clone() };
            all.push((format!("{who}: {what}"), next));
        };
        let Some(now) = commit else {
            if self.commits_left[who] > 0 {
                let mut next = self.clone();
                next.commits_left[who] -= 1;
                let mut rec = Rec::after(Some(head), head.version + 1, head.epoch, next.draw(who), false);
                rec.needs = origin.map(|origin| origin.target);
                let (epoch, version) = (Epoch(rec.epoch.into()), Version(rec.version.into()));
                let machine = Commit::new(epoch, version, nonce(rec.nonce()), doubt);
                let step = machine.start();
                let early = if guards.pins_are_listed_after_the_drop {
                    Vec::new()
                } else {
                    self.pins_for(head.epoch)
                };
                push(
                    "begins to commit",
                    next,
                    head,
                    doubt,
                    Some(Committing { machine, rec, step, there: None, early }),
                    gc,
                );
            }
            return;
        };
        let own = nonce(now.rec.nonce());
        let moved = |machine: Commit, step, there| Some(Committing { machine, step, there, ..now.clone() });
        let mut machine = now.machine.clone();
        match now.step {
            Step::Create => {
                let mut doubt = doubt.to_vec();
                if !doubt.contains(&own) {
                    doubt.push(own);
                }
                for (next, answer) in self.create(&now.rec) {
                    let mut machine = machine.clone();
                    let step = machine.created(answer);
                    let what = format!("commit {}: {answer:?}", now.rec.version);
                    push(&what, next, head, &doubt, moved(machine, step, None), gc);
                }
            }
            Step::Read => {
                let step = machine.read(self.see(now.rec.version));
                let there = self.store.get(&now.rec.version).cloned();
                push("reads its version", self.clone(), head, doubt, moved(machine, step, there), gc);
            }
            Step::List => {
                let seen = if guards.commit_lists_after_doubt {
                    self.newest_version()
                } else {
                    Some(Version(now.rec.version.into()))
                };
                let step = machine.listed(seen);
                push(
                    "lists after doubt",
                    self.clone(),
                    head,
                    doubt,
                    moved(machine, step, now.there.clone()),
                    gc,
                );
            }
            Step::ReadNewest(_) => unreachable!(),
            Step::Done(CommitVerdict::Won(winner)) => {
                let rec = if winner == own { &now.rec } else { now.there.as_ref().unwrap() };
                let mut next = self.clone();
                next.report(rec.nonce());
                let collect = match gc {
                    Gc::Rest if !guards.pins_are_listed_after_the_drop => {
                        Gc::Confirm { roots: rec.clone(), pins: now.early.clone() }
                    }
                    Gc::Rest if !guards.pins_are_listed_before_savepoints => {
                        Gc::ListSavepoints { roots: rec.clone(), kept: Vec::new() }
                    }
                    Gc::Rest => Gc::ListPins { roots: rec.clone() },
                    busy => busy.clone(),
                };
                push("has committed", next, rec, &[], None, &collect);
            }
            Step::Done(
                CommitVerdict::Fenced(_)
                | CommitVerdict::Unlisted
                | CommitVerdict::Damaged
                | CommitVerdict::Foreign { .. },
            ) => {
                // Its collection may still be under way.
                let mut next = self.clone();
                next.commits_left[who] = 0;
                push("is fenced", next, head, doubt, None, gc);
            }
        }
        // Given up at any point (timeout, cancelled), with a commit to follow.
        let settled = matches!(now.step, Step::Done(_));
        if !settled && self.commits_left[who] > 0 && doubt.contains(&own) {
            push("gives up", self.clone(), head, doubt, None, gc);
        }
    }

    fn collect(
        &self,
        who: usize,
        guards: Guards,
        origin: Option<Origin>,
        (head, doubt, commit, gc): (&Rec, &[Nonce], Option<&Committing>, &Gc),
        all: &mut Vec<(String, State)>,
    ) {
        let mut push = |what: &str, mut next: State, gc| {
            let (head, doubt, commit) = (head.clone(), doubt.to_vec(), commit.cloned());
            next.attempts[who] = Attempt::Owner { head, origin, doubt, commit, gc };
            all.push((format!("{who}: {what}"), next));
        };
        match gc {
            Gc::Rest => {}
            Gc::ListPins { roots } => {
                let (roots, kept) = (roots.clone(), self.pins_for(roots.epoch));
                // Steps that can have no effect are left out, to keep the exploration small.
                let unused = self.slots.is_empty() && self.late_saves.is_empty();
                let next = if self.saver == Saver::Done && unused {
                    Gc::Confirm { roots, pins: kept }
                } else {
                    Gc::ListSavepoints { roots, kept }
                };
                push("lists the pins", self.clone(), next);
            }
            Gc::ListSavepoints { roots, kept } => {
                let (roots, mut kept) = (roots.clone(), kept.clone());
                kept.extend(self.savepoint().iter().map(|(version, _)| *version));
                let next = if guards.pins_are_listed_after_savepoints {
                    Gc::ListPinsAgain { roots, kept }
                } else {
                    Gc::Confirm { roots, pins: kept }
                };
                push("lists the savepoints", self.clone(), next);
            }
            Gc::ListPinsAgain { roots, kept } => {
                let (roots, mut pins) = (roots.clone(), kept.clone());
                pins.extend(self.pins_for(roots.epoch));
                push("lists the pins again", self.clone(), Gc::Confirm { roots, pins });
            }
            Gc::Confirm { roots, pins } => {
                let overtaken = self.newest().is_some_and(|newest| newest.epoch > roots.epoch);
                if overtaken && guards.collector_confirms {
                    push("is overtaken, and deletes nothing", self.clone(), Gc::Rest);
                } else {
                    let (roots, pins) = (roots.clone(), pins.clone());
                    push("sees no later attempt", self.clone(), Gc::ListChain { roots, pins });
                }
            }
            Gc::ListChain { roots, pins } => {
                let mut live = pins.clone();
                live.extend(roots.retained.map(|(version, _)| version));
                let needs = live.iter().filter_map(|version| self.store.get(version)?.needs);
                let needs: Vec<_> = needs.map(|(version, _)| version).collect();
                live.extend(needs);
                let kept = |rec: &Rec| {
                    (rec.version >= roots.version && guards.newest_is_kept)
                        || (rec.open && guards.opens_are_kept)
                        || live.contains(&rec.version)
                };
                let doomed: Vec<_> =
                    self.store.values().filter(|rec| !kept(rec)).map(|rec| rec.version).collect();
                push(
                    "plans to collect",
                    self.clone(),
                    if doomed.is_empty() { Gc::Rest } else { Gc::Delete(doomed) },
                );
            }
            Gc::Delete(doomed) => {
                let mut left = doomed.clone();
                let version = left.remove(0);
                let mut next = self.clone();
                next.store.remove(&version);
                push(
                    &format!("deletes {version}"),
                    next,
                    if left.is_empty() { Gc::Rest } else { Gc::Delete(left) },
                );
            }
        }
    }

    fn read(&self, guards: Guards, all: &mut Vec<(String, State)>) {
        let mut next = self.clone();
        if let (Reader::Idle, Some(target)) = (&self.reader, self.savepoint()) {
            let mut next = self.clone();
            next.reader = Reader::Found(target);
            all.push(("reader finds the savepoint".to_owned(), next));
        }
        let what = match &self.reader {
            Reader::Idle => {
                let Some(target) = self.newest().and_then(|newest| newest.retained) else { return };
                next.reader = Reader::Chosen(target);
                "chooses a checkpoint"
            }
            Reader::Chosen(target) => {
                next.pins.push((target.0, None));
                next.reader = Reader::Pinned(*target);
                "pins it"
            }
            Reader::Pinned(target) if !guards.reader_looks_again => {
                next.reader = Reader::Reading(*target);
                "reads at once"
            }
            Reader::Pinned(target) => {
                let Some(newest) = self.newest() else { return };
                next.reader = Reader::Listed(*target, newest.version);
                "lists again"
            }
            Reader::Listed(target, newest) => {
                next.reader = match self.store.get(newest) {
                    None => Reader::Pinned(*target),
                    Some(newest) if newest.retained == Some(*target) => Reader::Reading(*target),
                    Some(_) => {
                        next.unpin(*target, None);
                        Reader::Done
                    }
                };
                "looks whether it is retained"
            }
            Reader::Found(target) => {
                next.pins.push((target.0, None));
                next.reader = Reader::PinnedFound(*target);
                "pins what the savepoint names"
            }
            Reader::PinnedFound(target) => {
                next.reader = if self.savepoint() == Some(*target) || !guards.reader_looks_again {
                    Reader::Reading(*target)
                } else {
                    next.unpin(*target, None);
                    Reader::Done
                };
                "looks whether the savepoint is still there"
            }
            Reader::Reading(_) | Reader::Done => return,
        };
        all.push((format!("reader {what}"), next));
    }
}

impl State {
    fn unpin(&mut self, target: (u8, u8), owner: Option<u8>) {
        let at = self.pins.iter().position(|pin| *pin == (target.0, owner)).unwrap();
        self.pins.remove(at);
    }

    /// Everything that can come of making the savepoint under a pin.
    fn make(&self, guards: Guards, target: (u8, u8), all: &mut Vec<(String, State)>) {
        let newest = self.slots.last_key_value().map(|(newest, _)| *newest);
        let slot = match newest {
            Some(newest) if guards.names_are_numbered => (newest / 2 + 1) * 2,
            _ => 0,
        };
        let mut next = self.clone();
        if self.savepoint().is_some() || self.slots.contains_key(&slot) {
            next.unpin(target, None);
            next.saver = Saver::Done;
            return all.push(("saver finds the name taken".to_owned(), next));
        }
        next.slots.insert(slot, Some(target));
        next.saver = Saver::Saved(target);
        all.push((format!("saver makes the savepoint, generation {slot}"), next));
        if self.late_left > 0 {
            let mut next = self.clone();
            next.late_left -= 1;
            next.late_saves.push((slot, target));
            // The pin stays.
            next.saver = if self.saves_left > 0 { Saver::Idle } else { Saver::Done };
            all.push(("saver gives up without an answer".to_owned(), next));
        }
    }

    fn release(&self, guards: Guards, all: &mut Vec<(String, State)>) {
        let Some((slot, _)) = self.slots.last_key_value() else { return };
        let mut next = self.clone();
        if guards.names_are_numbered {
            next.slots.insert(slot | 1, None);
        }
        // All that is void; the newest stays.
        next.slots.retain(|there, _| there > slot);
        next.saver = if self.saves_left > 0 { Saver::Idle } else { Saver::Done };
        all.push(("saver releases the savepoint".to_owned(), next.clone()));
        if self.late_left > 0 {
            next.late_left -= 1;
            next.late_deletes.push(*slot);
            all.push(("saver releases the savepoint at the second try".to_owned(), next));
        }
    }

    fn save(&self, guards: Guards, all: &mut Vec<(String, State)>) {
        let mut next = self.clone();
        let what = match &self.saver {
            Saver::Idle if self.savepoint().is_some() => {
                next.saver = Saver::Kept(self.savepoint().unwrap());
                "finds that it exists all the same"
            }
            Saver::Idle if self.saves_left == 0 => {
                next.saver = Saver::Done;
                "has done"
            }
            Saver::Idle => {
                let Some(target) = self.newest().and_then(|newest| newest.retained) else { return };
                next.saver = Saver::Chosen(target);
                next.saves_left -= 1;
                "chooses a checkpoint"
            }
            Saver::Chosen(target) => {
                next.pins.push((target.0, None));
                next.saver = Saver::Pinned(*target);
                "pins it"
            }
            Saver::Pinned(target) => {
                let Some(newest) = self.newest() else { return };
                next.saver = Saver::Listed(*target, newest.version);
                "lists again"
            }
            Saver::Listed(target, newest) => {
                next.saver = match self.store.get(newest) {
                    None => Saver::Pinned(*target),
                    Some(newest) if newest.retained == Some(*target) => Saver::Confirmed(*target),
                    Some(_) => {
                        next.unpin(*target, None);
                        Saver::Done
                    }
                };
                "looks whether it is retained"
            }
            Saver::Confirmed(target) => return self.make(guards, *target, all),
            Saver::Saved(target) => {
                next.unpin(*target, None);
                next.saver = Saver::Kept(*target);
                "releases the pin"
            }
            Saver::Kept(_) => return self.release(guards, all),
            Saver::Done => return,
        };
        all.push((format!("saver {what}"), next));
    }
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
