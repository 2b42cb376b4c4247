//! What the user sees while a run is under way: a bar on a terminal; in a pipe a plain line at the
//! start of a stage and every ten seconds. On standard error, so that results can be piped.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::harness::backend::Gauges;
use crate::harness::stage::Stage;
use crate::output::tell;
use crate::units;

/// Time between two lines in a pipe.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Columns of title, stage and percents.
const BEFORE_MESSAGE: usize = 33;

/// Columns of the terminal.
fn columns() -> usize {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.map_or(80, |(terminal_size::Width(columns), _)| usize::from(columns))
}

/// Columns of the bar with its space: a narrow terminal has no room for one beside the figures.
fn bar_columns() -> usize {
    if columns() < 110 { 0 } else { 25 }
}

/// Where the progress of a run is shown.
#[derive(Debug)]
pub(crate) struct Progress {
    to: To,
    /// What is being run, at the start of every line.
    title: String,
    stage: &'static str,
    /// Whether the bar counts records (of the load) or milliseconds.
    counts_records: bool,
    next_line: Duration,
    last: (Duration, u64),
    rate: f64,
    /// The newest checkpoint, and how many requests had failed when it was first seen.
    since: (Option<Duration>, u64),
    /// What is being waited for.
    note: Option<String>,
}

#[derive(Debug)]
enum To {
    Nowhere,
    Lines,
    Bar(ProgressBar),
}

/// A look at the run.
pub(crate) struct View<'a> {
    pub(crate) now: Duration,
    pub(crate) elapsed: Duration,
    pub(crate) records: u64,
    pub(crate) gauges: &'a Gauges,
    /// Asked only for what is shown.
    pub(crate) trouble: &'a dyn Fn() -> Option<alluvium::Error>,
}

/// What is shown of a run.
#[derive(Debug, Default)]
struct Shown {
    rate: f64,
    /// Age, duration and bytes of the newest checkpoint.
    checkpoint: Option<(Duration, Duration, u64)>,
    state_bytes: u64,
    /// Requests that have failed since the newest checkpoint.
    failing: u64,
    trouble: Option<String>,
    note: Option<String>,
}

impl Shown {
    /// In the order of their weight: on a narrow terminal those that do not fit are left out.
    fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        if self.failing > 0 {
            parts.push(format!("{} FAILED REQUESTS", self.failing));
        }
        parts.extend(self.note.clone());
        parts.push(format!("{} records/s", units::count(self.rate)));
        if let Some((age, took, bytes)) = self.checkpoint {
            parts.push(format!("checkpoint {} ago", units::millis(age.as_secs_f64() * 1e3)));
            let took = units::millis(took.as_secs_f64() * 1e3);
            parts.push(format!("it took {took} and {}", units::bytes(bytes as f64)));
        }
        parts.push(format!("state {}", units::bytes(self.state_bytes as f64)));
        if let Some(trouble) = &self.trouble {
            // Where there is trouble, nothing weighs more than its reason.
            parts.insert(usize::from(self.failing > 0), trouble.clone());
        }
        parts
    }
}

/// As many of the parts as fit into so many columns, each of them whole; the first in any case, cut.
fn fit(parts: &[String], columns: usize) -> String {
    let mut text = String::new();
    for part in parts {
        let left = columns.saturating_sub(text.chars().count());
        if text.is_empty() {
            text = part.chars().take(columns).collect();
        } else if part.chars().count() + 2 <= left {
            text += ", ";
            text += part;
        }
    }
    text
}

impl Progress {
    pub(crate) fn new(title: impl Into<String>, quiet: bool) -> Self {
        let to = if quiet {
            To::Nowhere
        } else if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(match bar_columns() {
                0 => "{prefix:.bold} {percent:>3}% {wide_msg}",
                _ => "{prefix:.bold} {bar:24} {percent:>3}% {wide_msg}",
            })
            .expect("the template is a constant that is right");
            To::Bar(ProgressBar::new(1).with_style(style.progress_chars("━╸ ")))
        } else {
            To::Lines
        };
        Self {
            to,
            title: title.into(),
            stage: "",
            counts_records: false,
            next_line: LINE_EVERY,
            last: (Duration::ZERO, 0),
            rate: 0.0,
            since: (None, 0),
            note: None,
        }
    }

    /// A stage begins; `loads` is the number of records that a load stage has.
    pub(crate) fn begin(&mut self, stage: Stage, loads: u64) {
        self.stage = stage.kind.name();
        self.note = None;
        self.counts_records = stage.duration.is_none();
        self.next_line = LINE_EVERY;
        self.last = (Duration::ZERO, 0);
        let what = match stage.duration {
            None => format!("{} records", units::count(loads as f64)),
            Some(duration) => format!("{} s", units::three_digits(duration.as_secs_f64())),
        };
        match &self.to {
            To::Nowhere => {}
            To::Lines => tell(format_args!("{}, {}: {what}", self.title, self.stage)),
            To::Bar(bar) => {
                bar.reset();
                bar.set_length(stage.duration.map_or(loads, |duration| duration.as_millis() as u64).max(1));
                bar.set_prefix(format!("{:<18} {:<8}", self.title, self.stage));
                bar.set_message(what);
            }
        }
    }

    pub(crate) fn tick(&mut self, view: &View<'_>) {
        let since = view.elapsed.saturating_sub(self.last.0);
        if since >= Duration::from_millis(500) {
            self.rate = view.records.saturating_sub(self.last.1) as f64 / since.as_secs_f64();
            self.last = (view.elapsed, view.records);
        }
        let newest = view.gauges.last_checkpoint.map(|checkpoint| checkpoint.end);
        if newest != self.since.0 {
            self.since = (newest, view.gauges.remote.failures);
        }
        let shown = || {
            let failing = view.gauges.remote.failures.saturating_sub(self.since.1);
            let checkpoint = view.gauges.last_checkpoint.map(|checkpoint| {
                let took = checkpoint.end.saturating_sub(checkpoint.start);
                (view.now.saturating_sub(checkpoint.end), took, checkpoint.bytes)
            });
            Shown {
                rate: self.rate,
                checkpoint,
                state_bytes: view.gauges.live_sst_bytes,
                failing,
                trouble: (view.trouble)().map(|error| error.to_string()),
                note: self.note.clone(),
            }
        };
        match &self.to {
            To::Nowhere => {}
            To::Lines if view.elapsed >= self.next_line => {
                let seconds = view.elapsed.as_secs();
                tell(format_args!(
                    "{}, {}, {seconds} s: {}",
                    self.title,
                    self.stage,
                    shown().parts().join(", ")
                ));
                self.next_line += LINE_EVERY;
            }
            To::Lines => {}
            To::Bar(bar) => {
                bar.set_position(if self.counts_records {
                    view.records
                } else {
                    view.elapsed.as_millis() as u64
                });
                bar.set_message(fit(
                    &shown().parts(),
                    columns().saturating_sub(BEFORE_MESSAGE + bar_columns()),
                ));
            }
        }
    }

    /// What is being waited for.
    pub(crate) fn note(&mut self, text: &str) {
        self.note = Some(text.to_owned());
        match &self.to {
            To::Nowhere => {}
            To::Lines => tell(format_args!("{}, {}: {text}", self.title, self.stage)),
            To::Bar(bar) => bar.set_message(text.to_owned()),
        }
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) {
        match &self.to {
            To::Nowhere => {}
            To::Lines => tell(format_args!("{}, {text}", self.title)),
            To::Bar(bar) => bar.println(format!("{:<18} {text}", self.title)),
        }
    }

    pub(crate) fn finish(&self) {
        if let To::Bar(bar) = &self.to {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_shows_whole_figures_and_trouble_first() {
        let second = Duration::from_secs(1);
        let well = Shown {
            rate: 89_000.0,
            checkpoint: Some((second, second / 10, 1_000)),
            state_bytes: 5_000,
            ..Shown::default()
        };
        let all = "89,000 records/s, checkpoint 1.00 s ago, it took 100 ms and 1.00 kB, state 5.00 kB";
        assert_eq!(fit(&well.parts(), 200), all);
        assert_eq!(fit(&well.parts(), 40), "89,000 records/s, checkpoint 1.00 s ago");
        assert_eq!(fit(&well.parts(), 39), "89,000 records/s, checkpoint 1.00 s ago");
        assert_eq!(fit(&well.parts(), 38), "89,000 records/s, state 5.00 kB");
        let ill = Shown { failing: 7, trouble: Some("it is gone".to_owned()), ..well };
        assert_eq!(fit(&ill.parts(), 50), "7 FAILED REQUESTS, it is gone, 89,000 records/s");
    }
}
