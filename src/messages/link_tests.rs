//! Two ends of a link over a post that loses, doubles, delays and reorders: whatever it does, each
//! message is taken once and in its turn, and what comes from elsewhere is not taken at all.
//!
//! A failing seed prints the command that replays it. `ALLUVIUM_SEEDS=1000` runs that many.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::frame::{Ends, Side, decode, encode};
use super::link::{ANSWER, Link, Overflow, Verdict};
use crate::ids::{Epoch, Nonce};

const SEEDS: u64 = 300;
const MESSAGES: u64 = 60;

fn ends(epoch: u64) -> Ends {
    Ends { job: Nonce([1; 16]), epoch: Epoch(epoch), member: 2 }
}

fn session(n: u8) -> Nonce {
    Nonce([n; 16])
}

fn pair() -> (Link, Link) {
    (Link::of_committer(ends(5)), Link::of_member(ends(5), session(7)))
}

fn message(n: u64) -> Bytes {
    encode(&n).unwrap()
}

/// What an end makes of a frame: the message that it takes, and why not.
fn take(link: &mut Link, from: Side, frame: &[u8], now: Duration) -> (Option<u64>, Verdict) {
    let frame = decode::<u64>(frame, from).unwrap();
    let verdict = link.receive(&frame.head, now);
    (frame.message.filter(|_| verdict == Verdict::Take), verdict)
}

struct World {
    committer: Link,
    member: Link,
    rng: StdRng,
    now: Duration,
    /// On their way down and up.
    down: Vec<Bytes>,
    up: Vec<Bytes>,
    /// How many were sent and taken, down and up.
    sent: [u64; 2],
    taken: [u64; 2],
    lost: usize,
    doubled: usize,
    foreign: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let (committer, member) = pair();
        Self {
            committer,
            member,
            rng: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            down: Vec::new(),
            up: Vec::new(),
            sent: [0; 2],
            taken: [0; 2],
            lost: 0,
            doubled: 0,
            foreign: 0,
        }
    }

    fn send(&mut self) {
        if self.sent[0] < MESSAGES && self.rng.random_ratio(1, 3) {
            self.sent[0] += 1;
            self.down.push(self.committer.send(message(self.sent[0]), self.now).unwrap());
        }
        if self.sent[1] < MESSAGES && self.rng.random_ratio(1, 3) {
            self.sent[1] += 1;
            self.up.push(self.member.send(message(self.sent[1]), self.now).unwrap());
        }
    }

    /// Words of an attempt before, of one to come, and of a second process with the same assignment.
    fn talk_from_elsewhere(&mut self) {
        let mut other = match self.rng.random_range(0..3) {
            0 => Link::of_member(ends(4), session(7)),
            1 => Link::of_member(ends(6), session(7)),
            // Heard of first, it would be the one that counts.
            _ if self.committer.session().is_none() => return,
            _ => Link::of_member(ends(5), session(8)),
        };
        self.foreign += 1;
        self.up.push(other.send(message(999), self.now).unwrap());
        self.down.push(Link::of_committer(ends(4)).send(message(999), self.now).unwrap());
    }

    fn carry(&mut self, down: bool, reliable: bool) {
        let way = if down { &mut self.down } else { &mut self.up };
        if way.is_empty() {
            return;
        }
        let at = if reliable { 0 } else { self.rng.random_range(0..way.len()) };
        let frame = way.remove(at);
        match self.rng.random_range(0..10) {
            0 | 1 if !reliable => {
                self.lost += 1;
                return;
            }
            2 if !reliable => {
                self.doubled += 1;
                way.push(frame.clone());
            }
            _ => {}
        }
        let (link, from) =
            if down { (&mut self.member, Side::Committer) } else { (&mut self.committer, Side::Member) };
        let (taken, _) = take(link, from, &frame, self.now);
        if let Some(n) = taken {
            let direction = usize::from(!down);
            self.taken[direction] += 1;
            assert_eq!(n, self.taken[direction], "in turn, and once");
            assert!(n <= self.sent[direction], "only what was sent");
        }
    }

    fn tick(&mut self) {
        self.now += ANSWER;
        self.down.extend(self.committer.tick(self.now));
        self.up.extend(self.member.tick(self.now));
    }

    fn run(mut self) -> Self {
        for _ in 0..600 {
            self.send();
            if self.rng.random_ratio(1, 10) {
                self.talk_from_elsewhere();
            }
            self.carry(true, false);
            self.carry(false, false);
            if self.rng.random_ratio(1, 4) {
                self.tick();
            }
        }
        // Nothing is lost any more. Within a few of the longest pauses all is through.
        for _ in 0..2000 {
            self.tick();
            while !self.down.is_empty() || !self.up.is_empty() {
                self.carry(true, true);
                self.carry(false, true);
            }
        }
        assert_eq!(self.taken, self.sent);
        assert_eq!(
            self.committer.silence(self.now).or(self.member.silence(self.now)),
            None,
            "all is answered"
        );
        self.tick();
        assert!(self.down.is_empty() && self.up.is_empty(), "an idle link says nothing");
        self
    }
}

fn run_printing_seed(seed: u64) -> [usize; 3] {
    let run = || {
        let world = World::new(seed).run();
        [world.lost, world.doubled, world.foreign]
    };
    std::panic::catch_unwind(run).unwrap_or_else(|payload| {
        let test = "messages::link_tests::replay";
        eprintln!("replay: ALLUVIUM_SEED={seed} cargo test --all-features --lib {test}");
        std::panic::resume_unwind(payload)
    })
}

#[test]
fn i1_each_message_is_taken_once_and_in_turn_whatever_the_post_does() {
    let seeds = std::env::var("ALLUVIUM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let mut total = [0; 3];
    for seed in 0..seeds {
        total.iter_mut().zip(run_printing_seed(seed)).for_each(|(total, more)| *total += more);
    }
    assert!(total.iter().all(|count| *count as u64 >= 10 * seeds), "{total:?}: too little happened");
}

/// Runs the one seed in `ALLUVIUM_SEED`, if it is set.
#[test]
fn replay() {
    if let Ok(seed) = std::env::var("ALLUVIUM_SEED") {
        run_printing_seed(seed.parse().unwrap());
    }
}

#[test]
fn over_a_sound_connection_nothing_is_sent_twice() {
    let (mut committer, mut member) = pair();
    let mut now = Duration::ZERO;
    for n in 1..=100 {
        let frame = member.send(message(n), now).unwrap();
        assert_eq!(take(&mut committer, Side::Member, &frame, now), (Some(n), Verdict::Take));
        now += ANSWER;
        let answers = committer.tick(now);
        assert_eq!(answers.len(), 1);
        assert_eq!(take(&mut member, Side::Committer, &answers[0], now), (None, Verdict::Nothing));
        assert!(member.tick(now).is_empty());
    }
    // An answer travels with a message, if there is one.
    let frame = member.send(message(101), now).unwrap();
    take(&mut committer, Side::Member, &frame, now);
    let frame = committer.send(message(1), now).unwrap();
    take(&mut member, Side::Committer, &frame, now);
    assert!(committer.tick(now + ANSWER).is_empty());
    assert_eq!(member.silence(now + ANSWER), None);
}

#[test]
fn what_is_not_answered_is_sent_again_later_and_later() {
    let (mut committer, _) = pair();
    drop(committer.send(message(1), Duration::ZERO).unwrap());
    let mut again = Vec::new();
    for tenth in 1..400 {
        let now = ANSWER * tenth;
        if !committer.tick(now).is_empty() {
            again.push(now.as_secs());
        }
    }
    assert_eq!(again, [1, 3, 7, 15, 23, 31, 39]);
    assert_eq!(committer.silence(Duration::from_secs(40)), Some(Duration::from_secs(40)));
}

#[test]
fn i2_a_member_of_another_attempt_is_not_heard() {
    let (mut committer, _) = pair();
    let mut verdict = |ends, session, number| {
        let mut link = Link::of_member(ends, session);
        let frames: Vec<_> = (1..=number).map(|n| link.send(message(n), Duration::ZERO).unwrap()).collect();
        take(&mut committer, Side::Member, frames.last().unwrap(), Duration::ZERO).1
    };
    assert_eq!(verdict(ends(4), session(1), 1), Verdict::Foreign, "before");
    assert_eq!(verdict(ends(6), session(1), 1), Verdict::Later(Epoch(6)));
    assert_eq!(verdict(Ends { job: Nonce([2; 16]), ..ends(5) }, session(1), 1), Verdict::Foreign);
    assert_eq!(verdict(Ends { member: 3, ..ends(5) }, session(1), 1), Verdict::Foreign);
    assert_eq!(verdict(ends(5), Nonce::default(), 1), Verdict::Foreign);
    assert_eq!(verdict(ends(5), session(1), 1), Verdict::Take, "the first that is heard of");
    assert_eq!(verdict(ends(5), session(2), 2), Verdict::Foreign, "another process with its assignment");
    assert_eq!(verdict(ends(5), session(1), 2), Verdict::Take);
}

#[test]
fn i2_of_two_processes_with_one_assignment_the_second_learns_of_the_first() {
    let (mut committer, mut first) = pair();
    let mut second = Link::of_member(ends(5), session(8));
    let frame = committer.send(message(1), Duration::ZERO).unwrap();
    assert_eq!(take(&mut second, Side::Committer, &frame, Duration::ZERO).1, Verdict::Take, "not known yet");
    let frame = first.send(message(1), Duration::ZERO).unwrap();
    take(&mut committer, Side::Member, &frame, Duration::ZERO);
    let frame = committer.send(message(2), Duration::ZERO).unwrap();
    assert_eq!(take(&mut second, Side::Committer, &frame, Duration::ZERO).1, Verdict::Replaced);
    // The first one has never seen the message before it.
    assert_eq!(take(&mut first, Side::Committer, &frame, Duration::ZERO).1, Verdict::Nothing);
    let again = committer.again(Duration::ZERO);
    assert_eq!(take(&mut first, Side::Committer, &again[0], Duration::ZERO), (Some(1), Verdict::Take));
}

#[test]
fn i6_a_counterpart_that_does_not_answer_fills_no_memory() {
    let (mut committer, _) = pair();
    let large = Bytes::from(vec![0; 16 << 20]);
    for _ in 0..4 {
        committer.send(large.clone(), Duration::ZERO).unwrap();
    }
    assert_eq!(committer.send(large, Duration::ZERO).unwrap_err(), Overflow);
    let (mut committer, _) = pair();
    for n in 0..65_536 {
        assert_eq!(committer.is_behind(), n >= 256);
        committer.send(message(n), Duration::ZERO).unwrap();
    }
    assert_eq!(committer.send(message(0), Duration::ZERO).unwrap_err(), Overflow);
    let again: usize = committer.again(Duration::ZERO).iter().map(Bytes::len).sum();
    assert!(again < 16 << 20, "{again} bytes at a time");
}
