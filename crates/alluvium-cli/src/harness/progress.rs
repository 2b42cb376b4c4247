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
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) elapsed: Duration,
    pub(crate) records: u64,
    pub(crate) gauges: &'a Gauges,
}

impl Progress {
    pub(crate) fn new(title: impl Into<String>, quiet: bool) -> Self {
        let to = if quiet {
            To::Nowhere
        } else if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{prefix:.bold} {bar:24} {percent:>3}% {wide_msg}")
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
        let text = || {
            let checkpoint = view.gauges.last_checkpoint.map_or(String::new(), |checkpoint| {
                let took = checkpoint.end.saturating_sub(checkpoint.start).as_secs_f64() * 1e3;
                format!(", checkpoint {} {}", units::millis(took), units::bytes(checkpoint.bytes as f64))
            });
            let state = units::bytes(view.gauges.live_sst_bytes as f64);
            let note = self.note.as_deref().map_or(String::new(), |note| format!(" ({note})"));
            format!("{} records/s{checkpoint}, state {state}{note}", units::count(self.rate))
        };
        match &self.to {
            To::Nowhere => {}
            To::Lines if view.elapsed >= self.next_line => {
                let seconds = view.elapsed.as_secs();
                tell(format_args!("{}, {}, {seconds} s: {}", self.title, self.stage, text()));
                self.next_line += LINE_EVERY;
            }
            To::Lines => {}
            To::Bar(bar) => {
                bar.set_position(if self.counts_records {
                    view.records
                } else {
                    view.elapsed.as_millis() as u64
                });
                bar.set_message(text());
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
