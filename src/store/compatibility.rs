//! Whether a restored state can go on with the types that the program registers now.

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{StateInfo, ValueInfo};
use crate::shape;

use super::kind::StateKind;

/// Whether a state can continue as `wanted`. How its bytes are found (kind, keys) can never change.
/// How its values are read can change if there is a way to migrate them, and its TTL at any time.
pub(super) fn check(known: &StateInfo, wanted: &StateInfo, migrates: bool) -> Result<()> {
    let clash =
        |message: String, advice: &str| Err(Error::new(ErrorKind::Incompatible, message).advise(advice));
    if known.name != wanted.name {
        return clash(
            format!("the name has the same id as the state {:?}", known.name),
            "give one of them another name",
        );
    }
    if known.kind != wanted.kind {
        return clash(
            format!(
                "the state is {} and cannot be used as {}",
                StateKind::name_of(known.kind),
                StateKind::name_of(wanted.kind)
            ),
            "register it as the kind it was written as, or under another name",
        );
    }
    for (what, known, wanted) in
        [("namespaces", &known.namespace, &wanted.namespace), ("map keys", &known.map_key, &wanted.map_key)]
    {
        if known != wanted {
            let or_none =
                |format: &str| if format.is_empty() { "none".to_owned() } else { format!("{format:?}") };
            return clash(
                format!("the state's {what} are {}, not {}", or_none(known), or_none(wanted)),
                "register it with the types it was written with, or under another name",
            );
        }
    }
    if !known.key.is_empty() && !wanted.key.is_empty() && known.key != wanted.key {
        return Err(wrong_keys(&known.key, &wanted.key));
    }
    check_values(&known.value, &wanted.value, migrates)
}

/// The error of using keys of type `other` with a state whose keys are of type `known`.
pub(super) fn wrong_keys(known: &str, other: &str) -> Error {
    let message = format!("the state's keys are of type {known:?}, not {other:?}");
    Error::new(ErrorKind::Incompatible, message).advise("use one type of key for each state")
}

fn check_values(known: &ValueInfo, wanted: &ValueInfo, migrates: bool) -> Result<()> {
    let clash =
        |message: String, advice: &str| Err(Error::new(ErrorKind::Incompatible, message).advise(advice));
    let written = known.schema;
    if written > wanted.schema {
        return clash(
            format!("the state was written with schema {written}, which is newer than {}", wanted.schema),
            "run the program that wrote it, or a later one",
        );
    }
    if known.oldest_schema < wanted.schema && !migrates {
        let oldest = known.oldest_schema;
        return clash(
            format!("the state has values of schema {oldest}, and is registered with {}", wanted.schema),
            "register that schema version, or say with `migrate` how to read older values",
        );
    }
    // A new version of the type may change codec, name and shape.
    if written < wanted.schema {
        return Ok(());
    }
    if known.codec != wanted.codec {
        return clash(
            format!("the state's values were written by the codec {:?}, not {:?}", known.codec, wanted.codec),
            "register the codec they were written by, or a higher schema version with `migrate`",
        );
    }
    // The compiler's names are for people: they may change with the compiler, but for these.
    let comparable = known.type_is_named == wanted.type_is_named
        && (known.type_is_named || [known, wanted].iter().all(|value| is_primitive(&value.type_name)));
    if comparable && known.type_name != wanted.type_name {
        return clash(
            format!("the state's values are {:?}, not {:?}", known.type_name, wanted.type_name),
            "register the type they were written as, or a higher schema version with `migrate`",
        );
    }
    if let Some(difference) = shape::difference(&known.shape, &wanted.shape) {
        return clash(
            format!(
                "the type of the state's values has changed, but its schema version has not: {difference}"
            ),
            "raise the version with `schema` and say with `migrate` how to read older values, or register the type \
             they were written as",
        );
    }
    Ok(())
}

/// Whether a compiler's name of a type is one of the language's own, which never change. Bytes of
/// one are often read as another without an error, as other values.
fn is_primitive(name: &str) -> bool {
    const NAMES: [&str; 16] = [
        "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64",
        "u128", "usize",
    ];
    NAMES.contains(&name)
}
