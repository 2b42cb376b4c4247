//! A [`Deserializer`] that has no data: it notes what it is asked for, and answers with made-up
//! values.

use serde::Deserializer;
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::at::{At, BYTES, Stop, TEXTS};
use super::trace::{Gate, Id, Node, Tracer};

impl At<'_> {
    fn visit_parts<'de, V: Visitor<'de>>(self, parts: &[Id], visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(Parts { tracer: self.tracer, left: parts })
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
            // Nothing new is behind it, and none costs nothing to make.
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
        // One element is enough: all of a list have the same type.
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
        // An entry is made as long as its key or its value is not known.
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
        // By number, as postcard does it.
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
