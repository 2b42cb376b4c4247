//! What a reader does: it pins, looks again, and reads.

use super::*;

impl State {
    pub(super) fn read(&self, guards: Guards, all: &mut Vec<(String, State)>) {
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
