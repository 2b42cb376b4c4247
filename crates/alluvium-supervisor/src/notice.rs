//! What a supervisor tells: how processes ended, what it does about it, and its outcome.

use std::fmt;
use std::time::Duration;

use crate::exit::Exit;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// By an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It did not even start, for this reason.
    NotStarted(String),
    /// It has ended, and the system does not say how.
    Lost(String),
}

impl Ended {
    /// Whether it has done what it was there for.
    pub fn is_well(&self) -> bool {
        *self == Self::Code(0)
    }

    /// The code that says that another start would not help.
    pub(crate) fn final_exit(&self) -> Option<Exit> {
        match self {
            Self::Code(code) => Exit::of_code(*code).filter(|exit| exit.is_final()),
            Self::Signal(_) | Self::NotStarted(_) | Self::Lost(_) => None,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => match Exit::of_code(*code) {
                Some(exit) => write!(f, "ended with exit code {code} ({exit})"),
                None => write!(f, "ended with exit code {code}"),
            },
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::NotStarted(why) => write!(f, "did not start: {why}"),
            Self::Lost(why) => write!(f, "ended, nobody knows how: {why}"),
        }
    }
}

/// What a supervisor has seen or does now. Its text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// All processes were started; how many restarts there were before.
    Started {
        /// Restarts so far.
        restarts: u64,
    },
    /// A process has ended.
    Ended {
        /// Its index.
        process: u32,
        /// How.
        how: Ended,
    },
    /// The others are asked to end.
    Stopping {
        /// How many.
        processes: usize,
        /// How long they may take.
        grace: Duration,
    },
    /// They have not ended in time, and are killed.
    Killing {
        /// How many.
        processes: usize,
    },
    /// All processes start again.
    Restarting {
        /// After this time.
        after: Duration,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { restarts: 0 } => f.write_str("started"),
            Self::Started { restarts } => write!(f, "started again, restart {restarts}"),
            Self::Ended { process, how } => write!(f, "process {process} {how}"),
            Self::Stopping { processes, grace } => {
                write!(f, "stopping {processes} process(es), which may take {grace:?}")
            }
            Self::Killing { processes } => write!(f, "killing {processes} process(es) that have not ended"),
            Self::Restarting { after } => write!(f, "starting all processes again in {after:.1?}"),
        }
    }
}

/// How the supervision of a job came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All processes have ended well.
    Well,
    /// A process has said by its exit code that another start would not help.
    Final {
        /// The process.
        process: u32,
        /// Its exit code.
        exit: Exit,
    },
    /// The program could not be started the first time.
    NotStarted {
        /// Why.
        why: String,
    },
    /// Processes failed once more after as many restarts as are allowed.
    GivenUp {
        /// The process that failed first.
        process: u32,
        /// How.
        how: Ended,
        /// As many restarts there were within the window.
        restarts: u32,
    },
    /// The supervisor was asked to stop.
    Stopped {
        /// Whether every process ended well after it was asked to.
        well: bool,
    },
}

impl Outcome {
    /// The exit code for a program that did nothing but supervise.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Well | Self::Stopped { well: true } => Exit::Well,
            Self::Final { exit, .. } => *exit,
            Self::NotStarted { .. } => Exit::Usage,
            Self::GivenUp { .. } => Exit::GivenUp,
            Self::Stopped { well: false } => Exit::Interrupted,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("all processes have ended well"),
            Self::Final { process, exit } => {
                write!(f, "process {process} ended with exit code {} ({exit})", exit.code())?;
                match exit {
                    Exit::Fenced => {
                        f.write_str("; it is not started again, which would fence the later attempt")
                    }
                    _ => f.write_str("; it is not started again, which would fail alike"),
                }
            }
            Self::NotStarted { why } => write!(f, "the program cannot be started: {why}"),
            Self::GivenUp { process, how, restarts } => {
                write!(f, "given up after {restarts} restarts: process {process} {how}")
            }
            Self::Stopped { well: true } => f.write_str("stopped, all processes have ended well"),
            Self::Stopped { well: false } => f.write_str("stopped, not all processes have ended well"),
        }
    }
}
