//! How a store stands, as the coordinator needs to know it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The state of a store on the operator's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Operator {
    /// An operator holds the store.
    #[default]
    Present,
    /// It has said that it is done ([`StateStore::finish`](crate::StateStore::finish)).
    Finished,
    /// The store was dropped without `finish`: it will never cut again.
    Gone,
}

/// How a store stands at one moment. The default is that of a store that was never heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) operator: Operator,
    /// Number of the last checkpoint that it has cut for, and the time since then.
    pub(crate) last_cut: Option<(u64, Duration)>,
    /// Bytes of deltas that are not yet applied or not yet durable.
    pub(crate) held: u64,
}

impl Standing {
    /// Whether it has cut for a checkpoint of this number.
    pub(crate) fn has_cut(&self, number: u64) -> bool {
        self.last_cut.is_some_and(|(last, _)| last >= number)
    }

    /// Whether a checkpoint of this number waits for a cut that can never come.
    pub(crate) fn fails(&self, number: u64) -> bool {
        self.operator == Operator::Gone && !self.has_cut(number)
    }

    /// The same, told a while later.
    #[must_use]
    pub(crate) fn after(mut self, passed: Duration) -> Self {
        self.last_cut = self.last_cut.map(|(number, ago)| (number, ago.saturating_add(passed)));
        self
    }

    /// Whether the other one says something else that somebody may be waiting to hear. The bytes
    /// that are held change all the time.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let number = |standing: &Self| standing.last_cut.map(|(number, _)| number);
        self.operator != other.operator || number(self) != number(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_fails_by_a_store_that_left_before_its_cut() {
        let cut = Some((3, Duration::from_secs(7)));
        let present = Standing { last_cut: cut, ..Standing::default() };
        assert!(!present.fails(4), "it may still cut");
        let gone = Standing { operator: Operator::Gone, ..present };
        assert!(gone.fails(4));
        assert!(!gone.fails(3), "it has cut for that one");
        assert!(!Standing { operator: Operator::Finished, ..Standing::default() }.fails(1));
        assert!(gone.differs(&present) && !present.differs(&present.after(Duration::from_secs(1))));
    }
}
