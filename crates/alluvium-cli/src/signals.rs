//! Ctrl-C, SIGTERM and a hang-up: one of them ends the program within a second, whatever it waits for. A part
//! of the program that has something to bring to an end, a result or a pin, says so by a [`Grace`]; then the first
//! signal only asks it to, and a second one ends the program all the same. Waits are [announced](waiting).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alluvium::Env;
use alluvium_supervisor::Exit;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use crate::failure::{Failure, Result, io};
use crate::output::{fail, tell};
use crate::scratch;

/// Exit code of a program that a signal has ended.
const ENDED: i32 = Exit::Interrupted.code() as i32;
/// How often is looked for signals and long waits.
const LOOK: Duration = Duration::from_millis(50);
/// A wait is announced after this time, and then again and again.
const ANNOUNCE: Duration = Duration::from_secs(3);
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(10);

/// One clock for all: each counts from its own beginning.
static ENV: LazyLock<Env> = LazyLock::new(Env::default);
static STATE: Mutex<State> = Mutex::new(State::new());
/// Whether a signal has come.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What is still to be done if a signal ends the program.
static LAST_DEED: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);
/// How long it may take.
const DEED: Duration = Duration::from_secs(1);
/// Counts steps of work: where it moves, nothing is waited for.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// What the watching thread has to know.
#[derive(Debug)]
struct State {
    /// What the program waits for, the innermost last: what it is, since when, and when that was said.
    waits: Vec<(String, Duration, Option<Duration>)>,
    /// How long each graceful part may take after a signal, the innermost last; None: as long as it takes.
    graces: Vec<Option<Duration>>,
    /// The first signal.
    signal: Option<Duration>,
    quiet: bool,
    /// Steps of work at the last look.
    steps: u64,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    /// Say what is waited for, and for how long now.
    Announce(String, Duration),
    /// Say that the program comes to an end in order.
    SayEnding,
    /// End the program.
    End,
}

impl State {
    const fn new() -> Self {
        Self { waits: Vec::new(), graces: Vec::new(), signal: None, quiet: false, steps: 0 }
    }

    /// A signal has come.
    fn signalled(&mut self, now: Duration) -> Act {
        let Some(grace) = self.graces.last().filter(|_| self.signal.is_none()) else { return Act::End };
        self.signal = Some(now);
        // Where it takes no time, there is nothing to say.
        if grace.is_some() || self.quiet { Act::Nothing } else { Act::SayEnding }
    }

    /// Nothing has come.
    fn look(&mut self, now: Duration, steps: u64) -> Act {
        if let (Some(signal), Some(Some(grace))) = (self.signal, self.graces.last())
            && now.saturating_sub(signal) > *grace
        {
            return Act::End;
        }
        let Some((what, since, said)) = self.waits.last_mut() else { return Act::Nothing };
        if std::mem::replace(&mut self.steps, steps) != steps {
            (*since, *said) = (now, None);
        }
        let due = said.map_or(*since + ANNOUNCE, |said| said + ANNOUNCE_AGAIN);
        if now < due || self.quiet {
            return Act::Nothing;
        }
        *said = Some(now);
        Act::Announce(what.clone(), now.saturating_sub(*since))
    }

    /// What the program was doing, for the message at its end.
    fn waits_for(&self) -> String {
        self.waits.last().map_or(String::new(), |(what, ..)| format!(" while waiting for {what}"))
    }
}

fn now() -> Duration {
    ENV.clock.monotonic()
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches for signals and long waits from now on.
pub(crate) fn watch() -> Result<()> {
    let cleaning = Arc::new(AtomicBool::new(false));
    let mut wanted = vec![SIGINT, SIGTERM];
    if !hang_ups_are_ignored() {
        wanted.push(SIGHUP);
    }
    for signal in &wanted {
        // Where even cleaning up takes too long.
        flag::register_conditional_shutdown(*signal, ENDED, Arc::clone(&cleaning))
            .map_err(io("listen to signals"))?;
    }
    let mut signals = Signals::new(&wanted).map_err(io("listen to signals"))?;
    let watch = move || {
        loop {
            let (now, came) = (now(), signals.pending().count());
            let act = match came {
                0 => state().look(now, STEPS.load(Ordering::Relaxed)),
                _ => (0..came).fold(Act::Nothing, |_, _| state().signalled(now)),
            };
            if came > 0 {
                INTERRUPTED.store(true, Ordering::Release);
            }
            match act {
                Act::Nothing => {}
                Act::Announce(what, waited) => {
                    tell(format_args!("waiting for {what}, {} s so far", waited.as_secs()));
                }
                Act::SayEnding => tell("ending, with the result so far; a second signal ends at once"),
                Act::End => end(&cleaning),
            }
            std::thread::sleep(LOOK);
        }
    };
    let thread = std::thread::Builder::new().name("alluvium-signals".to_owned());
    thread.spawn(watch).map(drop).map_err(io("start a thread"))
}

/// Ends the program, but for its temporary files.
fn end(cleaning: &AtomicBool) -> ! {
    cleaning.store(true, Ordering::Release);
    fail(&Failure::interrupted(&state().waits_for()));
    let deed = LAST_DEED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(deed) = deed {
        let (done, is_done) = std::sync::mpsc::channel();
        // On a thread of its own: it may ask a store that does not answer.
        let thread = std::thread::Builder::new().spawn(move || {
            deed();
            let _ = done.send(());
        });
        if thread.is_ok() {
            let _ = is_done.recv_timeout(DEED);
        }
    }
    scratch::remove_all();
    low_level::exit(ENDED)
}

/// Under `nohup` the program shall outlive its terminal.
fn hang_ups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, SIGHUP)
}

/// Whether a process whose `/proc/…/status` this is ignores a signal.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// Says nothing of waits from now on.
pub(crate) fn be_quiet() {
    state().quiet = true;
}

/// Waits for `work`. If it takes long, the user is told that it waits for `what`.
pub(crate) fn waiting<T>(what: impl Into<String>, work: impl FnOnce() -> T) -> T {
    state().waits.push((what.into(), now(), None));
    let _ends = OnDrop(|| {
        state().waits.pop();
    });
    work()
}

/// For as long as it lives, a first signal does not end the program, but is seen by [`Interrupt`].
#[derive(Debug)]
pub(crate) struct Grace(());

impl Grace {
    /// The work that looks at [`Interrupt`] ends by itself: with its result, or where nothing moves any more.
    pub(crate) fn until_done() -> Self {
        state().graces.push(None);
        Self(())
    }

    /// The work ends within this time of a signal, or is ended.
    pub(crate) fn of(limit: Duration) -> Self {
        state().graces.push(Some(limit));
        Self(())
    }
}

impl Drop for Grace {
    fn drop(&mut self) {
        state().graces.pop();
    }
}

/// What is done if a signal ends the program while this lives.
#[derive(Debug)]
pub(crate) struct AtEnd(());

impl AtEnd {
    pub(crate) fn new(deed: impl FnOnce() + Send + 'static) -> Self {
        *LAST_DEED.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(deed));
        Self(())
    }
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        *LAST_DEED.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Whether a signal has come.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Acquire)
}

/// Set by a signal.
pub(crate) fn interrupt_flag() -> &'static AtomicBool {
    &INTERRUPTED
}

/// Does something also if the work before it has panicked.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Tells graceful work whether a signal has come.
#[derive(Debug)]
pub(crate) struct Interrupt;

impl Interrupt {
    /// A step of work is done.
    ///
    /// # Errors
    /// If there was one.
    pub(crate) fn check(&self) -> Result<()> {
        STEPS.fetch_add(1, Ordering::Relaxed);
        if interrupted() { Err(Failure::interrupted("")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_wait_begins_when_it_begins() {
        let before = now();
        std::thread::sleep(Duration::from_millis(5));
        assert!(now() - before >= Duration::from_millis(5), "not the time since a clock was made");
    }

    #[test]
    fn a_signal_ends_whatever_has_nothing_to_bring_to_an_end() {
        assert_eq!(State::new().signalled(seconds(1)), Act::End);
        let mut state = State { graces: vec![Some(seconds(5))], ..State::new() };
        assert_eq!(state.signalled(seconds(1)), Act::Nothing);
        assert_eq!((state.look(seconds(6), 0), state.look(seconds(7), 0)), (Act::Nothing, Act::End));
        assert_eq!(state.signalled(seconds(2)), Act::End, "the second one");
        state.graces.clear();
        assert_eq!(state.look(seconds(60), 0), Act::Nothing, "the result is still to be written");
    }

    #[test]
    fn a_run_ends_with_its_result_however_long_that_takes_and_a_second_signal_ends_it() {
        let mut state = State { graces: vec![None], ..State::new() };
        assert_eq!(state.signalled(seconds(1)), Act::SayEnding);
        assert_eq!(state.look(seconds(3600), 0), Act::Nothing);
        assert_eq!(state.signalled(seconds(3601)), Act::End);
    }

    #[test]
    fn long_waits_are_announced_again_and_again() {
        let mut state = State { waits: vec![("it".to_owned(), seconds(10), None)], ..State::new() };
        assert_eq!(state.look(seconds(12), 0), Act::Nothing);
        assert_eq!(state.look(seconds(13), 0), Act::Announce("it".to_owned(), seconds(3)));
        assert_eq!(state.look(seconds(22), 0), Act::Nothing);
        assert_eq!(state.look(seconds(23), 0), Act::Announce("it".to_owned(), seconds(13)));
        assert_eq!(state.look(seconds(40), 1), Act::Nothing, "work was done");
        assert_eq!(state.look(seconds(43), 1), Act::Announce("it".to_owned(), seconds(3)));
        state.quiet = true;
        assert_eq!(state.look(seconds(60), 1), Act::Nothing);
    }

    #[test]
    fn a_process_says_which_signals_it_ignores() {
        assert!(ignores("Name:\tx\nSigIgn:\t0000000000001001\n", SIGHUP));
        assert!(!ignores("SigIgn:\t0000000000001000\n", SIGHUP) && !ignores("", SIGHUP));
    }
}
