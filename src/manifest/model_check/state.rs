//! What there is, what must always hold of it, and what may happen next.

use super::*;

impl State {
    pub(super) fn new(bounds: &Bounds) -> Self {
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

    pub(super) fn newest(&self) -> Option<&Rec> {
        self.store.last_key_value().map(|(_, rec)| rec)
    }

    /// What the savepoint's name stands for.
    pub(super) fn savepoint(&self) -> Option<(u8, u8)> {
        self.slots.last_key_value().and_then(|(_, slot)| *slot)
    }

    /// The versions whose pins count for an attempt.
    pub(super) fn pins_for(&self, epoch: u8) -> Vec<u8> {
        let counts = |owner: Option<u8>| owner.is_none_or(|owner| owner >= epoch);
        self.pins.iter().filter(|(_, owner)| counts(*owner)).map(|(version, _)| *version).collect()
    }

    /// Whether a checkpoint is there, with all that it refers to.
    pub(super) fn holds(&self, (version, nonce): (u8, u8)) -> bool {
        let there = |(version, nonce): (u8, u8)| self.store.get(&version).filter(|rec| rec.nonce() == nonce);
        there((version, nonce)).is_some_and(|rec| rec.needs.is_none_or(|needs| there(needs).is_some()))
    }

    pub(super) fn newest_version(&self) -> Option<Version> {
        self.newest().map(|rec| Version(rec.version.into()))
    }

    pub(super) fn see(&self, version: u8) -> Seen {
        self.store.get(&version).map_or(Seen::Absent, |rec| Seen::Record {
            nonce: nonce(rec.nonce()),
            epoch: Epoch(rec.epoch.into()),
        })
    }

    pub(super) fn report(&mut self, nonce: u8) {
        self.reported.push(nonce);
        self.reported.sort_unstable();
        self.reported.dedup();
    }

    pub(super) fn apply(&mut self, rec: &Rec) -> bool {
        let absent = !self.store.contains_key(&rec.version);
        if absent {
            self.store.insert(rec.version, rec.clone());
        }
        absent
    }

    /// A nonce of its own for each write of each attempt.
    pub(super) fn draw(&mut self, who: usize) -> u8 {
        self.writes[who] += 1;
        who as u8 * 16 + self.writes[who]
    }

    /// Everything that can come of one conditional create.
    pub(super) fn create(&self, rec: &Rec) -> Vec<(State, Answer)> {
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
    pub(super) fn check(&self) -> Result<(), &'static str> {
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

    pub(super) fn successors(&self, guards: Guards) -> Vec<(String, State)> {
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
}
