//! Running the command line.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Output};

use serde_json::Value;

pub(crate) fn command(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    command.args(args);
    command
}

/// A command that reacts to signals. Below `nohup`, and in the background of a script, some are
/// ignored, and a child inherits that.
pub(crate) fn interruptible(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM", env!("CARGO_BIN_EXE_alluvium")]).args(args);
    command
}

/// Sends the signal of that name.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(sent.expect("there is a command kill").success());
}

pub(crate) fn alluvium(args: &[impl AsRef<OsStr>]) -> Output {
    command(args).output().expect("the binary was built")
}

/// Standard output.
#[track_caller]
pub(crate) fn succeeds(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

#[track_caller]
pub(crate) fn fails(output: &Output, code: i32, message: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert!(err.contains(message), "{err:?} does not say {message:?}");
    assert!(!err.contains("panicked"), "{err}");
}

#[track_caller]
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_str(&succeeds(output)).expect("standard output is one JSON document")
}

pub(crate) fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().expect("temporary directories have plain names").to_owned()
}

/// A tiny run's options besides `args`.
pub(crate) fn tiny<'a>(command: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![command, "--keys", "2000", "--duration", "400ms", "--checkpoint-interval", "50ms"];
    all.extend(["--memory", "32MB"]);
    all.extend(args);
    all
}
