//! What people read on a terminal: results side by side, and keys and values by their types.

pub(crate) mod explain;
pub(crate) mod table;
pub(crate) mod tagged;
pub(crate) mod typed;
pub(crate) mod width;
