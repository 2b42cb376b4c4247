//! Typed keyed state on top of [`StateStore`](crate::StateStore).

mod cell;
mod codec;
mod value;

pub use value::{ValueDescriptor, ValueEntries, ValueState};
