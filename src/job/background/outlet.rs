//! Routes the uploader's reports to the stores, the coordinator, and the attempt's record of
//! uploads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::SubtaskIndex;
use crate::messages::{Committer, FromStore};
use crate::remote::ObjectName;
use crate::store::{Attempt, Event, EventSender};
use crate::uploads::{Arrival, Outlet};

pub(crate) struct JobOutlet {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) stores: BTreeMap<SubtaskIndex, EventSender>,
    pub(crate) committer: Committer,
}

impl Outlet for JobOutlet {
    fn arrived(&self, subtask: SubtaskIndex, arrival: Arrival) {
        if let Some(store) = self.stores.get(&subtask) {
            store.send(Event::Stored(arrival));
        }
    }

    fn retired(&self, objects: Vec<ObjectName>) {
        self.committer.tell(FromStore::Retired(objects));
    }

    fn took(&self, time: Duration) {
        self.committer.tell(FromStore::Uploaded { took: time });
    }

    fn is_over(&self) -> bool {
        self.attempt.health().is_err()
    }
}
