//! A source follows the checkpoints that others trigger.
#![allow(clippy::unwrap_used)]

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alluvium::{CheckpointId, CheckpointListener, OpenMode, Opened};
use alluvium_testkit::drive::{open, quiet};
use alluvium_testkit::{PATIENCE, eventually};
use object_store::memory::InMemory;

/// Wakes a source.
#[derive(Debug)]
struct Wake(Mutex<Sender<CheckpointId>>);

impl CheckpointListener for Wake {
    fn triggered(&self, id: CheckpointId) {
        // The source may have gone.
        let _ = self.0.lock().unwrap().send(id);
    }
}

#[test]
fn a_source_is_woken_by_a_trigger_and_sees_it_until_the_checkpoint_is_complete() {
    for scheduled in [false, true] {
        let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
        let (wake, woken) = mpsc::channel();
        let mut options = quiet(dir.path(), OpenMode::Create).listener(Arc::new(Wake(Mutex::new(wake))));
        if scheduled {
            options = options.checkpoint_interval(Duration::from_millis(10));
        }
        let Opened { job, mut stores, .. } = open(&store, options).unwrap();
        let by_hand = (!scheduled).then(|| {
            assert_eq!(job.due(), None);
            job.trigger("").unwrap()
        });
        let id = woken.recv_timeout(PATIENCE).unwrap();
        assert!(by_hand.is_none_or(|pending| pending.id() == id));
        assert_eq!((job.due(), stores[0].due()), (Some(id), Some(id)), "nothing is complete without a cut");
        stores[0].cut(id, "").unwrap();
        assert_eq!(stores[0].due(), None);
        eventually("the checkpoint is complete", PATIENCE, || job.due() != Some(id));
    }
}
