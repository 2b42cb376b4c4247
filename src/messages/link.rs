//! One end of the link between the committer and a member, over a transport that may lose, double,
//! delay and reorder what it carries. A pure state machine.
//!
//! Messages of each direction are numbered. The receiver takes them in turn, each once, and drops
//! any other. It says in each of its own frames how far it has come. What it has not taken is sent
//! again, later and later. So a message that is lost costs time and nothing else, and none overtakes
//! another; over a TCP connection nothing is ever sent twice.
//!
//! An end deals with one counterpart only: the same job, epoch and member, and the first session
//! that the committer has heard of. Whatever comes from elsewhere is ignored. An assignment is thus
//! held by one process, even if two have opened it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::ids::{Epoch, Nonce};

use super::frame::{Ends, Head, Side};

/// How long the counterpart may leave a message unanswered until it is sent again. Answers are given
/// within [`ANSWER`]. The time doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How long an answer may wait for a message that it can travel with.
pub(crate) const ANSWER: Duration = Duration::from_millis(100);
/// Bytes that are sent again at a time. More would be in vain if the first of them is lost again.
const MOST_AGAIN: usize = 1 << 20;
/// What waits for a counterpart that does not answer, before the link is given up.
const MOST_BYTES: usize = 64 << 20;
const MOST_MESSAGES: usize = 65_536;
/// Messages that wait before those that will be out of date are left out.
const BEHIND: usize = 256;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Link {
    side: Side,
    ends: Ends,
    /// The member's session. None if the committer has not heard of it.
    session: Option<Nonce>,
    /// The number of the last message that was sent.
    sent: u64,
    /// Messages that the counterpart has not taken in, as far as is known.
    waiting: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// The newest message that was taken in.
    seen: u64,
    /// Since when an answer is due.
    owes: Option<Duration>,
    /// Since when the oldest message waits, or was last sent.
    asked: Duration,
    /// Since when it has waited.
    stalled: Duration,
    pause: Duration,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its message is next in turn.
    Take,
    /// It has no message, or one that was taken before or is out of turn.
    Nothing,
    /// It is of another job, member, session or earlier attempt.
    Foreign,
    /// It is of a later attempt of the job.
    Later(Epoch),
    /// The committer deals with another process in this one's place.
    Replaced,
}

/// Too much waits for a counterpart that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

impl Link {
    /// The committer's end.
    pub(crate) fn of_committer(ends: Ends) -> Self {
        Self::new(Side::Committer, ends, None)
    }

    /// A member's end.
    pub(crate) fn of_member(ends: Ends, session: Nonce) -> Self {
        Self::new(Side::Member, ends, Some(session))
    }

    fn new(side: Side, ends: Ends, session: Option<Nonce>) -> Self {
        Self {
            side,
            ends,
            session,
            sent: 0,
            waiting: VecDeque::new(),
            bytes: 0,
            seen: 0,
            owes: None,
            asked: Duration::ZERO,
            stalled: Duration::ZERO,
            pause: FIRST_PAUSE,
        }
    }

    /// The member's session, if it was heard of.
    pub(crate) fn session(&self) -> Option<Nonce> {
        self.session
    }

    /// Whether messages that will soon be out of date are better left out.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting.len() >= BEHIND
    }

    /// How long the oldest message has gone unanswered.
    pub(crate) fn silence(&self, now: Duration) -> Option<Duration> {
        (!self.waiting.is_empty()).then(|| now.saturating_sub(self.stalled))
    }

    /// The frame of one more message. It may get lost.
    pub(crate) fn send(&mut self, message: Bytes, now: Duration) -> Result<Bytes, Overflow> {
        if self.waiting.len() >= MOST_MESSAGES || self.bytes.saturating_add(message.len()) > MOST_BYTES {
            return Err(Overflow);
        }
        if self.waiting.is_empty() {
            (self.asked, self.stalled, self.pause) = (now, now, FIRST_PAUSE);
        }
        self.sent += 1;
        self.bytes += message.len();
        self.waiting.push_back((self.sent, message.clone()));
        self.owes = None;
        Ok(self.head(self.sent).seal(&message))
    }

    /// What is to be done with a frame from this link's other side.
    pub(crate) fn receive(&mut self, head: &Head, now: Duration) -> Verdict {
        debug_assert_ne!(head.from, self.side, "frames that go the other way are not decoded");
        let Ends { job, epoch, member } = head.ends;
        if (job, member) != (self.ends.job, self.ends.member) || epoch < self.ends.epoch {
            return Verdict::Foreign;
        }
        if epoch > self.ends.epoch {
            return Verdict::Later(epoch);
        }
        let unheard = head.session == Nonce::default();
        match (self.side, self.session) {
            (Side::Committer, _) if unheard => return Verdict::Foreign,
            (Side::Committer, None) => self.session = Some(head.session),
            (Side::Committer, Some(session)) if session != head.session => return Verdict::Foreign,
            (Side::Member, session) if !unheard && session != Some(head.session) => {
                return Verdict::Replaced;
            }
            _ => {}
        }
        self.answered(head.seen, now);
        if head.number == 0 {
            return Verdict::Nothing;
        }
        // Also if it is out of turn: the counterpart seems not to know how far this end has come.
        self.owes.get_or_insert(now);
        if head.number != self.seen.saturating_add(1) {
            return Verdict::Nothing;
        }
        self.seen = head.number;
        Verdict::Take
    }

    /// What is to be sent now: messages once more, or an answer alone. Called every [`ANSWER`] or so.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<Bytes> {
        let mut frames = Vec::new();
        if !self.waiting.is_empty() && now.saturating_sub(self.asked) >= self.pause {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            frames = self.again(now);
        }
        if self.owes.is_some_and(|since| now.saturating_sub(since) >= ANSWER) {
            self.owes = None;
            frames.push(self.head(0).seal(&[]));
        }
        frames
    }

    /// The messages that wait, once more: the oldest of them. For a new connection, too.
    pub(crate) fn again(&mut self, now: Duration) -> Vec<Bytes> {
        self.asked = now;
        let mut bytes = 0_usize;
        let frames: Vec<_> = self
            .waiting
            .iter()
            .take_while(|(_, message)| {
                let first = bytes == 0;
                bytes = bytes.saturating_add(message.len());
                first || bytes <= MOST_AGAIN
            })
            .map(|(number, message)| self.head(*number).seal(message))
            .collect();
        if !frames.is_empty() {
            self.owes = None;
        }
        frames
    }

    /// The counterpart has taken in all up to this message.
    fn answered(&mut self, through: u64, now: Duration) {
        let before = self.waiting.len();
        while self.waiting.front().is_some_and(|(number, _)| *number <= through) {
            if let Some((_, message)) = self.waiting.pop_front() {
                self.bytes -= message.len();
            }
        }
        if self.waiting.len() < before {
            (self.asked, self.stalled, self.pause) = (now, now, FIRST_PAUSE);
        }
    }

    fn head(&self, number: u64) -> Head {
        let session = self.session.unwrap_or_default();
        Head { from: self.side, ends: self.ends, session, number, seen: self.seen }
    }
}
