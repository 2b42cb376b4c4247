//! Where a subtask's store is.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::SubtaskIndex;
use crate::messages::Standing;
use crate::store::{EventSender, StoreShared};

use super::link::Heard;

/// Where a subtask's store is.
#[derive(Clone)]
pub(crate) enum Seat {
    /// In the committer's own process.
    Here { events: EventSender, shared: Arc<StoreShared> },
    /// In that of the member of this number.
    Member(usize),
}

impl Seat {
    /// How the store stands, as far as is known; `heard` is what members have told.
    pub(crate) fn standing(&self, subtask: SubtaskIndex, heard: &[Heard], now: Duration) -> Standing {
        match self {
            Self::Here { shared, .. } => shared.standing(now),
            Self::Member(member) => {
                heard.get(*member).map(|heard| heard.standing(subtask, now)).unwrap_or_default()
            }
        }
    }
}
