//! What a user does who makes a savepoint, and releases it.

use super::*;

impl State {
    pub(super) fn unpin(&mut self, target: (u8, u8), owner: Option<u8>) {
        let at = self.pins.iter().position(|pin| *pin == (target.0, owner)).unwrap();
        self.pins.remove(at);
    }

    /// Everything that can come of making the savepoint under a pin.
    pub(super) fn make(&self, guards: Guards, target: (u8, u8), all: &mut Vec<(String, State)>) {
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

    pub(super) fn release(&self, guards: Guards, all: &mut Vec<(String, State)>) {
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

    pub(super) fn save(&self, guards: Guards, all: &mut Vec<(String, State)>) {
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
