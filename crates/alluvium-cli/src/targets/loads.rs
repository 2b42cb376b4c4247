//! What is run for the table of targets.

use std::fmt;

/// What every run has in common. The target rows name these settings.
const COMMON: &str =
    "--value-bytes 100 --subtasks 2 --checkpoint-interval 1s --store-model 30ms,50MB/s,100MB/s";

/// A short form: so much less of keys and memory.
const QUICK: u64 = 20;

/// A load and how it is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Load {
    /// Read-modify-writes, 50,000 a second
    Paced,
    /// Read-modify-writes as fast as it goes
    FullSpeed,
    /// The same, of few hot keys and many cold ones
    Zipf,
    /// Blind puts as fast as it goes
    Puts,
    /// Windows that are written and deleted whole
    Windows,
    /// Read-modify-writes of ten times the keys
    ManyKeys,
    /// The same, of few hot keys and many cold ones
    ManyKeysZipf,
}

/// What runs a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Changelog,
    Native,
    /// RocksDB without checkpoints.
    Plain,
    /// Changelog mode of an earlier build.
    Before,
}

/// One run of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) load: Load,
    pub(crate) side: Side,
}

const LOADS: [Load; 7] =
    [Load::Paced, Load::FullSpeed, Load::Zipf, Load::Puts, Load::Windows, Load::ManyKeys, Load::ManyKeysZipf];

/// The runs of one turn, in their order: the sides of a load one after the other. `only` names loads;
/// none means all. The earlier build takes part where `before` says so and a row asks for it.
pub(crate) fn runs(only: &[Load], before: bool) -> Vec<Run> {
    let wanted = |load: &Load| only.is_empty() || only.contains(load);
    LOADS
        .into_iter()
        .filter(wanted)
        .flat_map(|load| load.sides().iter().map(move |side| Run { load, side: *side }))
        .filter(|run| before || run.side != Side::Before)
        .collect()
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Paced => "paced",
            Self::FullSpeed => "full-speed",
            Self::Zipf => "zipf",
            Self::Puts => "puts",
            Self::Windows => "windows",
            Self::ManyKeys => "many-keys",
            Self::ManyKeysZipf => "many-keys-zipf",
        }
    }

    fn sides(self) -> &'static [Side] {
        use Side::{Before, Changelog, Native, Plain};
        match self {
            Self::Paced => &[Changelog, Native, Before],
            Self::FullSpeed => &[Changelog, Native, Plain, Before],
            _ => &[Changelog, Native],
        }
    }

    fn keys(self) -> u64 {
        match self {
            Self::ManyKeys | Self::ManyKeysZipf => 20_000_000,
            _ => 2_000_000,
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Paced => "--rate 50k --warm-up 45s --duration 100s --materialization-interval 60s",
            Self::FullSpeed => "--warm-up 12s --duration 30s --materialization-interval 30s",
            Self::Zipf => {
                "--distribution zipf:0.99 --warm-up 12s --duration 30s --materialization-interval 30s"
            }
            Self::Puts => "--operation put --warm-up 12s --duration 30s --materialization-interval 30s",
            Self::Windows => "--operation window --warm-up 12s --duration 30s --materialization-interval 30s",
            Self::ManyKeys => "--warm-up 30s --duration 30s --materialization-interval 30s",
            Self::ManyKeysZipf => {
                "--distribution zipf:0.99 --warm-up 30s --duration 30s --materialization-interval 30s"
            }
        }
    }

    /// Whether a row looks at the restore.
    fn restores(self) -> bool {
        matches!(self, Self::Paced | Self::FullSpeed)
    }
}

impl Run {
    /// The command's arguments. `quick` is for seeing that all of it works.
    pub(crate) fn arguments(self, quick: bool) -> Vec<String> {
        let (load, mode) = (self.load, self.side.mode());
        let less = if quick { QUICK } else { 1 };
        let (keys, memory) = (load.keys() / less, 512_000_000 / less);
        let mut line =
            format!("load --mode {mode} --keys {keys} --memory {memory} {COMMON} {}", load.options());
        if load.restores() && matches!(self.side, Side::Changelog | Side::Native) {
            line += " --verify";
        }
        if quick {
            // What stands later goes before what stands earlier.
            line += " --warm-up 1s --duration 3s";
            line += if load == Load::Paced { " --rate 5k" } else { "" };
        }
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// Of the file that its result of a turn lies in.
    pub(crate) fn file_name(self, turn: u32) -> String {
        format!("{}-{}-{turn}.json", self.load.name(), self.side.name())
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.load.name(), self.side.name())
    }
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Changelog => "changelog",
            Self::Native => "native",
            Self::Plain => "none",
            Self::Before => "before",
        }
    }

    /// As `--mode` has it.
    fn mode(self) -> &'static str {
        match self {
            Self::Before => Self::Changelog.name(),
            side => side.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser;

    use super::*;
    use crate::Cli;

    #[test]
    fn every_run_is_a_command_that_is_understood() {
        for run in runs(&[], true) {
            for quick in [false, true] {
                let line = ["alluvium".to_owned()].into_iter().chain(run.arguments(quick));
                Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{run}: {error}"));
            }
        }
    }

    #[test]
    fn runs_have_files_of_their_own_and_the_sides_of_a_load_take_turns() {
        let all = runs(&[], true);
        let names: BTreeSet<_> =
            (1..=3).flat_map(|turn| all.iter().map(move |run| run.file_name(turn))).collect();
        assert_eq!(names.len(), 3 * all.len());
        let loads: Vec<_> = all.iter().map(|run| run.load).collect();
        assert!(loads.is_sorted(), "a load's sides run one after the other");
        assert!(runs(&[], false).iter().all(|run| run.side != Side::Before));
        let only = runs(&[Load::Zipf], true);
        assert_eq!(
            only.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["zipf, changelog", "zipf, native"]
        );
    }

    #[test]
    fn a_quick_run_does_the_same_with_less() {
        let run = Run { load: Load::Paced, side: Side::Before };
        let (all, quick) = (run.arguments(false), run.arguments(true));
        assert_eq!(&all[..5], ["load", "--mode", "changelog", "--keys", "2000000"]);
        assert_eq!(&quick[..5], ["load", "--mode", "changelog", "--keys", "100000"]);
        assert_eq!(&quick[all.len()..], ["--warm-up", "1s", "--duration", "3s", "--rate", "5k"]);
    }
}
