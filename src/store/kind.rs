//! The kinds of state, in one table: a kind that is missing from it does not compile.

use crate::delta::MergeOp;

/// What a kind stores as the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The program's own bytes.
    Raw,
    /// One value with its head.
    Cell,
    /// Elements with a head each, appended one after the other.
    Elements,
    /// Nothing: the key says it all.
    KeyOnly,
    /// Nothing: the state is not keyed.
    Unkeyed,
}

/// Bytes of domain and timestamp, which stand before the key of a timer.
const TIMER_HEAD: usize = 9;

macro_rules! kinds {
    ($($kind:ident = $code:literal, $name:literal, $layout:ident, $merge:expr;)*) => {
        /// The kind of a state: how its bytes are to be read. The number is stored with every
        /// checkpoint.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub(crate) enum StateKind {
            $($kind = $code,)*
        }

        impl StateKind {
            /// None if this build does not know the code.
            pub(crate) fn of(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$kind),)*
                    _ => None,
                }
            }

            pub(crate) fn name_of(code: u16) -> &'static str {
                match code {
                    $($code => $name,)*
                    _ => "a kind that this build does not know",
                }
            }

            /// What is stored for a key.
            pub(crate) fn layout(self) -> Layout {
                match self {
                    $(Self::$kind => Layout::$layout,)*
                }
            }

            /// Id of the operator that folds what is appended to states of this kind; 0 is none.
            pub(super) fn merge(self) -> u8 {
                let operator: Option<MergeOp> = match self {
                    $(Self::$kind => $merge,)*
                };
                operator.map_or(0, MergeOp::id)
            }
        }
    };
}

// Code, name in texts and exports, layout of values, merge operator. None of them may change:
// checkpoints and exports have them.
kinds! {
    Raw = 0, "raw", Raw, Some(MergeOp::ListAppend);
    Value = 1, "value", Cell, None;
    List = 2, "list", Elements, Some(MergeOp::ListAppend);
    Map = 3, "map", Cell, None;
    Reducing = 4, "reducing", Cell, None;
    Aggregating = 5, "aggregating", Cell, None;
    Timers = 6, "timers", KeyOnly, None;
    OperatorList = 7, "operator list", Unkeyed, None;
    Broadcast = 8, "broadcast", Unkeyed, None;
}

impl StateKind {
    /// How many bytes stand before the key in a stored key.
    pub(super) fn key_offset(self) -> usize {
        match self.layout() {
            Layout::KeyOnly => TIMER_HEAD,
            Layout::Raw | Layout::Cell | Layout::Elements | Layout::Unkeyed => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_of_a_kind_never_changes() {
        let known: Vec<_> = (0..10).map_while(StateKind::of).collect();
        let stored: Vec<_> =
            known.iter().map(|kind| (*kind as u16, StateKind::name_of(*kind as u16), kind.merge())).collect();
        let expected = [
            (0, "raw", 1),
            (1, "value", 0),
            (2, "list", 1),
            (3, "map", 0),
            (4, "reducing", 0),
            (5, "aggregating", 0),
            (6, "timers", 0),
            (7, "operator list", 0),
            (8, "broadcast", 0),
        ];
        assert_eq!(stored, expected, "a new kind is added at the end, here as well");
        assert!(StateKind::name_of(999).contains("does not know"));
    }
}
