//! What the library reports in the background, on standard error: warnings, and more by `-v` or `RUST_LOG`.

use std::str::FromStr;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::failure::{Failure, Result};

/// Shows events from now on. `RUST_LOG`, as in `alluvium=debug,warn`, goes before the number of `-v`.
///
/// # Errors
/// If `RUST_LOG` can't be read.
pub(crate) fn show(verbose: u8, rust_log: Option<&str>) -> Result<()> {
    let shown = filter(verbose, rust_log)?;
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    // Only one is ever set in a process.
    let _ = tracing_subscriber::registry().with(lines.with_filter(shown)).try_init();
    Ok(())
}

fn filter(verbose: u8, rust_log: Option<&str>) -> Result<Targets> {
    if let Some(text) = rust_log.filter(|text| !text.is_empty()) {
        return Targets::from_str(text).map_err(|error| {
            Failure::usage(format!("RUST_LOG is {text:?}: {error}"))
                .hint("write it as in alluvium=debug,warn")
        });
    }
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Libraries below only warn: all that they say would be too much.
    Ok(Targets::new().with_target("alluvium", level).with_default(LevelFilter::WARN))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_environment_goes_before_the_option() {
        let shows =
            |verbose, text, level| filter(verbose, text).unwrap().would_enable("alluvium::remote", &level);
        assert!(shows(0, None, Level::WARN) && !shows(0, None, Level::INFO));
        assert!(shows(2, None, Level::DEBUG) && !shows(2, None, Level::TRACE));
        assert!(shows(0, Some("alluvium=trace"), Level::TRACE) && !shows(3, Some("error"), Level::WARN));
        assert!(shows(1, Some(""), Level::INFO));
        assert!(filter(0, Some("alluvium=loud")).is_err());
    }
}
