//! The task between a member's stores and the link to the committer. What the stores say goes up,
//! and what the committer says becomes messages to the stores, as if they were in its process.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::error::{Error, ErrorKind};
use crate::ids::{CheckpointId, SubtaskIndex, Version};
use crate::job::{Background, Outbox, Packer, closed};
use crate::manifest::{DeltaRef, fenced_by, newest_attempt};
use crate::messages::{
    ANSWER, FromMember, FromStore, Link, MemberStanding, Received, ToMember, ToStore, Verdict, encode,
};
use crate::remote::{BaseTraffic, Remote};
use crate::store::{Attempt, EventSender, StoreShared};

use super::named::Named;

/// A checkpoint is decided within its timeout at the committer. So much later, the committer's word
/// is no longer waited for.
const GRACE: Duration = Duration::from_secs(30);
/// After so long without an answer the member looks whether a later attempt has begun, then after
/// twice that time, and so on, at most so much later than before.
const SILENCE: Duration = Duration::from_secs(30);
const LONGEST_SILENCE: Duration = Duration::from_secs(600);
/// How often the committer hears how the stores stand while it waits for them.
const STANDING: Duration = Duration::from_secs(1);

/// Bases give way for no longer, whatever the committer says.
const LONGEST_WAY: Duration = Duration::from_secs(3600);

/// What the desk is told.
pub(crate) enum Event {
    /// By a store or the uploader.
    Told(FromStore),
    /// By the committer.
    Received(Box<Received<ToMember>>),
    /// By the host: the way to the committer is another one.
    Connect(Outbox),
}

/// What a desk works with.
pub(crate) struct DeskParts {
    pub(crate) link: Link,
    pub(crate) outbox: Outbox,
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) packer: Arc<Packer>,
    pub(crate) traffic: Arc<BaseTraffic>,
    // The tables go with the member, not with this task.
    pub(crate) background: Weak<Background>,
    pub(crate) stores: BTreeMap<SubtaskIndex, (EventSender, Arc<StoreShared>)>,
    pub(crate) checkpoint_timeout: Duration,
}

pub(crate) struct Desk {
    parts: DeskParts,
    /// Stores that cut no more for themselves, with the last checkpoint that they have cut for, or
    /// were told to.
    finished: BTreeMap<SubtaskIndex, u64>,
    /// The newest checkpoint that is not decided, as far as is known, and since when.
    pending: Option<(CheckpointId, Duration)>,
    named: Named,
    /// Whether anything was committed since a base was made.
    committed: bool,
    /// What the committer was last told of the stores, and when.
    told: Option<(MemberStanding, Duration)>,
    /// When the chain is looked at next, if the committer stays silent.
    patience: Duration,
    /// Both sides know of the attempt's end, or the link was given up.
    ended: bool,
}

impl Desk {
    pub(crate) fn new(parts: DeskParts) -> Self {
        Self {
            parts,
            finished: BTreeMap::new(),
            pending: None,
            named: Named::default(),
            committed: false,
            told: None,
            patience: SILENCE,
            ended: false,
        }
    }

    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        let start = Instant::now();
        let mut tick = tokio::time::interval(ANSWER);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = inbox.recv() => {
                    let Some(event) = event else { return };
                    self.handle(event, start.elapsed());
                }
                _ = tick.tick() => self.tick(start.elapsed()),
            }
        }
    }

    pub(crate) fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::Told(message) => self.told_by_store(message, now),
            Event::Received(frame) => self.received(*frame, now),
            Event::Connect(outbox) => {
                self.parts.outbox = outbox;
                self.parts.link.again(now).into_iter().for_each(|frame| self.parts.outbox.send(frame));
            }
        }
    }

    fn told_by_store(&mut self, message: FromStore, now: Duration) {
        match &message {
            FromStore::Receipt(receipt) => {
                self.named.note(receipt);
                // A barrier may have come before the word of its checkpoint.
                if self.pending.is_none_or(|(id, _)| id < receipt.checkpoint) {
                    self.pending = Some((receipt.checkpoint, now));
                }
            }
            // The desk does for the store what a coordinator does for one of its process.
            FromStore::Finished { subtask, last_cut } => {
                self.finished.insert(*subtask, *last_cut);
                if let Some((id, _)) = self.pending {
                    self.cut_finished(id);
                }
            }
            FromStore::Materialized(_) => self.base_made(),
            _ => {}
        }
        self.send(&FromMember::Told(message), now);
    }

    /// A member that sends one base after the other, and whose attempt commits nothing, may not know
    /// that it is fenced.
    fn base_made(&mut self) {
        if !std::mem::take(&mut self.committed) {
            self.look_for_successor();
        }
    }

    fn received(&mut self, frame: Received<ToMember>, now: Duration) {
        match (self.parts.link.receive(&frame.head, now), frame.message) {
            (Verdict::Take, Some(message)) => {
                self.patience = SILENCE;
                self.obey(message, now);
            }
            (Verdict::Later(_), _) => self.look_for_successor(),
            (Verdict::Replaced, _) => {
                self.ended = true;
                self.parts.attempt.fail(replaced());
            }
            (Verdict::Foreign, _) => tracing::debug!("a message of another job or attempt was ignored"),
            _ => {}
        }
    }

    fn obey(&mut self, message: ToMember, now: Duration) {
        match message {
            ToMember::Triggered { id, way } => self.triggered(id, way, now),
            ToMember::CutEarly { way } => {
                self.give_way(way);
                self.parts.attempt.ask_for_early_cut();
            }
            ToMember::Committed { id, refs } => self.committed(id, &refs),
            ToMember::Aborted(id) => self.given_up(id),
            ToMember::Late(subtask, id) => self.tell(subtask, ToStore::Aborted(id)),
            ToMember::Materialize => self.tell_all(&ToStore::Materialize),
            ToMember::Closed => {
                self.ended = true;
                self.parts.attempt.fail_quietly(closed());
            }
            ToMember::Failed(error) => {
                self.ended = true;
                self.parts.attempt.fail(error);
            }
        }
    }

    fn triggered(&mut self, id: CheckpointId, way: Duration, now: Duration) {
        // A barrier of a later one may have come before.
        if self.pending.is_none_or(|(pending, _)| pending <= id) {
            self.pending = Some((id, now));
        }
        self.give_way(way);
        self.parts.attempt.hear_of_start(id.number);
        self.cut_finished(id);
    }

    /// Has stores that cut no more for themselves cut for the checkpoint, each once: it is known by its
    /// trigger and by barriers that come before that.
    fn cut_finished(&mut self, id: CheckpointId) {
        let Self { finished, parts, .. } = self;
        for (subtask, cut) in finished.iter_mut().filter(|(_, cut)| id.number > **cut) {
            *cut = id.number;
            if let Some((events, _)) = parts.stores.get(subtask) {
                events.tell(ToStore::CutFinished(id));
            }
        }
    }

    fn give_way(&self, way: Duration) {
        // The time comes from outside, and may be any.
        self.parts.traffic.give_way(Instant::now() + way.min(LONGEST_WAY));
    }

    fn committed(&mut self, id: CheckpointId, refs: &[(SubtaskIndex, Vec<DeltaRef>)]) {
        self.committed = true;
        for subtask in self.parts.stores.keys() {
            let own = refs.iter().filter(|(other, _)| other == subtask).flat_map(|(_, refs)| refs);
            self.tell(*subtask, ToStore::Committed { id, refs: own.cloned().collect() });
        }
        let named = self.named.committed(id, refs);
        let named: Vec<_> = named.iter().map(|(subtask, delta)| (*subtask, delta)).collect();
        self.parts.packer.committed(&named);
        self.decided(id);
    }

    fn given_up(&mut self, id: CheckpointId) {
        self.tell_all(&ToStore::Aborted(id));
        self.named.decided(id);
        self.decided(id);
    }

    fn decided(&mut self, id: CheckpointId) {
        self.pending = self.pending.filter(|(pending, _)| *pending > id);
        self.parts.attempt.hear_of_end(id.number);
        // The committer alone knows when the next one is triggered; it calls ahead of that.
        self.parts.traffic.go_on(None);
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        self.parts.link.tick(now).into_iter().for_each(|frame| self.parts.outbox.send(frame));
        if self.ended {
            return;
        }
        if let Err(error) = self.parts.attempt.health() {
            self.send(&FromMember::Told(FromStore::Failed(error)), now);
            self.ended = true;
            return;
        }
        self.tell_standing(now);
        // What was offered to a checkpoint must not be held for ever (I6). If it is committed all the
        // same, nothing is lost: the stores have uploaded what it carries once more.
        if let Some((id, since)) = self.pending
            && now.saturating_sub(since) >= self.parts.checkpoint_timeout.saturating_add(GRACE)
        {
            tracing::warn!(checkpoint = %id, "nothing was heard of a checkpoint; it is given up here");
            self.given_up(id);
            self.look_for_successor();
        }
        if self.parts.link.silence(now).is_some_and(|silence| silence >= self.patience) {
            self.patience = next_look(self.patience);
            self.look_for_successor();
        }
    }

    fn tell_standing(&mut self, now: Duration) {
        let monotonic = self.parts.remote.env().clock.monotonic();
        let standing = |(subtask, (_, shared)): (&SubtaskIndex, &(EventSender, Arc<StoreShared>))| {
            (*subtask, shared.standing(monotonic))
        };
        let standing = MemberStanding {
            stores: self.parts.stores.iter().map(standing).collect(),
            abandoned: self.parts.attempt.complete().err(),
            trouble: self.parts.background.upgrade().and_then(|background| background.trouble(monotonic)),
        };
        let news = self.told.as_ref().is_none_or(|(told, at)| {
            told.differs(&standing) || (self.pending.is_some() && now.saturating_sub(*at) >= STANDING)
        });
        if news {
            self.send(&FromMember::Standing(standing.clone()), now);
            self.told = Some((standing, now));
        }
    }

    fn send(&mut self, message: &FromMember, now: Duration) {
        if self.ended || message.is_passing() && self.parts.link.is_behind() {
            return;
        }
        match encode(message).map(|bytes| self.parts.link.send(bytes, now)) {
            Ok(Ok(frame)) => self.parts.outbox.send(frame),
            // A committer that does not answer must not fill the memory (I6).
            Ok(Err(_)) => {
                self.ended = true;
                self.parts.attempt.fail(silent());
            }
            Err(error) => self.parts.attempt.fail(error),
        }
    }

    fn tell(&self, subtask: SubtaskIndex, message: ToStore) {
        if let Some((events, _)) = self.parts.stores.get(&subtask) {
            events.tell(message);
        }
    }

    fn tell_all(&self, message: &ToStore) {
        self.parts.stores.values().for_each(|(events, _)| events.tell(message.clone()));
    }

    /// Ends the attempt here if a later one has begun.
    fn look_for_successor(&self) {
        let (remote, attempt) = (Arc::clone(&self.parts.remote), Arc::clone(&self.parts.attempt));
        tokio::spawn(async move {
            let own = attempt.epoch;
            match newest_attempt(&remote, (Version(own.0), own)).await {
                Ok((_, epoch)) if epoch > own => attempt.fail(fenced_by(epoch)),
                Ok(_) => {}
                // The next occasion asks again.
                Err(error) => tracing::debug!(%error, "whether a later attempt has begun is not known"),
            }
        });
    }
}

/// The silence after which the chain is looked at again.
fn next_look(patience: Duration) -> Duration {
    patience.saturating_mul(2).min(patience.saturating_add(LONGEST_SILENCE))
}

fn replaced() -> Error {
    Error::new(ErrorKind::Fenced, "another process has opened the same assignment, and was heard of first")
        .advise("stop this process; open each assignment once")
}

fn silent() -> Error {
    Error::new(ErrorKind::Closed, "the committer takes no messages, and too many wait for it")
        .advise("start the job again, with all of its processes")
}
