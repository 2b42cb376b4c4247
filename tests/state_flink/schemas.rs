//! Codecs, types and schema versions.

use super::*;

/// Registers each kind with something else than it was written with.
#[test]
fn a_wrong_codec_or_type_is_refused_by_name() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let kinds = Kinds::register(attempt.store());
        kinds.write(attempt.store(), "a", 1);
        let named =
            attempt.store().register(ValueState::<u64>::descriptor("named").type_name("Count")).unwrap();
        named.put(attempt.store(), &1).unwrap();
        let check = |attempt: &mut Attempt| {
            let store = attempt.store();
            let refused = |result: alluvium::Result<()>, words: &[&str]| {
                assert_error(result, ErrorKind::Incompatible, words);
            };
            // The key.
            let kinds = Kinds::register(store);
            store.set_key(&7_u64).unwrap();
            refused(kinds.value.get(store).map(drop), &["\"value\"", "\"str\"", "\"u64\""]);
            refused(kinds.list.append(store, &1), &["\"list\"", "\"str\"", "\"u64\""]);
            refused(kinds.map.iter(store).map(drop), &["\"map\"", "\"str\"", "\"u64\""]);
            refused(kinds.reducing.add(store, 1), &["\"reducing\"", "\"str\"", "\"u64\""]);
            refused(kinds.aggregating.get(store).map(drop), &["\"aggregating\"", "\"str\"", "\"u64\""]);
            // The codec.
            let raw = ValueState::<Vec<u8>>::descriptor_with("value", RawBytes);
            refused(store.register(raw).map(drop), &["\"value\"", "\"postcard\"", "\"raw\""]);
            let raw = ListState::<Vec<u8>>::descriptor_with("list", RawBytes);
            refused(store.register(raw).map(drop), &["\"list\"", "codec"]);
            let raw = MapState::<i32, Vec<u8>>::descriptor_with("map", RawBytes);
            refused(store.register(raw).map(drop), &["\"map\"", "codec"]);
            let raw = ReducingState::<Vec<u8>>::descriptor_with("reducing", |a, _| a, RawBytes);
            refused(store.register(raw).map(drop), &["\"reducing\"", "codec"]);
            // The map's key, the namespace, the kind, the type's name, the schema.
            let other = MapState::<u32, Option<String>>::descriptor("map");
            refused(store.register(other).map(drop), &["\"map\"", "\"i32\"", "\"u32\""]);
            refused(
                store.register(value().namespaced::<u8>()).map(drop),
                &["\"value\"", "namespaces", "\"u8\""],
            );
            let other = ListState::<String>::descriptor("value");
            refused(store.register(other).map(drop), &["\"value\"", "list"]);
            let other = ReducingState::descriptor("value", |a: u64, b| a + b);
            refused(store.register(other).map(drop), &["\"value\"", "reducing"]);
            let other = ValueState::<u64>::descriptor("named").type_name("Total");
            refused(store.register(other).map(drop), &["\"named\"", "\"Count\"", "\"Total\""]);
            refused(store.register(value().schema(1)).map(drop), &["\"value\"", "schema", "migrate"]);
            // A type that was not named is known by its shape, or is found out when it is read.
            let other = ValueState::<(u64, u64, u64)>::descriptor("value");
            refused(store.register(other).map(drop), &["\"value\"", "str", "(u64; 3)", "migrate"]);
            let other = ValueState::<(u64, u64, u64)>::descriptor_with("value", Shapeless);
            let other = store.register(other).unwrap();
            store.set_key("a").unwrap();
            assert_error(other.get(store), ErrorKind::Corrupt, &["\"value\"", "type", "migrate", "\"a\""]);
        };
        check(&mut attempt);
        attempt.checkpoint();
        drop(attempt);
        check(&mut home.open());
    });
}

/// Postcard under its own name, that does not say what it stores.
struct Shapeless;

impl Codec<(u64, u64, u64)> for Shapeless {
    fn id(&self) -> &str {
        "postcard"
    }

    fn encode(
        &self,
        value: &(u64, u64, u64),
        out: &mut Vec<u8>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Postcard.encode(value, out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<(u64, u64, u64), Box<dyn std::error::Error + Send + Sync>> {
        Postcard.decode(bytes)
    }
}

/// The version before: what counts were once.
fn old<S: alluvium::state::KeyedState>(descriptor: StateDescriptor<S>) -> StateDescriptor<S> {
    descriptor.schema(1)
}

#[test]
fn values_of_an_earlier_schema_are_migrated_when_they_are_read() {
    in_both_modes(|home| {
        // Version 1 is a u8 as text, version 2 a u64.
        let upgrade = |version: u32, bytes: &[u8]| {
            assert_eq!(version, 1);
            let text: String = Postcard.decode(bytes)?;
            Ok(text.parse::<u64>()?)
        };
        let mut attempt = home.open();
        let store = attempt.store();
        let value = store.register(old(ValueState::<String>::descriptor("value"))).unwrap();
        let list = store.register(old(ListState::<String>::descriptor("list"))).unwrap();
        let map = store.register(old(MapState::<u8, String>::descriptor("map"))).unwrap();
        let sum = old(ReducingState::<String>::descriptor("sum", |a, _| a));
        let sum = store.register(sum).unwrap();
        for key in ["a", "b"] {
            store.set_key(key).unwrap();
            value.put(store, &"7".to_owned()).unwrap();
            list.extend(store, ["1".to_owned(), "2".to_owned()]).unwrap();
            map.put(store, &1, &"10".to_owned()).unwrap();
            sum.add(store, "5".to_owned()).unwrap();
        }
        store.set_key("c").unwrap();
        value.put(store, &"not a number".to_owned()).unwrap();
        attempt.checkpoint();
        drop(attempt);

        // Twice: what the second finds was in part written by the first.
        for round in 0..2 {
            let mut attempt = home.open();
            let store = attempt.store();
            let schema = |state: &str| format!("\"{state}\"");
            let without = ValueState::<u64>::descriptor("value").schema(2);
            assert_error(store.register(without), ErrorKind::Incompatible, &[&schema("value"), "migrate"]);
            let value = ValueState::<u64>::descriptor("value").schema(2).migrate(upgrade);
            let value = store.register(value).unwrap();
            let list = ListState::<u64>::descriptor("list").schema(2).migrate(upgrade);
            let list = store.register(list).unwrap();
            let map = MapState::<u8, u64>::descriptor("map").schema(2).migrate(upgrade);
            let map = store.register(map).unwrap();
            let sum = ReducingState::<u64>::descriptor("sum", |a, b| a + b).schema(2).migrate(upgrade);
            let sum = store.register(sum).unwrap();

            // Never written again: still the old bytes.
            store.set_key("b").unwrap();
            assert_eq!(value.get(store).unwrap(), Some(7));
            assert_eq!(list.get(store).unwrap(), [1, 2]);
            assert_eq!(all(map.iter(store).unwrap()), [(1, 10)]);
            assert_eq!(sum.get(store).unwrap(), Some(5));

            store.set_key("a").unwrap();
            assert_eq!(value.get(store).unwrap(), Some(7 + round));
            value.put(store, &(8 + round)).unwrap();
            list.append(store, &300).unwrap();
            map.put(store, &2, &400).unwrap();
            sum.add(store, 500).unwrap();
            assert_eq!(list.get(store).unwrap()[..3], [1, 2, 300]);
            assert_eq!(list.get(store).unwrap().len() as u64, 3 + round);
            assert_eq!(all(map.iter(store).unwrap()), [(1, 10), (2, 400)]);
            assert_eq!(sum.get(store).unwrap(), Some(505 + 500 * round));
            // Elements of both versions stay as they are.
            list.retain(store, |n| *n != 2 || round == 0).unwrap();

            store.set_key("c").unwrap();
            assert_error(value.get(store), ErrorKind::Corrupt, &["\"value\"", "schema 1", "migrated"]);
            attempt.checkpoint();
        }

        // And never back.
        let mut attempt = home.open();
        let old = attempt.store().register(old(ValueState::<String>::descriptor("value")));
        assert_error(old, ErrorKind::Incompatible, &["\"value\"", "schema 2", "newer"]);
    });
}
