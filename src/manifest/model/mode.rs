//! How checkpoints are taken.

use serde::{Deserialize, Serialize};

// One table, so that no mode can be written into a manifest and not be read from it.
macro_rules! modes {
    ($($(#[$meta:meta])* $mode:ident = $code:literal, logs_changes: $logs_changes:literal;)*) => {
        /// How checkpoints are taken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum CheckpointMode {
            $($(#[$meta])* $mode,)*
        }

        impl CheckpointMode {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$mode,)*];

            /// Its number in a manifest.
            pub(crate) fn code(self) -> u8 {
                match self {
                    $(Self::$mode => $code,)*
                }
            }

            /// None if this build does not know the number.
            pub(crate) fn of(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$mode),)*
                    _ => None,
                }
            }

            /// Whether every change goes into the changelog, and bases follow in the background. Where a mode only
            /// needs to say this, it says it here; where it does something of its own, a `match` names every mode.
            pub(crate) fn logs_changes(self) -> bool {
                match self {
                    $(Self::$mode => $logs_changes,)*
                }
            }
        }
    };
}

// A number never changes, because manifests have it.
modes! {
    /// Every change goes into a changelog as well; a checkpoint uploads the last bit of it. The default.
    #[default]
    Changelog = 0, logs_changes: true;
    /// A checkpoint flushes RocksDB and uploads the files that are new.
    NativeIncremental = 1, logs_changes: false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_of_a_mode_never_changes() {
        let stored: Vec<_> = CheckpointMode::ALL.iter().map(|mode| (mode.code(), *mode)).collect();
        let expected = [(0, CheckpointMode::Changelog), (1, CheckpointMode::NativeIncremental)];
        assert_eq!(stored, expected, "a new mode is added at the end, here as well");
        for (code, mode) in stored {
            assert_eq!(CheckpointMode::of(code), Some(mode));
        }
        assert_eq!(CheckpointMode::of(99), None);
    }
}
