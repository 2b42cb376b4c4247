//! Typed keyed state on top of [`StateStore`](crate::StateStore).

mod codec;
mod value;

pub use value::{ValueDescriptor, ValueEntries, ValueState};
