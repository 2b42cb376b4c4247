//! [`At`]: one place in a type, and what is decided there: which value is made up, and which of
//! several ways is worth trying.

use std::any::type_name;
use std::fmt;

use super::DEEPEST;
use super::trace::{Gate, Id, Node, Tracer, Variant};

/// A run cannot go on: the type refused a made-up value, or asks for something that cannot be made
/// up.
#[derive(Debug)]
pub(super) struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shape of a type could not be followed further")
    }
}

impl std::error::Error for Stop {}

impl serde::de::Error for Stop {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self
    }
}

/// One place in a type.
pub(super) struct At<'t> {
    pub(super) tracer: &'t mut Tracer,
    pub(super) id: Id,
}

pub(super) const TEXTS: [&str; 6] =
    ["", "a", "1", "1970-01-01T00:00:00Z", "1970-01-01", "67e55044-10b1-426f-9247-bb680e5fe0c8"];
pub(super) const BYTES: [usize; 6] = [0, 16, 4, 8, 20, 32];
const NUMBERS: [u8; 6] = [1, 0, 2, 10, 100, 127];

impl<'t> At<'t> {
    /// Notes a leaf here. Returns the number of the value to give.
    pub(super) fn leaf(&mut self, wanted: &'static str) -> Result<usize, Stop> {
        match self.tracer.nodes[self.id] {
            Node::Unseen => self.tracer.set(self.id, Node::Leaf { name: wanted, sample: 0 }),
            Node::Leaf { name, .. } if name == wanted => {}
            _ => return self.opaque(),
        }
        // If the type refuses the value, the next run gives another one here.
        self.tracer.last_leaf = Some(self.id);
        match self.tracer.nodes[self.id] {
            Node::Leaf { sample, .. } => Ok(sample),
            _ => Err(Stop),
        }
    }

    pub(super) fn number(&mut self, wanted: &'static str) -> Result<u8, Stop> {
        let sample = self.leaf(wanted)?;
        Ok(NUMBERS.get(sample).copied().unwrap_or_default())
    }

    /// The shape of this place stays unknown.
    pub(super) fn opaque<T>(&mut self) -> Result<T, Stop> {
        if !matches!(self.tracer.nodes[self.id], Node::Opaque) {
            self.tracer.set(self.id, Node::Opaque);
        }
        Err(Stop)
    }

    pub(super) fn below(&mut self, id: Id) -> At<'_> {
        At { tracer: self.tracer, id }
    }

    /// Whether there may be something new behind a gate.
    pub(super) fn is_worth_it(&self, gate: Gate) -> bool {
        !self.tracer.simplest && !gate.stalled && !self.tracer.is_known(gate.to)
    }

    /// After a gate was taken: closes it if nothing new was found behind it, and no other value is
    /// left to try.
    pub(super) fn passed(&mut self, before: usize, made: bool, variant: usize) {
        if self.tracer.found != before || (!made && self.tracer.try_another()) {
            return;
        }
        let gate = match &mut self.tracer.nodes[self.id] {
            Node::Option(gate) | Node::Seq(gate) | Node::Map { gate, .. } => Some(gate),
            Node::Enum(variants) => variants.get_mut(variant).map(|variant| &mut variant.gate),
            _ => None,
        };
        if let Some(gate) = gate.filter(|gate| !gate.stalled) {
            // Otherwise the runs would go through it again and again.
            gate.stalled = true;
            self.tracer.found += 1;
        }
    }

    /// Calls `f` for a type of its own. One within itself is noted, and made as simply as possible.
    pub(super) fn within<V, R>(
        mut self,
        f: impl for<'a> FnOnce(At<'a>) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        // A type that contains itself under ever new names would not end otherwise.
        if self.tracer.depth >= DEEPEST {
            return Err(Stop);
        }
        let outer = match self.tracer.nodes[self.id] {
            Node::Same(outer) => Some(outer),
            Node::Unseen => self.tracer.outer::<V>().inspect(|outer| {
                self.tracer.set(self.id, Node::Same(*outer));
            }),
            _ => None,
        };
        let simplest = self.tracer.simplest;
        // A type within itself has no end, so inside it options are none and lists are empty.
        self.tracer.simplest |= outer.is_some();
        self.tracer.depth += 1;
        let id = outer.unwrap_or(self.id);
        self.tracer.path.push((type_name::<V>(), id));
        let made = f(self.below(id));
        self.tracer.path.pop();
        self.tracer.depth -= 1;
        self.tracer.simplest = simplest;
        made
    }

    pub(super) fn tuple(&mut self, len: usize) -> Result<Vec<Id>, Stop> {
        match &self.tracer.nodes[self.id] {
            Node::Tuple(parts) if parts.len() == len => Ok(parts.clone()),
            Node::Unseen => {
                let parts = (0..len).map(|_| self.tracer.add()).collect::<Result<Vec<_>, _>>()?;
                self.tracer.set(self.id, Node::Tuple(parts.clone()));
                Ok(parts)
            }
            _ => self.opaque(),
        }
    }

    pub(super) fn fields(&mut self, names: &'static [&'static str]) -> Result<Vec<Id>, Stop> {
        match &self.tracer.nodes[self.id] {
            Node::Struct(fields) if fields.iter().map(|(name, _)| name).eq(names) => {
                Ok(fields.iter().map(|(_, id)| *id).collect())
            }
            Node::Unseen => {
                let fields = names.iter().map(|name| Ok((*name, self.tracer.add()?)));
                let fields = fields.collect::<Result<Vec<_>, Stop>>()?;
                let ids = fields.iter().map(|(_, id)| *id).collect();
                self.tracer.set(self.id, Node::Struct(fields));
                Ok(ids)
            }
            _ => self.opaque(),
        }
    }

    pub(super) fn variants(&mut self, names: &'static [&'static str]) -> Result<usize, Stop> {
        let variants = match &self.tracer.nodes[self.id] {
            Node::Enum(variants) if variants.iter().map(|variant| &variant.name).eq(names) => {
                variants.clone()
            }
            Node::Unseen => {
                let variant = |name: &&'static str| {
                    Ok(Variant { name, gate: Gate { to: self.tracer.add()?, stalled: false }, good: None })
                };
                let variants = names.iter().map(variant).collect::<Result<Vec<_>, Stop>>()?;
                self.tracer.set(self.id, Node::Enum(variants.clone()));
                variants
            }
            _ => return self.opaque(),
        };
        let unknown = variants.iter().position(|variant| self.is_worth_it(variant.gate));
        // The first of which a value could be made needed none that contains the enum.
        let made = variants.iter().enumerate().filter_map(|(index, variant)| Some((variant.good?, index)));
        unknown.or_else(|| made.min().map(|(_, index)| index)).ok_or(Stop)
    }

    /// After a variant was tried.
    pub(super) fn tried(&mut self, index: usize, before: usize, made: bool) {
        self.passed(before, made, index);
        let found = self.tracer.found;
        let Some(Node::Enum(variants)) = self.tracer.nodes.get_mut(self.id) else { return };
        if let Some(variant) = variants.get_mut(index).filter(|variant| made && variant.good.is_none()) {
            variant.good = Some(found);
            self.tracer.revive();
        }
    }
}
