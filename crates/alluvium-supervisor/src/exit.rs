//! Exit codes: what a process says by its end to whoever may start it again.

use std::fmt;

/// The exit codes of the command line, of the supervisor, and of jobs that follow them. Whoever restarts a
/// job asks [`is_final`](Self::is_final).
///
/// A process that ends with a code that is not in this table, or by a signal, has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Exit {
    /// It has done what it was asked for.
    Well = 0,
    /// It failed. Another start may help.
    Failed = 1,
    /// It was called wrongly: an option, a URL, a missing program. Another start will fail alike.
    Usage = 2,
    /// A later attempt of the job has taken over. Another start would fence that one.
    Fenced = 3,
    /// The connection to another process of the job is gone.
    LostPeer = 4,
    /// More checkpoints failed in a row than the job tolerates.
    Overdue = 5,
    /// A supervisor has restarted the job as often as it may.
    GivenUp = 6,
    /// A signal ended it, as shells have it for Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The whole table, by code.
    pub const ALL: [Self; 8] = [
        Self::Well,
        Self::Failed,
        Self::Usage,
        Self::Fenced,
        Self::LostPeer,
        Self::Overdue,
        Self::GivenUp,
        Self::Interrupted,
    ];

    /// The code that the process ends with.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What a code means, if it is in the table.
    pub fn of_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }

    /// Whether a process that ended so must not be started again: another start would fail alike, or take the
    /// job away from the attempt that has it.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Usage | Self::Fenced => true,
            Self::Well
            | Self::Failed
            | Self::LostPeer
            | Self::Overdue
            | Self::GivenUp
            | Self::Interrupted => false,
        }
    }

    /// The meaning in a few words, as in the documentation's table.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Well => "ended well",
            Self::Failed => "failed",
            Self::Usage => "wrong usage",
            Self::Fenced => "fenced by a later attempt",
            Self::LostPeer => "lost the connection to another process of the job",
            Self::Overdue => "more checkpoints failed in a row than are tolerated",
            Self::GivenUp => "a supervisor has restarted the job as often as it may",
            Self::Interrupted => "ended by a signal",
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.meaning())
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A file of the repository, from its root.
    fn file(name: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        std::fs::read_to_string(root.join(name)).unwrap()
    }

    #[test]
    fn codes_stay_what_they_are() {
        let codes = Exit::ALL.map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 130], "supervisors elsewhere are configured with them");
        assert_eq!(Exit::of_code(3), Some(Exit::Fenced));
        assert_eq!((Exit::of_code(101), Exit::of_code(-1), Exit::of_code(259)), (None, None, None));
    }

    #[test]
    fn the_documentation_has_the_table() {
        let page = file("docs/operations.md");
        let shown = page.split("<!-- exit codes -->").nth(1).unwrap();
        let shown = shown.split("<!-- /exit codes -->").next().unwrap();
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let rows: Vec<_> = shown.lines().filter(|line| line.starts_with("| ")).skip(1).map(cells).collect();
        assert_eq!(rows.len(), Exit::ALL.len(), "{rows:#?}");
        for (row, exit) in rows.iter().zip(Exit::ALL) {
            assert_eq!(row[1], exit.code().to_string());
            assert!(row[2].starts_with(exit.meaning()), "{}: {}", exit.code(), row[2]);
            let restarted = match exit {
                Exit::Well | Exit::GivenUp => false,
                _ => !exit.is_final(),
            };
            assert_eq!(row[3].starts_with("yes"), restarted, "{}: {}", exit.code(), row[3]);
        }
    }

    /// Other supervisors have to be told which codes are final.
    #[test]
    fn what_is_deployed_elsewhere_knows_the_final_codes() {
        let codes: Vec<_> = Exit::ALL.into_iter().filter(|exit| exit.is_final()).map(Exit::code).collect();
        let [first, second] = codes[..] else { panic!("{codes:?}") };
        for (name, line) in [
            ("deploy/kubernetes/jobset.yaml", format!("values: [{first}, {second}]")),
            ("deploy/systemd/alluvium-job.service", format!("RestartPreventExitStatus={first} {second}")),
            ("deploy/systemd/alluvium-job@.service", format!("RestartPreventExitStatus={first} {second}")),
        ] {
            assert!(file(name).lines().any(|there| there.trim() == line), "{name} has no line {line:?}");
        }
    }
}
