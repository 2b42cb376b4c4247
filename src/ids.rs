//! Numbers and names that must not be mixed up, each a type of its own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number that follows. Stops at the greatest, which no job lives long enough to see,
            /// but which bytes from outside may claim.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// One start of a job. A later epoch fences every earlier one. It is the version number of the
    /// `Open` record that began it, so epochs are unique and ordered by themselves.
    Epoch(u64)
}
number! {
    /// Position in the manifest chain; version 1 is the first.
    Version(u64)
}
number! {
    /// Position of a delta in one subtask's changelog; 1 is the first, 0 stands for "before all".
    DeltaSeq(u64)
}
number! {
    /// One parallel instance of the job, counted from 0.
    SubtaskIndex(u32)
}

/// A checkpoint of a job: the attempt that took it and its number within the attempt. Never given
/// twice, not even to one that was aborted, because no two attempts share an epoch. Later
/// checkpoints compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckpointId {
    /// The attempt that took the checkpoint.
    pub epoch: Epoch,
    /// Counted from 1 within the attempt.
    pub number: u64,
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

impl FromStr for CheckpointId {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes: `<epoch>-<number>`.
    fn from_str(text: &str) -> Result<Self> {
        let parse = |(epoch, number): (&str, &str)| {
            Some(Self { epoch: Epoch(epoch.parse().ok()?), number: number.parse().ok()? })
        };
        text.split_once('-').and_then(parse).ok_or_else(|| {
            Error::invalid(format!("{text:?} is not a checkpoint id")).advise("write it as in 3-17")
        })
    }
}

/// 128 random bits that tell two writers of the same name apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub [u8; 16]);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A named state's number in keys: the CRC32C of its name, so that subtasks, processes and restarts
/// agree on it without talking. 0 is reserved for Alluvium's own keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateId(pub(crate) u32);

impl StateId {
    /// Alluvium's own keys.
    pub(crate) const RESERVED: Self = Self(0);

    /// The id of the state called `name`. Two names may collide (about once in four billion pairs);
    /// registering the second is then an error that names both.
    pub fn of(name: &str) -> Self {
        // The one name in four billion that would land on the reserved id takes the next.
        Self(crc32c::crc32c(name.as_bytes()).max(1))
    }
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The name of an operator within its job, given by the user. Empty for the one operator of a job
/// that names none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct OperatorId(String);

impl OperatorId {
    /// Bytes of a name, at most.
    const LONGEST: usize = 128;
    /// The one operator of a job that names none.
    pub(crate) const UNNAMED: &'static Self = &Self(String::new());

    /// # Errors
    /// `InvalidArgument` unless the name has 1 to 128 bytes, none of them a control character.
    pub(crate) fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if name.is_empty() || name.len() > Self::LONGEST || name.chars().any(char::is_control) {
            return Err(Error::invalid(format!("{name:?} cannot be an operator's id"))
                .advise(format!("use 1 to {} bytes without control characters", Self::LONGEST)));
        }
        Ok(Self(name))
    }

    pub(crate) fn is_named(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_named() { write!(f, "operator {:?}", self.0) } else { f.write_str("the unnamed operator") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operators_id_is_short_and_printable() {
        for wrong in ["", "a\nb", "\0", &"x".repeat(129), &"é".repeat(65)] {
            assert_eq!(OperatorId::new(wrong).unwrap_err().kind(), crate::ErrorKind::InvalidArgument);
        }
        let id = OperatorId::new("é".repeat(64)).unwrap();
        assert!(id.is_named() && !OperatorId::UNNAMED.is_named());
        assert_eq!(OperatorId::new("clicks").unwrap().to_string(), "operator \"clicks\"");
    }

    #[test]
    fn state_ids_never_change() {
        // Part of the on-disk format: CRC32C("123456789") is the check value of the polynomial.
        assert_eq!(StateId::of("123456789"), StateId(0xe306_9283));
        assert_ne!(StateId::of(""), StateId::RESERVED);
    }

    #[test]
    fn checkpoint_ids_round_trip_as_text() {
        let id = CheckpointId { epoch: Epoch(3), number: 17 };
        assert_eq!(id.to_string().parse::<CheckpointId>().unwrap(), id);
        for wrong in ["", "3", "3-", "-1", "3-x", "3-1-2"] {
            assert!(wrong.parse::<CheckpointId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_nonce_prints_as_hex() {
        assert_eq!(Nonce([0xab; 16]).to_string(), "ab".repeat(16));
    }
}
