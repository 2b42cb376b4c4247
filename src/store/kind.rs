//! The kinds of state, in one table: a kind that is missing from it does not compile.

use crate::delta::MergeOp;

macro_rules! kinds {
    ($($kind:ident = $code:literal, $name:literal, $merge:expr;)*) => {
        /// The kind of a state: how its bytes are to be read. The number is stored with every checkpoint.
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

// Code, name in texts and exports, merge operator. None of them may change: checkpoints and exports have them.
kinds! {
    Raw = 0, "raw", Some(MergeOp::ListAppend);
    Value = 1, "value", None;
    List = 2, "list", Some(MergeOp::ListAppend);
    Map = 3, "map", None;
    Reducing = 4, "reducing", None;
    Aggregating = 5, "aggregating", None;
    Timers = 6, "timers", None;
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
        ];
        assert_eq!(stored, expected, "a new kind is added at the end, here as well");
        assert!(StateKind::name_of(999).contains("does not know"));
    }
}
