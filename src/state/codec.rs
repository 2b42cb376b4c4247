//! Values to bytes and back: `serde` through postcard, a compact binary format
//! (<https://postcard.jamesmunns.com/wire-format>) whose wire format is stable since its version 1.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, buffer: Vec<u8>, state: &str) -> Result<Vec<u8>> {
    postcard::to_extend(value, buffer)
        .map_err(|error| Error::invalid("the value cannot be encoded").object(name(state)).source(error))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], state: &str) -> Result<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|error| wrong(state).source(error))?;
    if rest.is_empty() { Ok(value) } else { Err(wrong(state)) }
}

fn wrong(state: &str) -> Error {
    Error::corrupt("stored bytes are not a value of the state's type")
        .object(name(state))
        .advice("read the state as the type it was written as")
}

fn name(state: &str) -> String {
    format!("state {state:?}")
}
