//! Progress of a command that reads or writes a file.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on a terminal, nothing in a pipe.
pub(crate) fn bar(quiet: bool, length: u64) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:32} {percent:>3}% {elapsed}")
        .expect("the template is a constant that is right");
    ProgressBar::new(length).with_style(style.progress_chars("━╸ "))
}
