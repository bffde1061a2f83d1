//! Values as bytes: CBOR (RFC 8949), read strictly.

use ciborium::{de, ser};
use serde::{de::DeserializeOwned, Serialize};

use crate::session::{Failure, Output};

/// The value as CBOR.
pub fn encode<T: Serialize>(value: &T) -> Result<Output, Failure> {
    let mut bytes = Vec::new();
    ser::into_writer(value, &mut bytes).map_err(|error| Failure::Protocol(format!("encoding: {error}")))?;
    Ok(Output::new(bytes))
}

/// The value of which `bytes` is the CBOR, all of it and nothing after it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut rest = bytes;
    let value = de::from_reader(&mut rest).map_err(|error| format!("no such message: {error}"))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(format!("{} bytes after the end of the message", rest.len()))
    }
}
