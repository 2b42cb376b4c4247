//! `alluvium report`: results as one self-contained page.
//!
//! Text and tables are in the page as HTML; its script only draws the charts. Style and script lie
//! beside this file, and the plotting library below `vendor`. Text becomes markup in `maud` templates
//! alone, which escape it.

mod caveats;
mod charts;
mod findings;
mod groups;
mod memory;
mod model;
mod page;
mod phrases;
mod sampled;
mod sections;
mod settings;
mod summary;
mod tables;
mod tiles;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::failure::{Failure, Result, io};
use crate::output::Output;
use crate::result::{Prices, ResultFile};
use crate::units::bytes;

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Results to show, as --output of `load`, `compare` and `restore-test` or another system wrote them. Repetitions of a
    /// run are joined; other runs are compared with native mode
    #[arg(value_name = "FILE.json", required = true)]
    files: Vec<PathBuf>,
    /// Where to write the page
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    prices: Prices,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Written {
    file: String,
    runs: usize,
    bytes: usize,
}

pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    let mut results = Vec::new();
    for file in &args.files {
        if same_file(file, &args.output) {
            return Err(Failure::usage(format!(
                "--output {} would overwrite a result",
                args.output.display()
            )));
        }
        results.extend(ResultFile::read(file)?.results);
    }
    for result in &mut results {
        let measured_s = result.measured_s;
        if let Some(store) = &mut result.store {
            // At this page's prices, whatever those of the run were.
            store.usd_per_month = args.prices.usd_per_month(store, measured_s);
        }
    }
    let page = page::page(&results, &args.prices)?.into_string();
    std::fs::write(&args.output, &page).map_err(io(format!("write {}", args.output.display())))?;
    let file = args.output.display().to_string();
    let written = Written { file, runs: results.len(), bytes: page.len() };
    let text = || format!("{}: {} run(s), {}", written.file, written.runs, bytes(written.bytes as f64));
    Output::of_anything(args.json).write(&written, text)
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
