//! Keys and values, which are any bytes, as people and JSON can hold them: as text where they are
//! UTF-8, else as base64, and tagged with which, so that nothing is ever mistaken for something else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Bytes in JSON: `{"text": "page/1"}` or `{"base64": "AAEC/w=="}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tagged {
    Text(String),
    Base64(String),
}

impl Tagged {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    /// As base64 whether it is text or not.
    pub(crate) fn base64(bytes: &[u8]) -> Self {
        Self::Base64(STANDARD.encode(bytes))
    }

    /// The bytes; exactly those that it was made of.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Base64(text) => STANDARD.decode(text).map_err(|error| format!("wrong base64: {error}")),
        }
    }
}

/// What a key begins with that is not written as text.
const BASE64: &str = "base64:";
const HEX: &str = "hex:";

/// Bytes for a terminal: text without control characters as it is, all else as `base64:…`. [`KeyFormat::Typed`] reads
/// back what this writes.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let is_marked = |text: &str| text.starts_with(BASE64) || text.starts_with(HEX);
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) && !is_marked(text) => text.to_owned(),
        _ => format!("{BASE64}{}", STANDARD.encode(bytes)),
    }
}

/// How a key is written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum KeyFormat {
    /// As a key of the state's recorded type; where the state is raw as text, hex:… or base64:…
    #[default]
    Typed,
    /// The stored bytes, as they are
    Text,
    /// The stored bytes as pairs of hexadecimal digits
    Hex,
    /// The stored bytes as base64 with padding
    Base64,
}

impl KeyFormat {
    pub(crate) fn read(self, text: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Typed => match (text.strip_prefix(BASE64), text.strip_prefix(HEX)) {
                (Some(encoded), _) => Self::Base64.read(encoded),
                (_, Some(digits)) => Self::Hex.read(digits),
                _ => Self::Text.read(text),
            },
            Self::Text => Ok(text.as_bytes().to_vec()),
            Self::Base64 => STANDARD.decode(text).map_err(|error| format!("{text:?} is no base64: {error}")),
            Self::Hex => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
                    [high, low] => Some((digit(high)? * 16 + digit(low)?) as u8),
                    _ => None,
                });
                let bytes: Option<Vec<u8>> = pairs.collect();
                bytes.ok_or_else(|| format!("{text:?} is not pairs of hexadecimal digits"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [b"".as_slice(), b"page/1", "zürich\n\0".as_bytes(), b"\xff", &all] {
            let json = serde_json::to_string(&Tagged::of(bytes)).unwrap();
            let back: Tagged = serde_json::from_str(&json).unwrap();
            assert_eq!(back.bytes().unwrap(), bytes, "{json}");
        }
        assert_eq!(serde_json::to_string(&Tagged::of(b"a")).unwrap(), r#"{"text":"a"}"#);
        assert_eq!(serde_json::to_string(&Tagged::of(b"\xff")).unwrap(), r#"{"base64":"/w=="}"#);
        assert!(Tagged::Base64("?".to_owned()).bytes().is_err());
    }

    #[test]
    fn terminals_get_no_control_characters() {
        assert_eq!(plain("zürich".as_bytes()), "zürich");
        assert_eq!(plain(b"\x1b[2J"), "base64:G1sySg==");
        assert_eq!(plain(b"\xff"), "base64:/w==");
    }

    #[test]
    fn what_is_printed_reads_back() {
        for key in
            [b"page/1".as_slice(), b"\xff\0", b"base64:AAAA", b"hex:00", b"\x1b", "zürich".as_bytes(), b""]
        {
            assert_eq!(KeyFormat::Typed.read(&plain(key)).as_deref(), Ok(key));
        }
        assert_eq!(KeyFormat::Typed.read("hex:0aff"), Ok(vec![0x0a, 0xff]));
        assert!(KeyFormat::Typed.read("base64:?").is_err());
    }

    #[test]
    fn keys_are_read_in_three_ways() {
        assert_eq!(KeyFormat::Text.read("0a"), Ok(b"0a".to_vec()));
        assert_eq!(KeyFormat::Hex.read("0aFF"), Ok(vec![0x0a, 0xff]));
        assert_eq!(KeyFormat::Base64.read("/w=="), Ok(vec![0xff]));
        for wrong in ["0", "0g", "+1"] {
            assert!(KeyFormat::Hex.read(wrong).is_err(), "{wrong}");
        }
        assert!(KeyFormat::Base64.read("?").is_err());
    }
}
