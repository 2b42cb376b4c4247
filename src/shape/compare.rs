//! Whether values of one shape can be read correctly as values of another.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::Shape;

/// The first thing in which the `wanted` shape differs from the `known` one, both as they are
/// recorded; None if what was written with the known one reads as the wanted one, or if that cannot
/// be told.
///
/// An enum may have got more variants at its end.
pub(crate) fn difference(known: &str, wanted: &str) -> Option<String> {
    if known.is_empty() || wanted.is_empty() || known == wanted {
        return None;
    }
    match (Shape::parse(known), Shape::parse(wanted)) {
        (Some(known), Some(wanted)) => first("the value", &known, &wanted),
        // The hash of a long one, or a text of a codec's own.
        _ => Some(format!("the value was {known}, and is {wanted} now")),
    }
}

/// `at` names the place that both are at.
fn first(at: &str, known: &Shape, wanted: &Shape) -> Option<String> {
    match (known, wanted) {
        (Shape::Unknown, _) | (_, Shape::Unknown) => None,
        (Shape::Option(known), Shape::Option(wanted)) => first(at, known, wanted),
        (Shape::Seq(known), Shape::Seq(wanted)) => first(&format!("an element of {at}"), known, wanted),
        (Shape::Map(key, value), Shape::Map(wanted_key, wanted_value)) => {
            first(&format!("a key of {at}"), key, wanted_key)
                .or_else(|| first(&format!("an entry of {at}"), value, wanted_value))
        }
        (Shape::Array(known, len), Shape::Array(wanted, wanted_len)) if len == wanted_len => {
            first(&format!("an element of {at}"), known, wanted)
        }
        // What is not known may hide that all parts are the same.
        (Shape::Array(one, len), Shape::Tuple(parts)) if *len == parts.len() => {
            parts.iter().find_map(|wanted| first(at, one, wanted))
        }
        (Shape::Tuple(parts), Shape::Array(one, len)) if *len == parts.len() => {
            parts.iter().find_map(|known| first(at, known, one))
        }
        (Shape::Tuple(known), Shape::Tuple(wanted)) if known.len() == wanted.len() => {
            let mut parts = known.iter().zip(wanted).enumerate();
            parts.find_map(|(index, (known, wanted))| {
                first(&format!("part {} of {at}", index + 1), known, wanted)
            })
        }
        (Shape::Struct(known), Shape::Struct(wanted)) => fields(at, known, wanted),
        (Shape::Enum(known), Shape::Enum(wanted)) => variants(at, known, wanted),
        _ if known == wanted => None,
        _ => Some(format!("{at} was {known}, and is {wanted} now")),
    }
}

fn fields(at: &str, known: &[(String, Shape)], wanted: &[(String, Shape)]) -> Option<String> {
    let has = |fields: &[(String, Shape)], name: &str| fields.iter().any(|(field, _)| field == name);
    for (index, (name, shape)) in known.iter().enumerate() {
        let Some((other, wanted_shape)) = wanted.get(index) else {
            return Some(format!("the field {name:?} of {at} is gone"));
        };
        if name != other {
            return Some(match (has(wanted, name), has(known, other)) {
                (true, true) => format!("the field {other:?} of {at} stands where {name:?} stood"),
                (false, true) => format!("the field {name:?} of {at} is gone"),
                (true, false) => format!("the field {other:?} of {at} is new"),
                (false, false) => format!("the field {name:?} of {at} is called {other:?} now"),
            });
        }
        if let Some(difference) = first(&format!("the field {name:?} of {at}"), shape, wanted_shape) {
            return Some(difference);
        }
    }
    wanted.get(known.len()).map(|(name, _)| format!("the field {name:?} of {at} is new"))
}

fn variants(at: &str, known: &[(String, Shape)], wanted: &[(String, Shape)]) -> Option<String> {
    for (index, (name, shape)) in known.iter().enumerate() {
        match wanted.get(index) {
            None => return Some(format!("the variant {name:?} of {at} is gone")),
            Some((other, _)) if name != other => {
                return Some(format!("the variant {other:?} of {at} stands where {name:?} stood"));
            }
            Some((_, wanted)) => {
                let difference = first(&format!("the variant {name:?} of {at}"), shape, wanted);
                if difference.is_some() {
                    return difference;
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        for (known, wanted, says) in [
            ("u64", "i64", "the value was u64, and is i64 now"),
            ("{a: u32, b: u32}", "{b: u32, a: u32}", "the field \"b\" of the value stands where \"a\" stood"),
            ("{a: u32}", "{a: i32}", "the field \"a\" of the value was u32, and is i32 now"),
            ("{a: u32}", "{a: u32, b: u8}", "the field \"b\" of the value is new"),
            ("{a: u32, b: u8}", "{a: u32}", "the field \"b\" of the value is gone"),
            ("{a: u32, b: u8}", "{b: u8}", "the field \"a\" of the value is gone"),
            ("{b: u8}", "{a: u32, b: u8}", "the field \"a\" of the value is new"),
            ("{a: u32}", "{z: u32}", "the field \"a\" of the value is called \"z\" now"),
            ("[{a: u32}]", "[{a: u64}]", "\"a\" of an element of the value was u32, and is u64 now"),
            ("option([u8])", "option(str)", "the value was [u8], and is str now"),
            ("map(str, u8)", "map(str, i8)", "an entry of the value was u8, and is i8 now"),
            ("map(str, u8)", "map(u8, u8)", "a key of the value was str, and is u8 now"),
            ("(u8; 4)", "(u8; 16)", "the value was (u8; 4), and is (u8; 16) now"),
            ("(u8, u16)", "(u8, i16)", "part 2 of the value was u16, and is i16 now"),
            ("<A | B u32>", "<A>", "the variant \"B\" of the value is gone"),
            ("<A | B u32>", "<B u32 | A>", "the variant \"B\" of the value stands where \"A\" stood"),
            ("<A | B u32>", "<A | B u64>", "the variant \"B\" of the value was u32, and is u64 now"),
            ("#00", "#01", "the value was #00, and is #01 now"),
            ("u8", "my: own", "the value was u8, and is my: own now"),
        ] {
            let found = difference(known, wanted).unwrap_or_default();
            assert!(found.contains(says), "{known} {wanted}: {found:?}");
        }
    }

    #[test]
    fn what_reads_rightly_is_no_difference() {
        for (known, wanted) in [
            ("<A | B u32>", "<A | B u32 | C>"),
            ("{a: ?, b: u8}", "{a: u32, b: u8}"),
            ("(u8; 3)", "(u8, ?, u8)"),
            ("", "u8"),
            ("u8", ""),
            ("?", "u8"),
            ("#00", "#00"),
            ("my: own", "my: own"),
        ] {
            assert_eq!(difference(known, wanted), None, "{known} {wanted}");
        }
    }
}
