//! Typed keyed state on top of [`StateStore`](crate::StateStore). Under the current key a state has
//! a value, a list, a map, or a folded value, each with namespaces if the program wants them.
//!
//! The kinds of state themselves stand at the crate's root. In here is what goes with them: codecs
//! of keys and values ([`KeyCodec`], [`Codec`]), scopes ([`At`]), prefixes and iterators.

// What is stored for a typed state, within `key group ‖ state id` (see `crate::key`):
//
//     value, list, reducing, aggregating   key ‖ namespace             ─▶ cell, or elements
//     map                                  key ‖ namespace ‖ map key   ─▶ cell
//     timers                               domain ‖ timestamp ‖ key ‖ namespace ─▶ nothing
//
// Key and namespace are in part form, which says where it ends (`key_codec.rs`); a state without
// namespaces has none. The map key is in plain form, so that a prefix of it is a prefix of the
// stored key. Cells and elements are described in `cell.rs`.

mod aggregating;
mod broadcast;
mod cell;
mod codec;
mod current;
mod descriptor;
mod escape;
mod float_key;
mod handle;
mod key_codec;
mod key_struct;
mod keys;
mod list;
mod map;
#[cfg(test)]
mod map_tests;
mod operator_list;
mod reducing;
mod scope;
mod single_entry;
mod stored;
mod timer_key;
mod timers;
#[cfg(test)]
mod timers_tests;
mod ttl;
mod typed;
mod value;

pub use aggregating::{Aggregate, AggregatingState};
pub use broadcast::BroadcastState;
pub use codec::{Codec, Postcard, RawBytes};
pub use descriptor::{KeyedState, Kind, StateDescriptor};
pub use key_codec::{KeyCodec, KeyPrefix, StartsWith};
pub(crate) use keys::Failure;
pub use keys::Keys;
pub use list::{ListIter, ListState};
pub(crate) use map::bounds_in;
pub use map::{MapIter, MapState};
pub use operator_list::OperatorListState;
pub use reducing::ReducingState;
pub(crate) use scope::Spaces;
pub use scope::{At, Namespaced, Scope};
pub use single_entry::SingleEntry;
pub use stored::StoredValue;
pub use timer_key::TimeDomain;
pub use timers::{KeyTimers, Timer, TimerDescriptor, TimerService};
pub(crate) use ttl::TtlNow;
pub use ttl::{Ttl, TtlUpdate, TtlVisibility};
pub(crate) use typed::Typed;
pub use value::{ValueEntries, ValueState};
