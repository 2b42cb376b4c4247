//! What an attempt does: it opens, may go back to a savepoint, and commits.

use super::*;

impl State {
    pub(super) fn attempt(&self, who: usize, guards: Guards, all: &mut Vec<(String, State)>) {
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

    pub(super) fn commit(
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
}
