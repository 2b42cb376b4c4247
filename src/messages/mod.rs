//! What a store and the job that it belongs to tell each other, and the processes that they are in.
//!
//! Both sides see only this module of each other: a store knows no job, and a coordinator no
//! store's insides. The messages are plain values, so that they can cross processes where stores
//! and coordinator are not in one. Neither side waits for an answer to a message, and a lost one
//! costs time, never state: the coordinator commits only what receipts say, and gives a checkpoint
//! up whose receipts do not come. Messages to the coordinator may also come twice and overtake each
//! other; those to a store keep their order (`job/process_tests/lossy.rs` holds both).
//!
//! Between processes they travel in [frames](frame) over a [link], which makes up for what a
//! transport loses, doubles or delays.

mod down;
mod frame;
mod link;
#[cfg(test)]
mod link_tests;
mod member;
mod standing;
mod up;

pub(crate) use down::ToStore;
pub(crate) use frame::{Ends, Received, Side, decode, encode};
pub(crate) use link::{ANSWER, Link, Verdict};
pub(crate) use member::{FromMember, MemberStanding, ToMember};
pub(crate) use standing::{Operator, Standing};
pub(crate) use up::{Committer, FromStore};

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::time::Duration;

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::changelog::Moved;
    use crate::error::Error;
    use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, SubtaskIndex};
    use crate::manifest::DeltaRef;
    use crate::materialize::MaterializationReport;
    use crate::remote::{DataKind, ObjectName};

    #[track_caller]
    fn crosses<T: Serialize + DeserializeOwned + Debug>(message: &T) {
        let there: T = postcard::from_bytes(&postcard::to_stdvec(message).unwrap()).unwrap();
        assert_eq!(format!("{there:?}"), format!("{message:?}"));
    }

    /// Receipts have a test of their own.
    #[test]
    fn messages_can_cross_processes() {
        let checkpoint = CheckpointId { epoch: Epoch(3), number: 17 };
        let subtask = SubtaskIndex(1);
        let object = ObjectName::data(Epoch(3), subtask, Nonce([5; 16]), DataKind::Delta, 2);
        let delta = DeltaRef {
            object: object.clone(),
            offset: 1,
            length: 2,
            crc32c: 3,
            first: DeltaSeq(4),
            last: DeltaSeq(5),
            entries: 6,
        };
        let error = Error::corrupt("checksum does not match").object("x").source(std::io::Error::other("y"));
        let report = MaterializationReport {
            subtask,
            start_ms: 1.5,
            duration_ms: 2.5,
            seq: DeltaSeq(3),
            new_bytes: 4,
            new_files: 5,
            reused_bytes: 6,
            reused_files: 7,
        };
        for message in [
            FromStore::Refused { checkpoint, error: error.clone() },
            FromStore::Finished { subtask, last_cut: 7 },
            FromStore::Retired(vec![object]),
            FromStore::Materialized(report),
            FromStore::Uploaded { took: Duration::from_micros(1234) },
            FromStore::Failed(error.clone()),
        ] {
            crosses(&FromMember::Told(message));
        }
        let standing =
            Standing { operator: Operator::Finished, last_cut: Some((7, Duration::from_millis(8))), held: 9 };
        crosses(&FromMember::Standing(MemberStanding {
            stores: vec![(subtask, standing)],
            abandoned: Some(error.clone()),
            trouble: None,
        }));
        for message in [
            ToMember::Triggered { id: checkpoint, way: Duration::from_millis(250) },
            ToMember::CutEarly { way: Duration::ZERO },
            ToMember::Committed { id: checkpoint, refs: vec![(subtask, vec![delta.clone()])] },
            ToMember::Aborted(checkpoint),
            ToMember::Late(subtask, checkpoint),
            ToMember::Materialize,
            ToMember::Closed,
            ToMember::Failed(error),
        ] {
            crosses(&message);
        }
        let moved = Moved { deltas: vec![delta.clone()], runs: vec![delta.clone()], small: true };
        for message in [
            ToStore::CutFinished(checkpoint),
            ToStore::Committed { id: checkpoint, refs: vec![delta] },
            ToStore::Packed(moved),
            ToStore::Aborted(checkpoint),
            ToStore::Materialize,
            ToStore::Flush,
        ] {
            crosses(&message);
        }
    }
}
