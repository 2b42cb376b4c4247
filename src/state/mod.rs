//! Typed keyed state on top of [`StateStore`](crate::StateStore).

mod cell;
mod codec;
mod ttl;
mod value;

pub use ttl::{Ttl, TtlUpdate, TtlVisibility};
pub use value::{ValueDescriptor, ValueEntries, ValueState};
