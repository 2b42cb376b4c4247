//! The shape of a type of values: what its bytes consist of, as a short text. A checkpoint records
//! it, so that a program whose type has changed is refused when it registers the state, rather than
//! misreading stored values.
//!
//! ```text
//! leaf          bool, i8 … i128, u8 … u128, f32, f64, char, str, bytes, ()
//! option(u32)   [u32]   map(str, u32)   (u32, str)   (u8; 4)
//! {clicks: u64, seen: u32}                      a struct: names and shapes of its fields
//! <On | Off(u32) | Moved{x: i32, y: i32}>       an enum: its variants
//! ^2                                            the shape 2 levels further out: the type contains itself
//! ?                                             not known; fits everything
//! ```
//!
//! Names of types are not part of it, so renaming a type changes nothing. [`trace()`] finds the
//! shape of a type by watching what its [`Deserialize`](serde::Deserialize) implementation asks
//! for.

mod at;
mod compare;
mod deserializer;
mod parse;
mod trace;

use std::fmt;

pub(crate) use compare::difference;
pub(crate) use trace::trace;

/// Longest text in bytes. Of a longer one its hash is recorded, from which equality can be told but
/// no difference.
const LONGEST: usize = 4 << 10;
/// How deep a shape may be nested.
const DEEPEST: usize = 64;

/// The shape of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// Numbers, text, bytes, nothing.
    Leaf(String),
    Option(Box<Shape>),
    Seq(Box<Shape>),
    Map(Box<Shape>, Box<Shape>),
    Tuple(Vec<Shape>),
    /// So many of one shape.
    Array(Box<Shape>, usize),
    Struct(Vec<(String, Shape)>),
    Enum(Vec<(String, Shape)>),
    /// The shape so many levels further out.
    Outer(usize),
    Unknown,
}

impl Shape {
    /// A tuple, or an array where all parts are the same.
    fn tuple(parts: Vec<Self>) -> Self {
        match parts.as_slice() {
            [] => Self::Leaf("()".to_owned()),
            [first, _, _, ..] if parts.iter().all(|part| part == first) => {
                Self::Array(Box::new(first.clone()), parts.len())
            }
            _ => Self::Tuple(parts),
        }
    }

    /// Whether all of it is known.
    fn is_whole(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Leaf(_) | Self::Outer(_) => true,
            Self::Option(inner) | Self::Seq(inner) | Self::Array(inner, _) => inner.is_whole(),
            Self::Map(key, value) => key.is_whole() && value.is_whole(),
            Self::Tuple(parts) => parts.iter().all(Self::is_whole),
            Self::Struct(fields) | Self::Enum(fields) => fields.iter().all(|(_, shape)| shape.is_whole()),
        }
    }

    /// What is recorded; None where nothing is known.
    fn record(&self) -> Option<String> {
        let text = self.to_string();
        // What is not known would have to fit everything, which the hash of a long text does not.
        (*self != Self::Unknown && (text.len() <= LONGEST || self.is_whole())).then(|| recorded(text))
    }
}

/// A text as it is recorded: as it is, or its hash.
pub(crate) fn recorded(text: String) -> String {
    if text.len() <= LONGEST { text } else { format!("#{}", blake3::hash(text.as_bytes()).to_hex()) }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = |f: &mut fmt::Formatter<'_>, index: usize, separator: &str| {
            if index > 0 { f.write_str(separator) } else { Ok(()) }
        };
        match self {
            Self::Leaf(name) => f.write_str(name),
            Self::Option(inner) => write!(f, "option({inner})"),
            Self::Seq(inner) => write!(f, "[{inner}]"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Array(inner, len) => write!(f, "({inner}; {len})"),
            Self::Tuple(parts) => {
                f.write_str("(")?;
                for (index, part) in parts.iter().enumerate() {
                    between(f, index, ", ")?;
                    write!(f, "{part}")?;
                }
                f.write_str(")")
            }
            Self::Struct(fields) => {
                f.write_str("{")?;
                for (index, (name, shape)) in fields.iter().enumerate() {
                    between(f, index, ", ")?;
                    write!(f, "{name}: {shape}")?;
                }
                f.write_str("}")
            }
            Self::Enum(variants) => {
                f.write_str("<")?;
                for (index, (name, shape)) in variants.iter().enumerate() {
                    between(f, index, " | ")?;
                    match shape {
                        Self::Leaf(nothing) if nothing == "()" => f.write_str(name)?,
                        shape => write!(f, "{name} {shape}")?,
                    }
                }
                f.write_str(">")
            }
            Self::Outer(levels) => write!(f, "^{levels}"),
            Self::Unknown => f.write_str("?"),
        }
    }
}

/// Whether a byte may stand in a name within the text. Others, which only a renamed field can have,
/// become `_`.
fn is_of_a_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-' | '.')
}
