//! [`Codec`]: values to bytes and back.

use std::error::Error as StdError;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::shape;

/// How values of type `T` become bytes. The default is [`Postcard`]; own codecs implement this
/// trait and are given to [`StateDescriptor::codec`](crate::StateDescriptor::codec).
///
/// ```
/// use std::error::Error;
///
/// use alluvium::{Job, JobOptions, OpenMode, ValueState};
/// use alluvium::state::Codec;
///
/// /// Numbers in 3 bytes.
/// struct Small;
///
/// impl Codec<u32> for Small {
///     fn id(&self) -> &str {
///         "u24"
///     }
///
///     fn encode(&self, value: &u32, out: &mut Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>> {
///         match value.to_le_bytes() {
///             [a, b, c, 0] => out.extend_from_slice(&[a, b, c]),
///             _ => return Err("too large".into()),
///         }
///         Ok(())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<u32, Box<dyn Error + Send + Sync>> {
///         let &[a, b, c] = bytes else { return Err("not 3 bytes".into()) };
///         Ok(u32::from_le_bytes([a, b, c, 0]))
///     }
/// }
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// let clicks = store.register(ValueState::descriptor("clicks").codec(Small))?;
/// store.set_key("page/1")?;
/// clicks.put(store, &70_000)?;
/// assert_eq!(clicks.get(store)?, Some(70_000));
/// assert!(clicks.put(store, &u32::MAX).is_err());
/// # Ok(())
/// # }
/// ```
pub trait Codec<T>: Send + Sync {
    /// A stable name of the format, recorded with each state that uses it. Another name in a
    /// restored checkpoint is an error.
    fn id(&self) -> &str;

    /// Appends the bytes of `value`.
    ///
    /// # Errors
    /// Whatever keeps the value from being encoded; the write fails with it.
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), Box<dyn StdError + Send + Sync>>;

    /// Reads a value that consists of exactly these bytes.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes; the read fails with it.
    fn decode(&self, bytes: &[u8]) -> Result<T, Box<dyn StdError + Send + Sync>>;

    /// What the bytes of a `T` consist of, as text that is recorded with the state. Another text in
    /// a restored checkpoint, with the same schema version, means that values would be misread, and
    /// is an error. Default None: nothing is compared.
    fn shape(&self) -> Option<String> {
        None
    }
}

/// The default codec: `serde` through postcard, a compact binary format
/// (<https://postcard.jamesmunns.com/wire-format>) that is stable since its version 1. It does not
/// describe itself: a change of the type needs a new schema version, see
/// [`StateDescriptor::migrate`](crate::StateDescriptor::migrate). One that was forgotten is noticed
/// when the state is registered, because the names and types of all fields and variants are
/// recorded: what was read off the type's [`Deserialize`](serde::Deserialize) implementation. An
/// enum may get variants at its end, and types may be renamed. A field may be renamed in the
/// program if `#[serde(rename = "…")]` gives its old name. What a type asks for in another way
/// (`deserialize_any`, or a value that has to be a particular one) may stay unknown, and is not
/// compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn id(&self) -> &str {
        "postcard"
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), Box<dyn StdError + Send + Sync>> {
        *out = postcard::to_extend(value, std::mem::take(out))?;
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, Box<dyn StdError + Send + Sync>> {
        let (value, rest) = postcard::take_from_bytes(bytes)?;
        if rest.is_empty() { Ok(value) } else { Err("bytes are left over".into()) }
    }

    fn shape(&self) -> Option<String> {
        shape::trace::<T>()
    }
}

/// A codec for values that are bytes already: it stores them as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawBytes;

impl Codec<Vec<u8>> for RawBytes {
    fn id(&self) -> &str {
        "raw"
    }

    fn encode(&self, value: &Vec<u8>, out: &mut Vec<u8>) -> Result<(), Box<dyn StdError + Send + Sync>> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>> {
        Ok(bytes.to_vec())
    }
}
