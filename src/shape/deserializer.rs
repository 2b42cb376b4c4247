//! A [`Deserializer`] that has no data: it notes what it is asked for, and answers with made-up values.

use std::any::type_name;
use std::fmt;

use serde::Deserializer;
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::DEEPEST;
use super::trace::{Gate, Id, Node, Tracer, Variant};

/// A run cannot go on: the type refused a value, or asks for something that cannot be made up.
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

const TEXTS: [&str; 6] =
    ["", "a", "1", "1970-01-01T00:00:00Z", "1970-01-01", "67e55044-10b1-426f-9247-bb680e5fe0c8"];
const BYTES: [usize; 6] = [0, 16, 4, 8, 20, 32];
const NUMBERS: [u8; 6] = [1, 0, 2, 10, 100, 127];

impl<'t> At<'t> {
    /// Notes that there is a leaf here, and says which value to give.
    fn leaf(&mut self, wanted: &'static str) -> Result<usize, Stop> {
        match self.tracer.nodes[self.id] {
            Node::Unseen => self.tracer.set(self.id, Node::Leaf { name: wanted, sample: 0 }),
            Node::Leaf { name, .. } if name == wanted => {}
            _ => return self.opaque(),
        }
        self.tracer.last_leaf = Some(self.id);
        match self.tracer.nodes[self.id] {
            Node::Leaf { sample, .. } => Ok(sample),
            _ => Err(Stop),
        }
    }

    fn number(&mut self, wanted: &'static str) -> Result<u8, Stop> {
        let sample = self.leaf(wanted)?;
        Ok(NUMBERS.get(sample).copied().unwrap_or_default())
    }

    /// Nothing can be said of this place.
    fn opaque<T>(&mut self) -> Result<T, Stop> {
        if !matches!(self.tracer.nodes[self.id], Node::Opaque) {
            self.tracer.set(self.id, Node::Opaque);
        }
        Err(Stop)
    }

    fn below(&mut self, id: Id) -> At<'_> {
        At { tracer: self.tracer, id }
    }

    /// Goes through a gate, or says that there is nothing behind it that is worth it.
    fn is_worth_it(&self, gate: Gate) -> bool {
        !self.tracer.simplest && !gate.stalled && !self.tracer.is_known(gate.to)
    }

    /// After a gate was taken: closes it if nothing new was found behind it, and no other value is left to try.
    fn passed(&mut self, before: usize, made: bool, variant: usize) {
        if self.tracer.found != before || (!made && self.tracer.try_another()) {
            return;
        }
        let gate = match &mut self.tracer.nodes[self.id] {
            Node::Option(gate) | Node::Seq(gate) | Node::Map { gate, .. } => Some(gate),
            Node::Enum(variants) => variants.get_mut(variant).map(|variant| &mut variant.gate),
            _ => None,
        };
        if let Some(gate) = gate.filter(|gate| !gate.stalled) {
            gate.stalled = true;
            self.tracer.found += 1;
        }
    }

    /// Calls `f` for a type of its own. One within itself is noted, and made as simply as possible.
    fn within<V, R>(mut self, f: impl for<'a> FnOnce(At<'a>) -> Result<R, Stop>) -> Result<R, Stop> {
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

    fn tuple(&mut self, len: usize) -> Result<Vec<Id>, Stop> {
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

    fn fields(&mut self, names: &'static [&'static str]) -> Result<Vec<Id>, Stop> {
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

    fn visit_parts<'de, V: Visitor<'de>>(self, parts: &[Id], visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(Parts { tracer: self.tracer, left: parts })
    }

    fn variants(&mut self, names: &'static [&'static str]) -> Result<usize, Stop> {
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
    fn tried(&mut self, index: usize, before: usize, made: bool) {
        self.passed(before, made, index);
        let found = self.tracer.found;
        let Some(Node::Enum(variants)) = self.tracer.nodes.get_mut(self.id) else { return };
        if let Some(variant) = variants.get_mut(index).filter(|variant| made && variant.good.is_none()) {
            variant.good = Some(found);
            self.tracer.revive();
        }
    }
}

macro_rules! leaves {
    ($($method:ident, $name:literal, $visit:ident, $at:ident => $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
            let $at = self.number($name)?;
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Stop;

    leaves! {
        deserialize_bool, "bool", visit_bool, number => number % 2 == 1;
        deserialize_i8, "i8", visit_i8, number => number as i8;
        deserialize_i16, "i16", visit_i16, number => number.into();
        deserialize_i32, "i32", visit_i32, number => number.into();
        deserialize_i64, "i64", visit_i64, number => number.into();
        deserialize_i128, "i128", visit_i128, number => number.into();
        deserialize_u8, "u8", visit_u8, number => number;
        deserialize_u16, "u16", visit_u16, number => number.into();
        deserialize_u32, "u32", visit_u32, number => number.into();
        deserialize_u64, "u64", visit_u64, number => number.into();
        deserialize_u128, "u128", visit_u128, number => number.into();
        deserialize_f32, "f32", visit_f32, number => number.into();
        deserialize_f64, "f64", visit_f64, number => number.into();
        deserialize_char, "char", visit_char, number => char::from(b'a' + number % 26);
    }

    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let sample = self.leaf("str")?;
        visitor.visit_str(TEXTS.get(sample).copied().unwrap_or_default())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let sample = self.leaf("bytes")?;
        visitor.visit_bytes(&vec![0; BYTES.get(sample).copied().unwrap_or_default()])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.leaf("()")?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    /// Stored as what is in it.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.within::<V::Value, _>(|at| visitor.visit_newtype_struct(at))
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let gate = match self.tracer.nodes[self.id] {
            Node::Option(gate) => gate,
            Node::Unseen => {
                let gate = Gate { to: self.tracer.add()?, stalled: false };
                self.tracer.set(self.id, Node::Option(gate));
                gate
            }
            _ => return self.opaque(),
        };
        if !self.is_worth_it(gate) {
            return visitor.visit_none();
        }
        let before = self.tracer.found;
        let made = visitor.visit_some(self.below(gate.to));
        self.passed(before, made.is_ok(), 0);
        made
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let gate = match self.tracer.nodes[self.id] {
            Node::Seq(gate) => gate,
            Node::Unseen => {
                let gate = Gate { to: self.tracer.add()?, stalled: false };
                self.tracer.set(self.id, Node::Seq(gate));
                gate
            }
            _ => return self.opaque(),
        };
        let one = [gate.to];
        let before = self.tracer.found;
        let elements: &[Id] = if self.is_worth_it(gate) { &one } else { &[] };
        let made = visitor.visit_seq(Parts { tracer: self.tracer, left: elements });
        if !elements.is_empty() {
            self.passed(before, made.is_ok(), 0);
        }
        made
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let (key, gate) = match self.tracer.nodes[self.id] {
            Node::Map { key, gate } => (key, gate),
            Node::Unseen => {
                let (key, gate) = (self.tracer.add()?, Gate { to: self.tracer.add()?, stalled: false });
                self.tracer.set(self.id, Node::Map { key, gate });
                (key, gate)
            }
            _ => return self.opaque(),
        };
        let before = self.tracer.found;
        let worth = self.is_worth_it(gate) || self.is_worth_it(Gate { to: key, ..gate });
        let entry = worth.then_some((key, gate.to));
        let made =
            visitor.visit_map(Entry { tracer: self.tracer, key: entry.map(|(key, _)| key), value: gate.to });
        if worth {
            self.passed(before, made.is_ok(), 0);
        }
        made
    }

    fn deserialize_tuple<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        let parts = self.tuple(len)?;
        self.visit_parts(&parts, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.within::<V::Value, _>(|at| at.deserialize_tuple(len, visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.within::<V::Value, _>(|mut at| {
            let parts = at.fields(fields)?;
            at.visit_parts(&parts, visitor)
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.within::<V::Value, _>(|mut at| {
            let index = at.variants(variants)?;
            let before = at.tracer.found;
            let id = at.id;
            let made = visitor.visit_enum(Chosen { at: at.below(id), index });
            at.tried(index, before, made.is_ok());
            made
        })
    }

    fn deserialize_any<V: Visitor<'de>>(mut self, _visitor: V) -> Result<V::Value, Stop> {
        self.opaque()
    }

    fn deserialize_identifier<V: Visitor<'de>>(mut self, _visitor: V) -> Result<V::Value, Stop> {
        self.opaque()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(mut self, _visitor: V) -> Result<V::Value, Stop> {
        self.opaque()
    }

    /// As postcard says; types that differ in this are stored in their short form.
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Parts one after the other: of a tuple, of a struct, the element of a list.
struct Parts<'t, 'p> {
    tracer: &'t mut Tracer,
    left: &'p [Id],
}

impl<'de> SeqAccess<'de> for Parts<'_, '_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        let Some((id, left)) = self.left.split_first() else { return Ok(None) };
        self.left = left;
        seed.deserialize(At { tracer: self.tracer, id: *id }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

/// One entry of a map, or none.
struct Entry<'t> {
    tracer: &'t mut Tracer,
    key: Option<Id>,
    value: Id,
}

impl<'de> MapAccess<'de> for Entry<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let Some(id) = self.key.take() else { return Ok(None) };
        seed.deserialize(At { tracer: self.tracer, id }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(At { tracer: self.tracer, id: self.value })
    }
}

/// The variant that a run takes.
struct Chosen<'t> {
    at: At<'t>,
    index: usize,
}

impl<'t, 'de> EnumAccess<'de> for Chosen<'t> {
    type Error = Stop;
    type Variant = At<'t>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, At<'t>), Stop> {
        let to = match &self.at.tracer.nodes[self.at.id] {
            Node::Enum(variants) => variants.get(self.index).map(|variant| variant.gate.to),
            _ => None,
        };
        let number: U32Deserializer<Stop> = u32::try_from(self.index).map_err(|_| Stop)?.into_deserializer();
        Ok((seed.deserialize(number)?, At { tracer: self.at.tracer, id: to.ok_or(Stop)? }))
    }
}

impl<'de> VariantAccess<'de> for At<'_> {
    type Error = Stop;

    fn unit_variant(mut self) -> Result<(), Stop> {
        self.leaf("()").map(drop)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let parts = self.fields(fields)?;
        self.visit_parts(&parts, visitor)
    }
}
