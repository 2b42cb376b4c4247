//! What an attempt's collector does.

use super::*;

impl State {
    pub(super) fn collect(
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
}
