//! Runs the decisions of a [gang](crate::gang) against processes of this machine.

use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::env::{Clock, random};
use crate::error::{Error, Result};
use crate::gang::{Act, Event, Gang};
use crate::notice::{Ended, Notice, Outcome};
use crate::place::{Place, has_secret, hex, secret_of};
use crate::policy::Policy;
use crate::process::Processes;

/// How often is looked whether the supervisor shall stop.
const LOOK: Duration = Duration::from_millis(50);
/// More processes on one machine are a mistake.
const MOST_PROCESSES: u32 = 1024;

/// What the processes of a job run.
#[derive(Debug, Clone)]
pub struct Program {
    path: OsString,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

impl Program {
    /// A program by its path, or by its name in `PATH`.
    pub fn new(path: impl AsRef<OsStr>) -> Self {
        Self { path: path.as_ref().to_owned(), arguments: Vec::new(), variables: Vec::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable, beside those that the supervisor itself has.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    fn command(&self, place: &Place) -> Command {
        let mut command = Command::new(&self.path);
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        command.args(&self.arguments).envs(variables).envs(place.variables());
        command
    }
}

/// Starts the processes of a job together on this machine, and all of them again when one fails.
///
/// The number of processes and workers may differ at every run: a job of Alluvium restores its state at any
/// number of subtasks up to its max parallelism.
///
/// ```no_run
/// use std::sync::atomic::AtomicBool;
///
/// use alluvium_supervisor::{Program, Supervisor};
///
/// let stop = AtomicBool::new(false); // set by a signal handler
/// let program = Program::new("./my-job").args(["--store", "s3://bucket/job"]);
/// let outcome = Supervisor::new(program).processes(2).workers(2).run(&stop, &mut |notice| eprintln!("{notice}"))?;
/// eprintln!("{outcome}");
/// std::process::exit(outcome.exit().code().into());
/// # #[allow(unreachable_code)]
/// # Ok::<(), alluvium_supervisor::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Supervisor {
    program: Program,
    processes: u32,
    workers: u32,
    policy: Policy,
}

impl Supervisor {
    /// One process with one worker, and the default [`Policy`].
    pub fn new(program: Program) -> Self {
        Self { program, processes: 1, workers: 1, policy: Policy::default() }
    }

    /// How many processes there are: 1 to 1,024. Default 1.
    #[must_use]
    pub fn processes(mut self, processes: u32) -> Self {
        self.processes = processes;
        self
    }

    /// How many workers each process has. It is only told to the processes ([`Place::workers`]). Default 1.
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// When the job is started again. Default [`Policy::default`].
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Supervises the job until it is over. Once `stop` is true, all processes get SIGTERM, after the
    /// [grace](Policy::grace) SIGKILL, and are not started again. `tell` is called with what happens.
    ///
    /// - Each process has a group of its own. SIGTERM and SIGKILL go to the whole group, and what a process leaves
    ///   behind in its group is killed when it ends. A Ctrl-C at the terminal reaches the supervisor alone.
    /// - Standard input of the processes is empty. Their lines are passed on with `[INDEX] ` before them.
    /// - Each process learns of its [`Place`] by environment variables. The addresses are free ports of 127.0.0.1,
    ///   chosen anew at every start. If another program takes one of them first, the process cannot listen there,
    ///   fails, and all start again with others. The secret is new at every start, unless the environment of the
    ///   supervisor has one already.
    /// - Processes are killed when the thread that called this function ends, so also when the supervisor is
    ///   killed by SIGKILL. This reaches the processes themselves, not what they have started:
    ///   where the program is a shell script, let it `exec` the job.
    ///
    /// # Errors
    /// If an option makes no sense, or the machine has no randomness. What becomes of the processes is no error,
    /// but the [`Outcome`].
    pub fn run(&self, stop: &AtomicBool, tell: &mut dyn FnMut(&Notice)) -> Result<Outcome> {
        self.validate()?;
        let clock = Clock::new();
        let (ends, ended) = channel();
        let mut processes = Processes::new(ends);
        let mut gang = Gang::new(self.policy.clone(), self.processes);
        // Without chance a delay is only shorter.
        let mut draw = || random().map_or(0, u64::from_le_bytes);
        let mut events = vec![Event::Tick];
        let mut asked = false;
        loop {
            while let Some(event) = events.pop() {
                for act in gang.on(event, clock.now(), &mut draw) {
                    match act {
                        Act::Tell(notice) => tell(&notice),
                        Act::Start { restarts } => events.extend(self.start(restarts, &mut processes)?),
                        Act::Terminate => processes.signal(Signal::SIGTERM),
                        Act::Kill => processes.signal(Signal::SIGKILL),
                    }
                }
            }
            if let Some(outcome) = gang.outcome() {
                processes.drain();
                return Ok(outcome.clone());
            }
            if !asked && stop.load(Ordering::Acquire) {
                asked = true;
                events.push(Event::Stop);
            } else {
                events.push(next(&gang, &clock, &ended, &mut processes));
            }
        }
    }

    fn validate(&self) -> Result<()> {
        if self.processes == 0 || self.workers == 0 {
            return Err(Error::new("a job has at least 1 process with 1 worker"));
        }
        if self.processes > MOST_PROCESSES {
            return Err(Error::new(format!(
                "{} processes are more than the {MOST_PROCESSES} that one machine may run",
                self.processes
            )));
        }
        self.policy.validate()
    }

    /// Starts all processes. Returns those that did not start.
    fn start(&self, restarts: u64, processes: &mut Processes) -> Result<Vec<Event>> {
        let secret = if has_secret() { None } else { Some(secret_of(random()?)) };
        let instance = hex(&random::<16>()?);
        let addresses = match free_addresses(self.processes) {
            Ok(addresses) => addresses,
            Err(error) => {
                let why = format!("no free port: {error}");
                let not = |process| Event::Ended(process, Ended::NotStarted(why.clone()));
                return Ok((0..self.processes).map(not).collect());
            }
        };
        let mut failed = Vec::new();
        for process in 0..self.processes {
            let place = Place {
                process,
                processes: self.processes,
                workers: self.workers,
                instance: instance.clone(),
                restarts,
                addresses: addresses.clone(),
                secret: secret.clone(),
            };
            if let Err(error) = processes.start(process, self.program.command(&place)) {
                let why = format!("{}: {error}", self.program.path.display());
                failed.push(Event::Ended(process, Ended::NotStarted(why)));
            }
        }
        Ok(failed)
    }
}

/// What happens next, after a short time at the latest.
fn next(gang: &Gang, clock: &Clock, ended: &Receiver<u32>, processes: &mut Processes) -> Event {
    let wait = gang.wake_at().map_or(LOOK, |at| at.saturating_sub(clock.now()).min(LOOK));
    match ended.recv_timeout(wait) {
        Ok(process) => Event::Ended(process, processes.reap(process)),
        Err(_) => Event::Tick,
    }
}

/// Ports that are free now.
fn free_addresses(processes: u32) -> std::io::Result<Vec<String>> {
    // All are held until the last one is found, so that none is found twice.
    let listeners = (0..processes).map(|_| TcpListener::bind("127.0.0.1:0"));
    let listeners = listeners.collect::<std::io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}
