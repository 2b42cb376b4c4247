//! Passes on what processes print, each line with a prefix that says whose it is.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::Sender;

/// A longer line is passed on in pieces: what is held of it has to be bounded.
const LONGEST: u64 = 64 * 1024;

/// Where lines go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To {
    Stdout,
    Stderr,
}

impl To {
    /// What cannot be written is dropped: a reader that has gone away must not hold up the processes.
    fn write(self, line: &[u8]) {
        let _ = match self {
            Self::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(line).and_then(|()| out.flush())
            }
            Self::Stderr => std::io::stderr().lock().write_all(line),
        };
    }
}

/// Passes a stream on, on a thread of its own, which drops `done` at the stream's end.
pub(crate) fn pass_on(
    stream: impl Read + Send + 'static,
    to: To,
    process: u32,
    done: Sender<Infallible>,
) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name(format!("output-{process}"));
    let pass = move || {
        let _done = done;
        each_line(BufReader::new(stream), &format!("[{process}] "), &mut |line| to.write(line));
    };
    thread.spawn(pass).map(drop)
}

fn each_line(mut stream: impl BufRead, prefix: &str, write: &mut dyn FnMut(&[u8])) {
    let mut line = Vec::new();
    loop {
        line.clear();
        line.extend_from_slice(prefix.as_bytes());
        match (&mut stream).take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        // At once, so that lines of several processes don't mix.
        write(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(text: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        each_line(text, "[3] ", &mut |line| lines.push(String::from_utf8_lossy(line).into_owned()));
        lines
    }

    #[test]
    fn every_line_has_its_prefix_and_ends() {
        assert_eq!(passed(b""), [""; 0]);
        assert_eq!(passed(b"one\n\ntwo"), ["[3] one\n", "[3] \n", "[3] two\n"]);
        assert_eq!(passed(b"\xff\n"), ["[3] \u{fffd}\n"]);
    }

    #[test]
    fn a_line_without_end_is_passed_on_in_pieces() {
        let lines = passed(&vec![b'x'; 150_000]);
        let lengths: Vec<_> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [65_536 + 5, 65_536 + 5, 150_000 - 131_072 + 5]);
    }
}
