//! The table of targets (`scripts/bench.sh --table`): what is run for it, and what each row computes
//! from the results.
//!
//! A row compares figures of one turn, in which all sides ran one after the other, and its figure is
//! the median over the turns.

mod loads;
mod rows;
mod sheet;

pub(crate) use loads::{Load, Run, Side, runs};
pub(crate) use sheet::{Turn, sheet};
