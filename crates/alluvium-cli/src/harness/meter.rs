//! What the process has used, as the operating system counts it, and what the machine is. Everything
//! here is Linux's /proc; elsewhere the figures are absent, not zero.

use crate::result::Machine;

/// CPU and local disk use of the process so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: Option<f64>,
    pub(crate) local_write_bytes: Option<u64>,
}

impl Usage {
    pub(crate) fn now() -> Self {
        Self { cpu_s: cpu_seconds(), local_write_bytes: field("/proc/self/io", "write_bytes:") }
    }

    pub(crate) fn since(self, start: Self) -> Self {
        Self {
            cpu_s: self.cpu_s.zip(start.cpu_s).map(|(end, start)| end - start),
            local_write_bytes: self
                .local_write_bytes
                .zip(start.local_write_bytes)
                .map(|(end, start)| end.saturating_sub(start)),
        }
    }
}

/// User and system time of all threads, those that have ended too.
fn cpu_seconds() -> Option<f64> {
    // Linux shows times to programs in units of 1/100 s on all platforms (USER_HZ).
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name in parentheses may hold anything; user and system time are the 14th and 15th
    // fields, the 12th and 13th after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// The most memory that the process has held since [`reset_rss_peak`].
pub(crate) fn rss_peak_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM:").map(|kib| kib * 1024)
}

/// Starts the peak anew, so that a second run in the same process does not show the first one's.
pub(crate) fn reset_rss_peak() {
    // Where this is not allowed the peak is that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn field(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

/// The machine that this runs on.
pub(crate) fn machine() -> Machine {
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    Machine {
        cores: std::thread::available_parallelism().ok().map(|cores| cores.get() as u64),
        memory: field("/proc/meminfo", "MemTotal:").map(|kib| kib * 1024),
        load_average_before: load.and_then(|load| load.split_whitespace().next()?.parse().ok()),
    }
}

/// Bytes that the process has had to fetch from disks so far: what the page cache did not have.
pub(crate) fn disk_read_bytes() -> Option<u64> {
    field("/proc/self/io", "read_bytes:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn work_shows_in_the_cpu_time() {
        let start = Usage::now();
        let mut x = 1;
        let work = loop {
            x = (0..1_000_000).fold(x, |x, _| crate::harness::random::splitmix64(x));
            let used = Usage::now().since(start).cpu_s.unwrap();
            if used >= 0.05 {
                break used;
            }
        };
        assert!(x != 0 && work < 60.0);
        assert!(rss_peak_bytes().unwrap() > 1_000_000);
        assert!(machine().memory.unwrap() > 1_000_000);
    }
}
