//! The processes of one start: each in a group of its own, watched by a thread, ended with all that it has started.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::notice::Ended;
use crate::output::{To, pass_on};

/// How long the last lines of processes that have ended may take to be passed on. A process that has left its group
/// can keep a stream open for ever.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The processes that live.
#[derive(Debug)]
pub(crate) struct Processes {
    living: BTreeMap<u32, Child>,
    /// Gets the index of a process that is to be reaped.
    ends: Sender<u32>,
    output: Sender<Infallible>,
    output_ends: Receiver<Infallible>,
}

impl Processes {
    pub(crate) fn new(ends: Sender<u32>) -> Self {
        let (output, output_ends) = channel();
        Self { living: BTreeMap::new(), ends, output, output_ends }
    }

    /// Starts a process. It must be called on the thread that supervises: the process is killed when this
    /// thread ends, which is what ends it when the supervisor is killed by SIGKILL.
    pub(crate) fn start(&mut self, process: u32, mut command: Command) -> std::io::Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        end_with_this_thread(&mut command);
        let mut child = command.spawn()?;
        let streams = (child.stdout.take(), child.stderr.take());
        // From here on, whatever fails, it is ended and reaped.
        let pid = group(&child);
        self.living.insert(process, child);
        let started = self.attend(process, pid, streams);
        if started.is_err() {
            self.reap(process);
        }
        started
    }

    fn attend(
        &self,
        process: u32,
        pid: Pid,
        (out, err): (Option<std::process::ChildStdout>, Option<std::process::ChildStderr>),
    ) -> std::io::Result<()> {
        if let Some(out) = out {
            pass_on(out, To::Stdout, process, self.output.clone())?;
        }
        if let Some(err) = err {
            pass_on(err, To::Stderr, process, self.output.clone())?;
        }
        let ends = self.ends.clone();
        let thread = std::thread::Builder::new().name(format!("process-{process}"));
        let watch = move || {
            // Not reaped here: as long as it is not, its number belongs to no stranger, and may be signalled.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(pid), flags) == Err(Errno::EINTR) {}
            // Nobody listens if the supervisor is over.
            let _ = ends.send(process);
        };
        thread.spawn(watch).map(drop)
    }

    /// Sends a signal to all processes that live, and to those that they have started.
    pub(crate) fn signal(&self, signal: Signal) {
        for child in self.living.values() {
            // One that is ending just now may be gone.
            let _ = killpg(group(child), signal);
        }
    }

    /// Ends what a process has left behind in its group, and says how it ended itself.
    pub(crate) fn reap(&mut self, process: u32) -> Ended {
        let Some(mut child) = self.living.remove(&process) else {
            return Ended::Lost("it was not started".to_owned());
        };
        let _ = killpg(group(&child), Signal::SIGKILL);
        match child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ended::Code(code),
                (None, Some(signal)) => Ended::Signal(signal),
                (None, None) => Ended::Lost(status.to_string()),
            },
            Err(error) => Ended::Lost(error.to_string()),
        }
    }

    /// Waits for the last lines of processes that have all ended.
    pub(crate) fn drain(mut self) {
        // Without this sender the channel ends with the last stream.
        self.output = channel().0;
        let _ = self.output_ends.recv_timeout(LAST_LINES);
    }
}

/// Nothing outlives its supervisor, however that ends.
impl Drop for Processes {
    fn drop(&mut self) {
        let living: Vec<_> = self.living.keys().copied().collect();
        for process in living {
            self.reap(process);
        }
    }
}

/// The group of a process has the number of the process.
fn group(child: &Child) -> Pid {
    // The system's own numbers fit.
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Has the process killed when the thread that starts it ends.
fn end_with_this_thread(command: &mut Command) {
    let supervisor = Pid::this();
    let bind = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // Had the supervisor been killed before this call, nobody would tell.
        if Pid::parent() == supervisor { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    #[expect(unsafe_code, reason = "code between fork and exec")]
    // SAFETY: the closure makes two system calls. It neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(bind);
    }
}
