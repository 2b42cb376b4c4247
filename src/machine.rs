//! What the machine, or the container around this process, has to give. Unknown outside of Linux.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// More memory than this is a mistake, also where nothing says how much there is.
const MOST_MEMORY: u64 = 1 << 44;

/// How many threads can run at a time.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Bytes of memory: the machine's, or less where a control group allows less.
pub(crate) fn memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| fs::read_to_string(file).ok());
    limits.filter_map(|text| text.trim().parse().ok()).chain(machine).min()
}

/// RocksDB ends the process where it does not get memory, and the kernel ends one that takes too much.
pub(crate) fn check_memory(memory: u64) -> Result<()> {
    match self::memory() {
        Some(there) if memory > there => Err(Error::invalid(format!(
            "{memory} bytes of memory are more than the {there} that this machine or its control group has"
        ))
        .advise("give the job what the process may use, less what the program needs itself")),
        None if memory > MOST_MEMORY => {
            Err(Error::invalid(format!("{memory} bytes of memory are more than any machine has")))
        }
        _ => Ok(()),
    }
}

/// Files that this process may have open. Where the limit in force is below `wanted`, it is raised as far as the
/// hard limit allows: nothing but the process itself stands in the way.
pub(crate) fn open_files(wanted: u64) -> Option<u64> {
    // Two jobs that open at the same time must not undo each other's raise.
    static RAISING: Mutex<()> = Mutex::new(());
    let _raising = RAISING.lock().unwrap_or_else(PoisonError::into_inner);
    let (soft, hard) = limits::get()?;
    let raised = raised(soft, hard, wanted);
    Some(if raised > soft && limits::set(raised) { raised } else { soft })
}

/// The limit that takes the place of `soft`.
fn raised(soft: u64, hard: u64, wanted: u64) -> u64 {
    wanted.min(hard).max(soft)
}

#[cfg(unix)]
#[allow(clippy::useless_conversion, reason = "the type of limits differs between systems")]
mod limits {
    use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

    const FILES: Resource = Resource::RLIMIT_NOFILE;

    /// The limit in force and the one that it may be raised to.
    pub(super) fn get() -> Option<(u64, u64)> {
        let number = |limit: rlim_t| u64::try_from(limit).unwrap_or(u64::MAX);
        getrlimit(FILES).ok().map(|(soft, hard)| (number(soft), number(hard)))
    }

    /// Whether the limit in force is `soft` now.
    pub(super) fn set(soft: u64) -> bool {
        let (Ok(soft), Ok((_, hard))) = (rlim_t::try_from(soft), getrlimit(FILES)) else { return false };
        setrlimit(FILES, soft, hard).is_ok()
    }
}

#[cfg(not(unix))]
mod limits {
    pub(super) fn get() -> Option<(u64, u64)> {
        None
    }

    pub(super) fn set(_: u64) -> bool {
        false
    }
}

/// What `/proc/meminfo` says that there is.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Where the limits stand for the control groups in `/proc/self/cgroup`: of each group and all around it, in the
/// first version of the interface and the second. Inside a container its own group is the root.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        // The last of a relative path's ancestors is empty: the root itself.
        files.extend(path.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_machine_is_read() {
        assert_eq!(total_memory("MemTotal:       24604088 kB\nMemFree:  1 kB\n"), Some(24_604_088 * 1024));
        for text in ["", "MemTotal:", "MemTotal: kB", "MemTotal: -1 kB", "MemTotal: 99999999999999999999 kB"]
        {
            assert_eq!(total_memory(text), None, "{text}");
        }
        assert_eq!(total_memory(&format!("MemTotal: {} kB", u64::MAX)), None);
    }

    #[test]
    fn the_limits_of_all_groups_around_are_found() {
        let files = limit_files("0::/a/b\n");
        let expected =
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(files, expected.map(PathBuf::from));
        let files = limit_files("12:cpu,cpuacct:/x\n7:memory:/x\nnonsense\n");
        let expected =
            ["/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        assert_eq!(files, expected.map(PathBuf::from));
        assert_eq!(limit_files("0::/").len(), 1);
    }

    #[test]
    fn a_limit_of_open_files_is_raised_as_far_as_it_may_be() {
        assert_eq!(raised(1024, 524_288, 5000), 5000);
        assert_eq!(raised(1024, 4096, 5000), 4096);
        assert_eq!(raised(1024, 524_288, 100), 1024, "it is never lowered");
        assert_eq!(raised(u64::MAX, u64::MAX, 5000), u64::MAX);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_memory_and_files() {
        assert!(memory().unwrap() > 1 << 20);
        assert!(open_files(0).is_none_or(|files| files > 3));
    }
}
