//! The committer's end of the link to a member.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::error::{Error, ErrorKind};
use crate::ids::SubtaskIndex;
use crate::job::coordinator::Command;
use crate::messages::{
    ANSWER, Ends, FromMember, Link, MemberStanding, Received, Standing, ToMember, Verdict, encode,
};
use crate::store::Attempt;

/// Takes frames to the other process. Called on a thread of the background, and must not wait.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<dyn Fn(Bytes) + Send + Sync>);

impl Outbox {
    pub(crate) fn new(send: impl Fn(Bytes) + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }

    pub(crate) fn send(&self, frame: Bytes) {
        (self.0)(frame);
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbox")
    }
}

/// What was last heard of a member.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    pub(crate) standing: MemberStanding,
    /// When, by the committer's clock.
    pub(crate) at: Duration,
}

impl Heard {
    /// How a subtask's store stands by now, if nothing has happened since.
    pub(super) fn standing(&self, subtask: SubtaskIndex, now: Duration) -> Standing {
        let told = self.standing.stores.iter().find(|(other, _)| *other == subtask);
        told.map(|(_, standing)| standing.after(now.saturating_sub(self.at))).unwrap_or_default()
    }
}

/// The way to a member. Cheap to clone; no call waits.
#[derive(Debug, Clone)]
pub(crate) struct MemberLink {
    pub(crate) subtasks: Arc<[SubtaskIndex]>,
    inbox: mpsc::UnboundedSender<Event>,
}

#[derive(Debug)]
enum Event {
    Tell(ToMember),
    Received(Box<Received<FromMember>>),
    Connect(Outbox),
    Close(oneshot::Sender<()>),
}

impl MemberLink {
    /// A link, and the task that works for it.
    pub(crate) fn new(
        ends: Ends,
        subtasks: Arc<[SubtaskIndex]>,
        attempt: &Arc<Attempt>,
        commands: &mpsc::UnboundedSender<Command>,
    ) -> (Self, LinkTask) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let task = LinkTask {
            member: ends.member as usize,
            link: Link::of_committer(ends),
            inbox,
            outbox: None,
            attempt: Arc::clone(attempt),
            commands: commands.clone(),
            ended: false,
        };
        (Self { subtasks, inbox: sender }, task)
    }

    pub(crate) fn tell(&self, message: ToMember) {
        self.send(Event::Tell(message));
    }

    /// Takes in a frame that has arrived.
    pub(crate) fn received(&self, frame: Received<FromMember>) {
        self.send(Event::Received(Box::new(frame)));
    }

    /// From now on frames go there, beginning with what the member has not taken in.
    pub(crate) fn connect(&self, outbox: Outbox) {
        self.send(Event::Connect(outbox));
    }

    /// Tells the member that the job was closed. Done once the outbox has that.
    pub(crate) async fn close(&self) {
        let (reply, sent) = oneshot::channel();
        self.send(Event::Close(reply));
        // Fails if the background is going down.
        let _ = sent.await;
    }

    fn send(&self, event: Event) {
        // Fails only when the job is going down.
        let _ = self.inbox.send(event);
    }
}

/// See [`MemberLink::new`].
pub(crate) struct LinkTask {
    member: usize,
    link: Link,
    inbox: mpsc::UnboundedReceiver<Event>,
    outbox: Option<Outbox>,
    attempt: Arc<Attempt>,
    commands: mpsc::UnboundedSender<Command>,
    /// The member knows of the attempt's end, or the link was given up.
    ended: bool,
}

impl LinkTask {
    pub(crate) async fn run(mut self) {
        let start = Instant::now();
        let mut tick = tokio::time::interval(ANSWER);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.inbox.recv() => {
                    let Some(event) = event else { return };
                    self.handle(event, start.elapsed());
                }
                _ = tick.tick() => self.tick(start.elapsed()),
            }
        }
    }

    /// Deals with what is in the inbox by now.
    #[cfg(test)]
    pub(crate) fn drain(&mut self, now: Duration) {
        while let Ok(event) = self.inbox.try_recv() {
            self.handle(event, now);
        }
    }

    fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::Tell(message) => self.tell(&message, now),
            Event::Received(frame) => self.received(*frame, now),
            Event::Connect(outbox) => {
                self.link.again(now).into_iter().for_each(|frame| outbox.send(frame));
                self.outbox = Some(outbox);
            }
            Event::Close(reply) => {
                self.tell(&ToMember::Closed, now);
                self.ended = true;
                // If the caller was cancelled, there is no receiver.
                let _ = reply.send(());
            }
        }
    }

    fn tell(&mut self, message: &ToMember, now: Duration) {
        if self.ended || message.is_passing() && self.link.is_behind() {
            return;
        }
        match encode(message) {
            Ok(bytes) => match self.link.send(bytes, now) {
                Ok(frame) => self.post(frame),
                Err(_) => self.give_up(),
            },
            Err(error) => self.attempt.fail(error),
        }
    }

    /// A member that does not answer must not fill the memory (I6).
    fn give_up(&mut self) {
        self.ended = true;
        let message = format!("member {} takes no messages, and too many wait for it", self.member);
        self.attempt.fail(
            Error::new(ErrorKind::Closed, message).advise("start the job again, with all of its processes"),
        );
    }

    fn received(&mut self, frame: Received<FromMember>, now: Duration) {
        let known = self.link.session();
        let verdict = self.link.receive(&frame.head, now);
        if let Some(session) = self.link.session().filter(|_| known.is_none()) {
            self.command(Command::Joined { member: self.member, session });
            // What was sent before it came has been in vain.
            self.link.again(now).into_iter().for_each(|frame| self.post(frame));
        }
        match (verdict, frame.message) {
            (Verdict::Take, Some(message)) => {
                self.command(Command::Member { member: self.member, message: Box::new(message) });
            }
            (Verdict::Later(_), _) => self.command(Command::LookForSuccessor),
            (Verdict::Foreign, _) => {
                let Ends { epoch, .. } = frame.head.ends;
                tracing::warn!(member = self.member, %epoch, "a message of another process was ignored");
            }
            _ => {}
        }
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        self.link.tick(now).into_iter().for_each(|frame| self.post(frame));
        if self.ended {
            return;
        }
        if self.attempt.health().is_err() {
            let failure = self.attempt.failure().cloned();
            self.tell(&failure.map_or(ToMember::Closed, ToMember::Failed), now);
            self.ended = true;
        }
    }

    fn post(&self, frame: Bytes) {
        if let Some(outbox) = &self.outbox {
            outbox.send(frame);
        }
    }

    fn command(&self, command: Command) {
        // Fails only when the job is going down.
        let _ = self.commands.send(command);
    }
}
