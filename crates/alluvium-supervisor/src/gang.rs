//! The decisions of a supervisor: a state machine that is told what happened, and says what to do. It reads no
//! clock and touches no process.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::exit::Exit;
use crate::notice::{Ended, Notice, Outcome};
use crate::policy::Policy;

/// The processes of a job, which start and end together.
#[derive(Debug)]
pub(crate) struct Gang {
    policy: Policy,
    processes: u32,
    state: State,
    restarts: u64,
    /// Restarts since the job has last run steadily.
    in_a_row: u32,
    /// When there were restarts, as far as the limit's window reaches.
    recent: VecDeque<Duration>,
    /// Somebody wants the job to end.
    stop: bool,
}

#[derive(Debug)]
enum State {
    Waiting {
        until: Duration,
    },
    Running(Run),
    /// Those that live are asked to end. `kill_at` is None once they were killed.
    Stopping {
        run: Run,
        kill_at: Option<Duration>,
    },
    Over(Outcome),
}

/// One start of all processes.
#[derive(Debug)]
struct Run {
    since: Duration,
    living: BTreeSet<u32>,
    /// The first process that failed, when, and how.
    failed: Option<(u32, Duration, Ended)>,
    /// The first one that asked not to be started again. It need not be the first that failed: when one process
    /// is fenced, the others may notice sooner that their peer is gone.
    last_word: Option<(u32, Exit)>,
}

/// What has happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A process has ended, or did not start.
    Ended(u32, Ended),
    /// The supervisor is asked to stop.
    Stop,
    /// Time has gone by.
    Tick,
}

/// What to do. Processes that have ended by themselves meanwhile are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Start all processes.
    Start { restarts: u64 },
    /// Ask all that live to end.
    Terminate,
    /// Kill all that live.
    Kill,
    /// Tell the user.
    Tell(Notice),
}

impl Gang {
    /// Starts at the first tick.
    pub(crate) fn new(policy: Policy, processes: u32) -> Self {
        Self {
            policy,
            processes,
            state: State::Waiting { until: Duration::ZERO },
            restarts: 0,
            in_a_row: 0,
            recent: VecDeque::new(),
            stop: false,
        }
    }

    /// When the next tick is wanted; None: nothing is to be done before the next event.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Stopping { kill_at, .. } => kill_at,
            State::Running(_) | State::Over(_) => None,
        }
    }

    /// How it ended, once it has.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            State::Over(outcome) => Some(outcome),
            State::Waiting { .. } | State::Running(_) | State::Stopping { .. } => None,
        }
    }

    /// What to do about an event. `draw` gives any number at random.
    pub(crate) fn on(&mut self, event: Event, now: Duration, draw: &mut dyn FnMut() -> u64) -> Vec<Act> {
        let mut acts = Vec::new();
        // What is not put back below is over.
        let over = State::Over(Outcome::Stopped { well: true });
        self.state = match (std::mem::replace(&mut self.state, over), event) {
            (State::Waiting { until }, Event::Tick) if now >= until => self.start(now, &mut acts),
            (State::Waiting { .. }, Event::Stop) => {
                State::Over(Outcome::Stopped { well: self.restarts == 0 })
            }
            (State::Running(mut run), Event::Ended(process, how)) => {
                let fails = run.note(process, how, now, &mut acts);
                match run.living.is_empty() {
                    true => self.ended(run, now, draw, &mut acts),
                    false if fails => self.terminate(run, now, &mut acts),
                    false => State::Running(run),
                }
            }
            (State::Running(run), Event::Stop) => {
                self.stop = true;
                self.terminate(run, now, &mut acts)
            }
            (State::Stopping { mut run, kill_at }, Event::Ended(process, how)) => {
                run.note(process, how, now, &mut acts);
                match run.living.is_empty() {
                    true => self.ended(run, now, draw, &mut acts),
                    false => State::Stopping { run, kill_at },
                }
            }
            (State::Stopping { run, kill_at }, Event::Stop) => {
                self.stop = true;
                State::Stopping { run, kill_at }
            }
            (State::Stopping { run, kill_at: Some(at) }, Event::Tick) if now >= at => {
                acts.extend([Act::Tell(Notice::Killing { processes: run.living.len() }), Act::Kill]);
                State::Stopping { run, kill_at: None }
            }
            (unchanged, _) => unchanged,
        };
        acts
    }

    fn start(&self, now: Duration, acts: &mut Vec<Act>) -> State {
        let restarts = self.restarts;
        acts.extend([Act::Tell(Notice::Started { restarts }), Act::Start { restarts }]);
        let living = (0..self.processes).collect();
        State::Running(Run { since: now, living, failed: None, last_word: None })
    }

    fn terminate(&self, run: Run, now: Duration, acts: &mut Vec<Act>) -> State {
        let (processes, grace) = (run.living.len(), self.policy.grace);
        acts.extend([Act::Tell(Notice::Stopping { processes, grace }), Act::Terminate]);
        State::Stopping { run, kill_at: Some(now.saturating_add(grace)) }
    }

    /// All processes have ended: for good, or until the next restart.
    fn ended(
        &mut self,
        run: Run,
        now: Duration,
        draw: &mut dyn FnMut() -> u64,
        acts: &mut Vec<Act>,
    ) -> State {
        if let Some((process, exit)) = run.last_word {
            return State::Over(Outcome::Final { process, exit });
        }
        let Some((process, at, how)) = run.failed else {
            return State::Over(if self.stop { Outcome::Stopped { well: true } } else { Outcome::Well });
        };
        if self.stop {
            return State::Over(Outcome::Stopped { well: false });
        }
        // The first time this is a wrong name or a missing permission. Later, the program may be just being replaced.
        if let Ended::NotStarted(why) = &how
            && self.restarts == 0
        {
            return State::Over(Outcome::NotStarted { why: why.clone() });
        }
        if let Some(restarts) = self.used_up(now) {
            return State::Over(Outcome::GivenUp { process, how, restarts });
        }
        if at.saturating_sub(run.since) >= self.policy.steady {
            self.in_a_row = 0;
        }
        let after = self.policy.delay(self.in_a_row, draw());
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.restarts += 1;
        self.recent.push_back(now);
        acts.push(Act::Tell(Notice::Restarting { after }));
        State::Waiting { until: now.saturating_add(after) }
    }

    /// How many restarts there were within the window, if no more are allowed.
    fn used_up(&mut self, now: Duration) -> Option<u32> {
        let limit = self.policy.restarts?;
        let window = self.policy.window;
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) >= window) {
            self.recent.pop_front();
        }
        (self.recent.len() >= limit as usize).then_some(limit)
    }
}

impl Run {
    /// Notes how a process ended, and returns whether it failed.
    fn note(&mut self, process: u32, how: Ended, now: Duration, acts: &mut Vec<Act>) -> bool {
        self.living.remove(&process);
        acts.push(Act::Tell(Notice::Ended { process, how: how.clone() }));
        if let Some(exit) = how.final_exit() {
            self.last_word.get_or_insert((process, exit));
        }
        let fails = !how.is_well();
        if fails {
            self.failed.get_or_insert((process, now, how));
        }
        fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A gang with a clock of its own and no chance: every delay is whole but for a nanosecond.
    struct Case {
        gang: Gang,
        now: Duration,
    }

    impl Case {
        fn new(processes: u32, policy: Policy) -> Self {
            let mut case = Self { gang: Gang::new(policy, processes), now: seconds(100) };
            assert_eq!(case.on(Event::Tick), [Act::Start { restarts: 0 }]);
            case
        }

        fn of(processes: u32) -> Self {
            Self::new(processes, policy())
        }

        /// What is done but for words.
        fn on(&mut self, event: Event) -> Vec<Act> {
            let acts = self.gang.on(event, self.now, &mut || u64::MAX);
            acts.into_iter().filter(|act| !matches!(act, Act::Tell(_))).collect()
        }

        fn ends(&mut self, process: u32, code: i32) -> Vec<Act> {
            self.on(Event::Ended(process, Ended::Code(code)))
        }

        fn killed(&mut self, process: u32) -> Vec<Act> {
            self.on(Event::Ended(process, Ended::Signal(9)))
        }

        /// Moves the clock to the next restart; gives the delay, rounded up to milliseconds.
        fn restarts(&mut self, restarts: u64) -> Duration {
            let at = self.gang.wake_at().expect("it waits for a restart");
            let delay = at - self.now;
            self.now = at - Duration::from_nanos(1);
            assert_eq!(self.on(Event::Tick), [], "too early");
            self.now = at;
            assert_eq!(self.on(Event::Tick), [Act::Start { restarts }]);
            Duration::from_millis(u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap())
        }

        #[track_caller]
        fn is_over(&self, outcome: &Outcome) {
            assert_eq!(self.gang.outcome(), Some(outcome));
            assert_eq!(self.gang.wake_at(), None);
        }
    }

    fn policy() -> Policy {
        Policy::default()
            .grace(GRACE)
            .backoff(seconds(1), seconds(8))
            .steady(seconds(60))
            .limit(None, seconds(1))
    }

    #[test]
    fn processes_that_end_well_are_waited_for_and_not_started_again() {
        let mut case = Case::of(3);
        for process in [1, 0] {
            assert_eq!(case.ends(process, 0), []);
            assert_eq!(case.gang.outcome(), None);
        }
        assert_eq!(case.ends(2, 0), []);
        case.is_over(&Outcome::Well);
    }

    #[test]
    fn when_one_fails_the_others_end_and_all_start_again() {
        let mut case = Case::of(3);
        assert_eq!(case.ends(2, 0), [], "one has done its part already");
        assert_eq!(case.killed(1), [Act::Terminate]);
        assert_eq!(case.gang.wake_at(), Some(case.now + GRACE));
        assert_eq!(case.ends(0, 4), []);
        assert_eq!(case.restarts(1), seconds(1));
        // All three of them.
        for process in 0..3 {
            assert_eq!(case.ends(process, 0), []);
        }
        case.is_over(&Outcome::Well);
    }

    #[test]
    fn what_does_not_end_in_time_is_killed_once() {
        let mut case = Case::of(2);
        assert_eq!(case.ends(0, 1), [Act::Terminate]);
        case.now += GRACE - Duration::from_nanos(1);
        assert_eq!(case.on(Event::Tick), []);
        case.now += Duration::from_nanos(1);
        assert_eq!(case.on(Event::Tick), [Act::Kill]);
        assert_eq!((case.on(Event::Tick), case.gang.wake_at()), (vec![], None));
        assert_eq!(case.killed(1), []);
        case.restarts(1);
    }

    #[test]
    fn a_code_that_says_so_ends_it_whoever_says_it_and_when() {
        for (code, exit) in [(2, Exit::Usage), (3, Exit::Fenced)] {
            let mut first = Case::of(2);
            assert_eq!(first.ends(1, code), [Act::Terminate]);
            assert_eq!(first.killed(0), []);
            first.is_over(&Outcome::Final { process: 1, exit });
            // The other process has noticed before that its peer is gone.
            let mut second = Case::of(2);
            assert_eq!(second.ends(0, 4), [Act::Terminate]);
            assert_eq!(second.ends(1, code), []);
            second.is_over(&Outcome::Final { process: 1, exit });
            // Also if somebody wants it to stop at the same moment.
            let mut stopped = Case::of(1);
            assert_eq!(stopped.on(Event::Stop), [Act::Terminate]);
            assert_eq!(stopped.ends(0, code), []);
            stopped.is_over(&Outcome::Final { process: 0, exit });
        }
    }

    #[test]
    fn every_other_end_is_followed_by_a_restart() {
        for exit in Exit::ALL.into_iter().filter(|exit| !exit.is_final() && *exit != Exit::Well) {
            let mut case = Case::of(1);
            assert_eq!(case.ends(0, exit.code().into()), []);
            case.restarts(1);
        }
        for code in [101, 255, -1] {
            let mut case = Case::of(1);
            assert_eq!(case.ends(0, code), []);
            case.restarts(1);
        }
    }

    #[test]
    fn delays_grow_until_the_job_has_run_steadily() {
        let mut case = Case::of(1);
        for (restart, delay) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8)] {
            case.now += seconds(59);
            assert_eq!(case.killed(0), []);
            assert_eq!(case.restarts(restart), seconds(delay), "restart {restart}");
        }
        case.now += seconds(60);
        assert_eq!(case.killed(0), []);
        assert_eq!(case.restarts(6), seconds(1));
    }

    #[test]
    fn a_slow_end_of_the_others_is_no_steady_run() {
        let mut case = Case::of(2);
        assert_eq!(case.killed(0), [Act::Terminate]);
        case.killed(1);
        case.restarts(1);
        case.now += seconds(59);
        assert_eq!(case.killed(0), [Act::Terminate]);
        case.now += seconds(9);
        assert_eq!(case.killed(1), []);
        assert_eq!(case.restarts(2), seconds(2));
    }

    #[test]
    fn restarts_beyond_the_limit_end_it_and_old_ones_do_not_count() {
        let limited = policy().backoff(Duration::ZERO, Duration::ZERO).limit(Some(2), seconds(100));
        let mut case = Case::new(1, limited.clone());
        for restart in [1, 2] {
            assert_eq!(case.ends(0, 1), []);
            case.restarts(restart);
        }
        // The first two are out of the window.
        case.now += seconds(100);
        for restart in [3, 4] {
            assert_eq!(case.ends(0, 1), []);
            case.restarts(restart);
        }
        case.now += seconds(99);
        assert_eq!(case.ends(0, 5), []);
        case.is_over(&Outcome::GivenUp { process: 0, how: Ended::Code(5), restarts: 2 });

        let mut none = Case::new(1, limited.limit(Some(0), Duration::ZERO));
        none.killed(0);
        none.is_over(&Outcome::GivenUp { process: 0, how: Ended::Signal(9), restarts: 0 });
    }

    #[test]
    fn the_limit_counts_whole_restarts_and_not_processes() {
        let mut case = Case::new(3, policy().limit(Some(1), seconds(100)));
        assert_eq!(case.killed(0), [Act::Terminate]);
        case.killed(1);
        case.killed(2);
        case.restarts(1);
    }

    #[test]
    fn a_program_that_cannot_be_started_is_a_mistake_only_the_first_time() {
        let not = || Ended::NotStarted("no such file".to_owned());
        let mut case = Case::of(2);
        assert_eq!(case.on(Event::Ended(0, not())), [Act::Terminate]);
        case.on(Event::Ended(1, not()));
        case.is_over(&Outcome::NotStarted { why: "no such file".to_owned() });

        let mut later = Case::of(1);
        later.killed(0);
        later.restarts(1);
        later.on(Event::Ended(0, not()));
        later.restarts(2);
    }

    #[test]
    fn a_stop_ends_all_and_nothing_starts_any_more() {
        let mut case = Case::of(2);
        assert_eq!(case.on(Event::Stop), [Act::Terminate]);
        assert_eq!(case.on(Event::Stop), [], "once is enough");
        assert_eq!(case.ends(0, 0), []);
        assert_eq!(case.ends(1, 0), []);
        case.is_over(&Outcome::Stopped { well: true });

        let mut failing = Case::of(2);
        failing.on(Event::Stop);
        failing.on(Event::Ended(0, Ended::Signal(15)));
        failing.ends(1, 0);
        failing.is_over(&Outcome::Stopped { well: false });
    }

    #[test]
    fn a_stop_also_counts_while_others_end_or_while_a_restart_is_waited_for() {
        let mut ending = Case::of(2);
        assert_eq!(ending.killed(0), [Act::Terminate]);
        let kill_at = ending.gang.wake_at();
        assert_eq!(ending.on(Event::Stop), []);
        assert_eq!(ending.gang.wake_at(), kill_at, "the grace does not begin anew");
        ending.ends(1, 0);
        ending.is_over(&Outcome::Stopped { well: false });

        let mut waiting = Case::of(1);
        waiting.killed(0);
        assert_eq!(waiting.on(Event::Stop), []);
        waiting.is_over(&Outcome::Stopped { well: false });
        assert_eq!(waiting.on(Event::Tick), []);
    }

    #[test]
    fn what_happens_is_told() {
        let mut gang = Gang::new(policy(), 2);
        let mut told = Vec::new();
        let events = [
            (0, Event::Tick),
            (1, Event::Ended(1, Ended::Code(3))),
            (20, Event::Tick),
            (21, Event::Ended(0, Ended::Signal(9))),
        ];
        for (now, event) in events {
            for act in gang.on(event, seconds(now), &mut || 0) {
                if let Act::Tell(notice) = act {
                    told.push(notice.to_string());
                }
            }
        }
        assert_eq!(
            told,
            [
                "started",
                "process 1 ended with exit code 3 (fenced by a later attempt)",
                "stopping 1 process(es), which may take 10s",
                "killing 1 process(es) that have not ended",
                "process 0 was ended by signal 9",
            ]
        );
        let outcome = gang.outcome().unwrap();
        assert_eq!(outcome.exit(), Exit::Fenced);
        assert!(outcome.to_string().contains("would fence the later attempt"), "{outcome}");
    }
}
