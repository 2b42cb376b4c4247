//! What passes between the coordinator and members.

use super::Coordinator;
use crate::ids::Nonce;
use crate::job::members::{Heard, Seat};
use crate::manifest::{CheckpointRecord, DeltaRef, SubtaskRecord};
use crate::messages::{FromMember, FromStore, MemberStanding, ToMember};
use crate::remote::ObjectName;

impl Coordinator {
    pub(super) fn tell_members(&self, message: &ToMember) {
        self.members.iter().for_each(|member| member.tell(message.clone()));
    }

    /// Tells each member where the deltas of its subtasks lie that `carrier` has taken along.
    pub(super) fn tell_members_committed(&self, record: &CheckpointRecord, carrier: &ObjectName) {
        for member in &self.members {
            let own = record.subtasks.iter().filter(|subtask| member.subtasks.contains(&subtask.subtask));
            let refs = own.map(|subtask| (subtask.subtask, carried(subtask, carrier))).collect();
            member.tell(ToMember::Committed { id: record.id, refs });
        }
    }

    /// The stores of a member carry its session as their instance.
    pub(super) fn joined(&mut self, member: usize, session: Nonce) {
        let own = |seat: &Seat| matches!(seat, Seat::Member(other) if *other == member);
        for subtask in self.subtasks.values_mut().filter(|subtask| own(&subtask.seat)) {
            subtask.instance = Some(session);
        }
    }

    pub(super) async fn told_by(&mut self, member: usize, message: FromMember) {
        let own = |subtask| self.members.get(member).is_some_and(|own| own.subtasks.contains(&subtask));
        match message {
            FromMember::Told(FromStore::Receipt(receipt)) if !own(receipt.subtask) => {
                let (subtask, checkpoint) = (receipt.subtask, receipt.checkpoint);
                tracing::warn!(%subtask, %checkpoint, member, "a receipt of another member's subtask was ignored");
            }
            FromMember::Told(FromStore::Finished { subtask, .. }) if !own(subtask) => {
                tracing::warn!(%subtask, member, "the end of another member's subtask was ignored");
            }
            FromMember::Told(message) => self.told(message).await,
            FromMember::Standing(standing) => self.stands(member, standing),
        }
    }

    fn stands(&mut self, member: usize, standing: MemberStanding) {
        // That alone is no failure: a checkpoint that the store has cut for may still complete.
        if let Some(error) = &standing.abandoned {
            self.attempt.abandon(error.clone());
        }
        let at = self.monotonic();
        if let Some(heard) = self.progress().heard.get_mut(member) {
            *heard = Heard { standing, at };
        }
    }
}

/// The deltas of a subtask that lie in the manifest itself.
pub(super) fn carried(subtask: &SubtaskRecord, carrier: &ObjectName) -> Vec<DeltaRef> {
    subtask.deltas.iter().filter(|delta| delta.object == *carrier).cloned().collect()
}
