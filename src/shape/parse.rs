//! The text of a shape back to a shape.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::{DEEPEST, Shape, is_of_a_name};

/// Longest array that is written out, against a text that would ask for more than memory has.
const MOST_PARTS: usize = 1 << 16;

impl Shape {
    /// None if the text is not that of a shape: one of a later version, for example.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser { rest: text, depth: 0 };
        let shape = parser.shape()?;
        parser.rest.is_empty().then_some(shape)
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn shape(&mut self) -> Option<Shape> {
        self.depth += 1;
        let shape = if self.depth > DEEPEST { None } else { self.inner() };
        self.depth -= 1;
        shape
    }

    fn inner(&mut self) -> Option<Shape> {
        if self.take("?") {
            return Some(Shape::Unknown);
        }
        if self.take("^") {
            return self.number().map(Shape::Outer);
        }
        if self.take("()") {
            return Some(Shape::Leaf("()".to_owned()));
        }
        if self.take("[") {
            let inner = self.shape()?;
            return self.take("]").then(|| Shape::Seq(Box::new(inner)));
        }
        if self.take("{") {
            return self.fields().map(Shape::Struct);
        }
        if self.take("<") {
            return self.variants().map(Shape::Enum);
        }
        if self.take("(") {
            return self.tuple();
        }
        let name = self.name()?;
        match name {
            "option" if self.take("(") => {
                let inner = self.shape()?;
                self.take(")").then(|| Shape::Option(Box::new(inner)))
            }
            "map" if self.take("(") => {
                let key = self.shape()?;
                let value = if self.take(", ") { self.shape()? } else { return None };
                self.take(")").then(|| Shape::Map(Box::new(key), Box::new(value)))
            }
            leaf => Some(Shape::Leaf(leaf.to_owned())),
        }
    }

    /// Behind the opening parenthesis.
    fn tuple(&mut self) -> Option<Shape> {
        let first = self.shape()?;
        if self.take("; ") {
            let len = self.number().filter(|len| *len <= MOST_PARTS)?;
            return self.take(")").then(|| Shape::Array(Box::new(first), len));
        }
        let mut parts = vec![first];
        while self.take(", ") {
            parts.push(self.shape()?);
        }
        self.take(")").then_some(Shape::Tuple(parts))
    }

    fn fields(&mut self) -> Option<Vec<(String, Shape)>> {
        let mut fields = Vec::new();
        while !self.take("}") {
            if !fields.is_empty() && !self.take(", ") {
                return None;
            }
            let name = self.name()?.to_owned();
            let shape = if self.take(": ") { self.shape()? } else { return None };
            fields.push((name, shape));
        }
        Some(fields)
    }

    fn variants(&mut self) -> Option<Vec<(String, Shape)>> {
        let mut variants = Vec::new();
        while !self.take(">") {
            if !variants.is_empty() && !self.take(" | ") {
                return None;
            }
            let name = self.name()?.to_owned();
            let bare = self.rest.starts_with('>') || self.rest.starts_with(" | ");
            let shape = if bare {
                Shape::Leaf("()".to_owned())
            } else if self.take(" ") {
                self.shape()?
            } else {
                return None;
            };
            variants.push((name, shape));
        }
        Some(variants)
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let end = self.rest.find(|character| !is_of_a_name(character)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    fn number(&mut self) -> Option<usize> {
        let end = self.rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        digits.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_shape() -> impl Strategy<Value = Shape> {
        let leaf = prop_oneof![
            prop::sample::select(vec!["u8", "i64", "str", "()", "bytes"])
                .prop_map(|name| Shape::Leaf(name.to_owned())),
            Just(Shape::Unknown),
            (1..5_usize).prop_map(Shape::Outer),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let named = || prop::collection::vec(("[a-zA-Z_][a-z0-9_.-]{0,6}", inner.clone()), 0..4);
            prop_oneof![
                inner.clone().prop_map(|shape| Shape::Option(Box::new(shape))),
                inner.clone().prop_map(|shape| Shape::Seq(Box::new(shape))),
                (inner.clone(), inner.clone()).prop_map(|(k, v)| Shape::Map(Box::new(k), Box::new(v))),
                (inner.clone(), 3..9_usize).prop_map(|(shape, len)| Shape::Array(Box::new(shape), len)),
                prop::collection::vec(inner.clone(), 1..4).prop_map(Shape::Tuple),
                named().prop_map(Shape::Struct),
                named().prop_map(Shape::Enum),
            ]
        })
    }

    proptest! {
        #[test]
        fn shapes_come_back(shape in any_shape()) {
            prop_assert_eq!(Shape::parse(&shape.to_string()), Some(shape));
        }

        #[test]
        fn random_text_never_panics(text in "[a-z0-9?^()\\[\\]{}<>|:;, ]{0,40}") {
            if let Some(shape) = Shape::parse(&text) {
                prop_assert_eq!(Shape::parse(&shape.to_string()), Some(shape));
            }
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_no_shape() {
        let nested = |depth: usize| format!("{}u8{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Shape::parse(&nested(DEEPEST - 1)).is_some());
        assert_eq!(Shape::parse(&nested(DEEPEST)), None);
        assert_eq!(Shape::parse(&nested(1_000_000)), None);
    }
}
