//! Routes the uploader's reports to the stores, the coordinator, and the attempt's record of
//! uploads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::ids::SubtaskIndex;
use crate::remote::ObjectName;
use crate::store::{Attempt, Event, EventSender};
use crate::uploads::{Arrival, Outlet};

use super::Command;

pub(super) struct JobOutlet {
    pub(super) attempt: Arc<Attempt>,
    pub(super) stores: BTreeMap<SubtaskIndex, EventSender>,
    pub(super) coordinator: mpsc::UnboundedSender<Command>,
}

impl Outlet for JobOutlet {
    fn arrived(&self, subtask: SubtaskIndex, arrival: Arrival) {
        if let Some(store) = self.stores.get(&subtask) {
            store.send(Event::Stored(arrival));
        }
    }

    fn retired(&self, objects: Vec<ObjectName>) {
        // If there is no receiver, the job is shutting down.
        let _ = self.coordinator.send(Command::Retired(objects));
    }

    fn took(&self, time: Duration) {
        self.attempt.uploaded(time);
    }

    fn is_over(&self) -> bool {
        self.attempt.health().is_err()
    }
}
