//! What a process is told of its place among the processes of its job, by environment variables.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};

const PROCESS: &str = "ALLUVIUM_PROCESS";
const PROCESSES: &str = "ALLUVIUM_PROCESSES";
const WORKERS: &str = "ALLUVIUM_WORKERS";
const INSTANCE: &str = "ALLUVIUM_INSTANCE";
const RESTARTS: &str = "ALLUVIUM_RESTARTS";
const ADDRESSES: &str = "ALLUVIUM_ADDRESSES";
const SECRET: &str = "ALLUVIUM_SECRET";
const SECRET_FILE: &str = "ALLUVIUM_SECRET_FILE";

/// Below this a secret is too easily guessed.
const SECRET_BYTES: usize = 16;

/// The place of a process among the processes of its job.
///
/// | variable | meaning | default |
/// |---|---|---|
/// | `ALLUVIUM_PROCESS` | index of this process, from 0 | not set: the program runs alone |
/// | `ALLUVIUM_PROCESSES` | number of processes | 1 |
/// | `ALLUVIUM_WORKERS` | workers (threads with a subtask of their own) in each process | 1 |
/// | `ALLUVIUM_INSTANCE` | a name of this start, the same in all its processes, different at each | empty |
/// | `ALLUVIUM_RESTARTS` | restarts before this start | 0 |
/// | `ALLUVIUM_ADDRESSES` | where each process listens for the others, by index: `host:port`, separated by commas | none |
/// | `ALLUVIUM_SECRET` | what all processes know and nobody else; at least 16 bytes of text | none |
/// | `ALLUVIUM_SECRET_FILE` | a file that holds it; goes before the variable. A line end at its end does not count | none |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Index of this process, from 0.
    pub process: u32,
    /// Number of processes, at least 1.
    pub processes: u32,
    /// Workers in each process, at least 1.
    pub workers: u32,
    /// The name of this start.
    pub instance: String,
    /// Restarts before this start.
    pub restarts: u64,
    /// Where each process listens, by index. Empty if nothing was said.
    pub addresses: Vec<String>,
    /// What only the processes know.
    pub secret: Option<Secret>,
}

/// A shared secret. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    fn new(bytes: Vec<u8>, from: &str) -> Result<Self> {
        if bytes.len() < SECRET_BYTES {
            return Err(Error::new(format!(
                "the secret in {from} has {} bytes; give it at least {SECRET_BYTES}",
                bytes.len()
            )));
        }
        Ok(Self(bytes))
    }

    /// The secret itself, for a proof of knowing it. It is never to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Place {
    /// Reads the environment of this process; None if nobody has said its place, so that it runs alone.
    ///
    /// # Errors
    /// If a variable makes no sense. That is wrong usage ([`Exit::Usage`](crate::Exit::Usage)).
    pub fn from_env() -> Result<Option<Self>> {
        let variable = |name: &str| match std::env::var_os(name).map(std::ffi::OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(Error::new(format!("{name} is no UTF-8"))),
        };
        Self::read(&variable)
    }

    fn read(variable: &dyn Fn(&str) -> Result<Option<String>>) -> Result<Option<Self>> {
        let Some(process) = number(variable, PROCESS)? else { return Ok(None) };
        let count = |name| -> Result<u32> {
            match narrow(name, number(variable, name)?.unwrap_or(1))? {
                0 => Err(Error::new(format!("{name} is 0; it is at least 1"))),
                count => Ok(count),
            }
        };
        let (processes, workers) = (count(PROCESSES)?, count(WORKERS)?);
        let process = narrow(PROCESS, process)?;
        if process >= processes {
            return Err(Error::new(format!(
                "{PROCESS} is {process}, which is no index of {processes} process(es); {PROCESSES} says how many \
                 there are"
            )));
        }
        let addresses = variable(ADDRESSES)?.unwrap_or_default();
        let addresses: Vec<_> = addresses
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
            .map(str::to_owned)
            .collect();
        if !addresses.is_empty() && addresses.len() != processes as usize {
            return Err(Error::new(format!(
                "{ADDRESSES} has {} addresses for {processes} process(es); name one for each",
                addresses.len()
            )));
        }
        Ok(Some(Self {
            process,
            processes,
            workers,
            instance: variable(INSTANCE)?.unwrap_or_default(),
            restarts: number(variable, RESTARTS)?.unwrap_or(0),
            addresses,
            secret: secret(variable)?,
        }))
    }

    /// The variables that say it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            (PROCESS, self.process.to_string()),
            (PROCESSES, self.processes.to_string()),
            (WORKERS, self.workers.to_string()),
            (INSTANCE, self.instance.clone()),
            (RESTARTS, self.restarts.to_string()),
            (ADDRESSES, self.addresses.join(",")),
        ];
        if let Some(Secret(secret)) = &self.secret {
            variables.push((SECRET, String::from_utf8_lossy(secret).into_owned()));
        }
        variables
    }
}

/// Whether the supervisor's own environment has a secret already, which its processes inherit.
pub(crate) fn has_secret() -> bool {
    [SECRET, SECRET_FILE].iter().any(|name| std::env::var_os(name).is_some())
}

/// A secret that nobody can guess, as text.
pub(crate) fn secret_of(random: [u8; 32]) -> Secret {
    Secret(hex(&random).into_bytes())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn secret(variable: &dyn Fn(&str) -> Result<Option<String>>) -> Result<Option<Secret>> {
    if let Some(path) = variable(SECRET_FILE)? {
        let text = std::fs::read(Path::new(&path))
            .map_err(|error| Error::system(format!("read {path}, which {SECRET_FILE} names"), error))?;
        return Secret::new(text.trim_ascii_end().to_vec(), &path).map(Some);
    }
    variable(SECRET)?.map(|secret| Secret::new(secret.into_bytes(), SECRET)).transpose()
}

fn number(variable: &dyn Fn(&str) -> Result<Option<String>>, name: &str) -> Result<Option<u64>> {
    let Some(text) = variable(name)? else { return Ok(None) };
    match text.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Error::new(format!("{name} is {text:?}, which is no number from 0 on"))),
    }
}

fn narrow(name: &str, number: u64) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::new(format!("{name} is {number}, which is too large")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Place::read(&|name| Ok(variables.get(name).map(ToString::to_string)))
    }

    fn place() -> Place {
        Place {
            process: 1,
            processes: 2,
            workers: 3,
            instance: "ab01".to_owned(),
            restarts: 7,
            addresses: vec!["127.0.0.1:4000".to_owned(), "127.0.0.1:4001".to_owned()],
            secret: Some(secret_of([7; 32])),
        }
    }

    #[test]
    fn what_is_said_is_read() {
        let said = place().variables();
        let said: Vec<_> = said.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(read(&said), Ok(Some(place())));
        assert_eq!(place().secret.unwrap().bytes().len(), 64);
    }

    #[test]
    fn without_a_place_a_program_runs_alone_and_most_need_not_be_said() {
        assert_eq!(read(&[(PROCESSES, "2")]), Ok(None));
        let alone = read(&[(PROCESS, "0")]).unwrap().unwrap();
        assert_eq!((alone.processes, alone.workers, alone.restarts), (1, 1, 0));
        assert!(alone.addresses.is_empty() && alone.secret.is_none() && alone.instance.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_variable_s_name() {
        let long = "x".repeat(15);
        for (name, value) in [
            (PROCESS, "first"),
            (PROCESS, "2"),
            (PROCESS, "-1"),
            (PROCESSES, "0"),
            (PROCESSES, "4294967296"),
            (WORKERS, "0"),
            (RESTARTS, "many"),
            (ADDRESSES, "127.0.0.1:4000"),
            (SECRET, long.as_str()),
            (SECRET_FILE, "/nonexistent/secret"),
        ] {
            let all = [(PROCESS, "1"), (PROCESSES, "2")];
            let others: Vec<_> = all.into_iter().filter(|(other, _)| *other != name).collect();
            let error = read(&[&others[..], &[(name, value)]].concat()).unwrap_err();
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn a_secret_in_a_file_goes_before_the_variable_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let file = file.display().to_string();
        let place = read(&[(PROCESS, "0"), (SECRET, "another secret of 16"), (SECRET_FILE, &file)]);
        let place = place.unwrap().unwrap();
        assert_eq!(place.secret.as_ref().unwrap().bytes(), b"0123456789abcdef");
        assert!(!format!("{place:?}").contains("0123"), "{place:?}");
    }

    #[test]
    fn the_documentation_has_every_variable() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let page = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
        let names = place().variables().into_iter().map(|(name, _)| name).chain([SECRET_FILE]);
        for name in names {
            assert!(page.contains(&format!("| `{name}` |")), "docs/operations.md has no row for {name}");
        }
    }
}
