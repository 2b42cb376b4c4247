//! Finds the shape of a type by having it deserialize made-up values, again and again, until it has
//! shown all of its parts.
//!
//! A run ends early if the type refuses a made-up value because it wants a particular one (a date,
//! a number that is not 0); the next run tries another. At each option, list and enum a run makes
//! one choice: a part that is not fully known yet, or otherwise the smallest. A type that contains
//! itself is recognised by the compiler's name for it, and is not followed a second time.

use std::any::type_name;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;

use super::at::{At, Stop};
use super::{DEEPEST, Shape, is_of_a_name};

/// Bounds on what a single type may cost. What is beyond them stays unknown.
const MOST_NODES: usize = 4096;
const MOST_RUNS: usize = 1024;
/// The number of values that are tried at a place whose value is refused.
pub(super) const SAMPLES: usize = 6;

/// The shape of `T` as it is recorded; None if nothing of it is known.
pub(crate) fn trace<T: DeserializeOwned>() -> Option<String> {
    let mut tracer = Tracer::new();
    // A type may panic on a made-up value. That is no reason to fail.
    let traced = catch_unwind(AssertUnwindSafe(|| tracer.run::<T>()));
    traced.ok().and_then(|()| tracer.shape(ROOT, &mut Vec::new()).record())
}

/// Number of a [`Node`].
pub(super) type Id = usize;

const ROOT: Id = 0;

/// The shape of one place in a type, as far as it is known.
#[derive(Debug)]
pub(super) enum Node {
    Unseen,
    Leaf {
        name: &'static str,
        /// Which value is given.
        sample: usize,
    },
    Option(Gate),
    Seq(Gate),
    Map {
        key: Id,
        gate: Gate,
    },
    Tuple(Vec<Id>),
    Struct(Vec<(&'static str, Id)>),
    Enum(Vec<Variant>),
    /// The type of a place further out.
    Same(Id),
    /// Asks for what is stored to say itself what it is, or for something else each time.
    Opaque,
}

/// A way in that need not be taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gate {
    pub(super) to: Id,
    /// It was taken and nothing new was found.
    pub(super) stalled: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) gate: Gate,
    /// When it was the first time that a value of it could be made.
    pub(super) good: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Tracer {
    pub(super) nodes: Vec<Node>,
    /// The types that are being deserialized, from the outside in.
    pub(super) path: Vec<(&'static str, Id)>,
    /// Counts discoveries.
    pub(super) found: usize,
    pub(super) last_leaf: Option<Id>,
    pub(super) depth: usize,
    /// Whether a value of a type within itself is being made: the simplest will do.
    pub(super) simplest: bool,
}

impl Tracer {
    fn new() -> Self {
        Self {
            nodes: vec![Node::Unseen],
            path: Vec::new(),
            found: 0,
            last_leaf: None,
            depth: 0,
            simplest: false,
        }
    }

    fn run<T: DeserializeOwned>(&mut self) {
        for _ in 0..MOST_RUNS {
            self.path.clear();
            (self.depth, self.last_leaf, self.simplest) = (0, None, false);
            let before = self.found;
            let made = T::deserialize(At { tracer: self, id: ROOT }).is_ok();
            if made && self.is_known(ROOT) {
                return;
            }
            // A run that finds nothing new would be repeated without end.
            if self.found == before && (made || !self.try_another()) {
                return;
            }
        }
    }

    /// Adds a place.
    pub(super) fn add(&mut self) -> Result<Id, Stop> {
        if self.nodes.len() >= MOST_NODES {
            return Err(Stop);
        }
        self.nodes.push(Node::Unseen);
        Ok(self.nodes.len() - 1)
    }

    pub(super) fn set(&mut self, id: Id, node: Node) {
        self.found += 1;
        self.nodes[id] = node;
    }

    /// Chooses another value for the last leaf, which the type has perhaps refused. False if there
    /// is none left.
    pub(super) fn try_another(&mut self) -> bool {
        let Some(Node::Leaf { sample, .. }) = self.last_leaf.and_then(|id| self.nodes.get_mut(id)) else {
            return false;
        };
        if *sample + 1 >= SAMPLES {
            return false;
        }
        *sample += 1;
        self.found += 1;
        true
    }

    /// Whether the shape below a place is complete.
    pub(super) fn is_known(&self, id: Id) -> bool {
        let through = |gate: &Gate| gate.stalled || self.is_known(gate.to);
        match &self.nodes[id] {
            Node::Unseen => false,
            Node::Leaf { .. } | Node::Same(_) | Node::Opaque => true,
            Node::Option(gate) | Node::Seq(gate) => through(gate),
            Node::Map { key, gate } => gate.stalled || (self.is_known(*key) && self.is_known(gate.to)),
            Node::Tuple(parts) => parts.iter().all(|part| self.is_known(*part)),
            Node::Struct(fields) => fields.iter().all(|(_, field)| self.is_known(*field)),
            Node::Enum(variants) => variants.iter().all(|variant| through(&variant.gate)),
        }
    }

    /// A value of a variant could be made for the first time, so what contains the enum may get
    /// further now.
    pub(super) fn revive(&mut self) {
        self.found += 1;
        for node in &mut self.nodes {
            match node {
                Node::Option(gate) | Node::Seq(gate) | Node::Map { gate, .. } => gate.stalled = false,
                Node::Enum(variants) => variants.iter_mut().for_each(|variant| variant.gate.stalled = false),
                _ => {}
            }
        }
    }

    /// Where the type of a value is being deserialized already, further out.
    pub(super) fn outer<V>(&self) -> Option<Id> {
        let name = type_name::<V>();
        self.path.iter().find(|(outer, _)| *outer == name).map(|(_, id)| *id)
    }

    /// `above` are the places that contain this one.
    fn shape(&self, id: Id, above: &mut Vec<Id>) -> Shape {
        if above.len() >= DEEPEST - 1 {
            return Shape::Unknown;
        }
        above.push(id);
        let shape = match &self.nodes[id] {
            Node::Unseen | Node::Opaque => Shape::Unknown,
            Node::Leaf { name, .. } => Shape::Leaf((*name).to_owned()),
            Node::Option(gate) => Shape::Option(Box::new(self.shape(gate.to, above))),
            Node::Seq(gate) => Shape::Seq(Box::new(self.shape(gate.to, above))),
            Node::Map { key, gate } => {
                Shape::Map(Box::new(self.shape(*key, above)), Box::new(self.shape(gate.to, above)))
            }
            Node::Tuple(parts) => Shape::tuple(parts.iter().map(|part| self.shape(*part, above)).collect()),
            Node::Struct(fields) => {
                let field = |(field, id): &(&str, Id)| (name(field), self.shape(*id, &mut above.clone()));
                Shape::Struct(fields.iter().map(field).collect())
            }
            Node::Enum(variants) => {
                let variant =
                    |variant: &Variant| (name(variant.name), self.shape(variant.gate.to, &mut above.clone()));
                Shape::Enum(variants.iter().map(variant).collect())
            }
            Node::Same(outer) => {
                let levels = above.iter().rev().position(|id| id == outer);
                levels.map_or(Shape::Unknown, Shape::Outer)
            }
        };
        above.pop();
        shape
    }
}

fn name(name: &str) -> String {
    let name: String =
        name.chars().map(|character| if is_of_a_name(character) { character } else { '_' }).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap};
    use std::net::IpAddr;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    use super::*;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Visit {
        page: String,
        seen: Option<u32>,
        raw: [u8; 4],
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    enum Event {
        Open,
        Click(u64),
        Drag { from: (i32, i32), to: (i32, i32) },
        Pair(u8, Inner),
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    enum Inner {
        A(Vec<Visit>),
        B,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Tree {
        value: u8,
        children: Vec<Tree>,
        next: Option<Box<Tree>>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    enum Expression {
        Add(Box<Expression>, Box<Expression>),
        Not(Box<Expression>),
        Literal(i64),
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Wrapped<T> {
        inner: T,
        count: u8,
    }

    /// A number that is never 0 nor 1, then others.
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Picky {
        #[serde(deserialize_with = "large")]
        large: u16,
        #[serde(deserialize_with = "date")]
        date: String,
        after: bool,
    }

    fn large<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
        let number = u16::deserialize(deserializer)?;
        if number > 1 { Ok(number) } else { Err(serde::de::Error::custom("too small")) }
    }

    fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.starts_with("19") { Ok(text) } else { Err(serde::de::Error::custom("no date")) }
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Impossible {
        before: u8,
        #[serde(deserialize_with = "never")]
        never: u8,
        after: u8,
    }

    fn never<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
        u8::deserialize(deserializer)?;
        Err(serde::de::Error::custom("never"))
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    enum Untagged {
        A(u8),
        B(String),
    }

    struct Panics;

    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
            panic!("a test's own panic")
        }
    }

    #[test]
    fn shapes_are_part_of_the_format() {
        let visit = "{page: str, seen: option(u32), raw: (u8; 4)}";
        for (found, shape) in [
            (trace::<u64>(), "u64"),
            (trace::<usize>(), "u64"),
            (trace::<()>(), "()"),
            (trace::<(u8, char)>(), "(u8, char)"),
            (trace::<Vec<u8>>(), "[u8]"),
            (trace::<HashMap<String, BTreeSet<i128>>>(), "map(str, [i128])"),
            (trace::<BTreeMap<u8, Option<Option<f32>>>>(), "map(u8, option(option(f32)))"),
            (trace::<NonZeroU32>(), "u32"),
            (trace::<Box<Duration>>(), "{secs: u64, nanos: u32}"),
            (trace::<IpAddr>(), "<V4 (u8; 4) | V6 (u8; 16)>"),
            (trace::<Result<u8, String>>(), "<Ok u8 | Err str>"),
            (trace::<Visit>(), visit),
            (
                trace::<Event>(),
                &format!(
                    "<Open | Click u64 | Drag {{from: (i32, i32), to: (i32, i32)}} | Pair (u8, <A [{visit}] | B>)>"
                ),
            ),
            (trace::<Tree>(), "{value: u8, children: [^2], next: option(^2)}"),
            (trace::<Expression>(), "<Add (^2, ^2) | Not ^1 | Literal i64>"),
            (trace::<Wrapped<Wrapped<u32>>>(), "{inner: {inner: u32, count: u8}, count: u8}"),
            (trace::<Picky>(), "{large: u16, date: str, after: bool}"),
        ] {
            assert_eq!(found.as_deref(), Some(shape));
            assert!(Shape::parse(shape).is_some(), "{shape}");
        }
    }

    #[test]
    fn what_cannot_be_found_out_is_not_guessed() {
        assert_eq!(trace::<Impossible>().unwrap(), "{before: u8, never: u8, after: ?}");
        assert_eq!(trace::<Untagged>(), None);
        assert_eq!(trace::<Wrapped<Untagged>>().unwrap(), "{inner: ?, count: ?}");
        assert_eq!(trace::<Option<Untagged>>().unwrap(), "option(?)");
        assert_eq!(trace::<Panics>(), None);
    }

    type Many<T> = (T, T, T, T, T, T, T, T);

    #[test]
    fn a_large_type_is_known_by_its_hash() {
        type Different = (Visit, Event);
        let large = trace::<(Many<Different>, Many<Many<Different>>, u8)>().unwrap();
        assert!(!large.is_empty() && large.len() <= super::super::LONGEST, "arrays are short: {large}");
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its shape is of interest")]
        struct Wide {
            a_field_with_a_long_name: (u8, Event, u8, Event, u8, Event, u8, Event),
            b: (u8, Event, u8, Event, u8, Event, u8, Event, u8, Event, u8, Event),
            c: (u16, Event, u8, Event, u8, Event, u8, Event, u8, Event, u8, Event),
            d: (u32, Event, u8, Event, u8, Event, u8, Event, u8, Event, u8, Event),
            f: (i8, Event, u8, Event, u8, Event, u8, Event, u8, Event, u8, Event),
            g: (i16, Event, u8, Event, u8, Event, u8, Event, u8, Event, u8, Event),
            e: (u64, Event, u8, Event, u8, Event, u8, Event, u8, Event, u8, Event),
        }
        let wide = trace::<Wide>().unwrap();
        assert!(wide.starts_with('#') && wide.len() == 65, "{wide}");
        assert_eq!(Some(wide), trace::<Wide>());
    }
}
