//! The named states of a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::delta::TableKind;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::StateId;
use crate::key;
use crate::manifest::{StateInfo, TtlInfo};

use super::compatibility::check;
use super::key_name::{name_encoded_key, name_key};
use super::kind::StateKind;
use super::revision::Revision;
use super::state_options::{State, StateOptions};

/// The states of one store: those of the restored checkpoint, and those that the program has
/// registered.
#[derive(Debug)]
pub(crate) struct Registry {
    states: BTreeMap<StateId, StateInfo>,
    /// States whose id is not made from their name: they were renamed, or a renamed state has kept
    /// the id.
    renamed: BTreeMap<String, StateId>,
    /// Names that the attempt's options drop or give away.
    gone: Vec<String>,
    /// The TTL with which this attempt has registered a state.
    ttls: BTreeMap<StateId, Option<TtlInfo>>,
    /// The list as receipts carry it. None if a state has changed since.
    list: Option<Arc<[StateInfo]>>,
}

impl Registry {
    pub(crate) fn new(restored: &[StateInfo]) -> Self {
        let states = restored.iter().map(|info| (info.id, info.clone())).collect();
        let other = restored.iter().filter(|info| info.id != StateId::of(&info.name));
        let renamed = other.map(|info| (info.name.clone(), info.id)).collect();
        Self { states, renamed, gone: Vec::new(), ttls: BTreeMap::new(), list: Some(restored.into()) }
    }

    /// Names that the options drop or give away at every start cannot be registered, because the
    /// next start would drop the new state of that name.
    #[must_use]
    pub(crate) fn without(mut self, revisions: &[Revision]) -> Self {
        self.gone = revisions.iter().map(Revision::gives_up).map(str::to_owned).collect();
        self
    }

    fn check_stays(&self, name: &str) -> Result<()> {
        if self.gone.iter().any(|gone| gone == name) {
            return Err(Error::invalid("the job's options drop or rename this state at every start")
                .object(format!("state {name:?}"))
                .advise("take that out of the options, or register the state under another name"));
        }
        Ok(())
    }

    /// The id of a name. If a state has the name, its id. Otherwise the id made of the name, or,
    /// where a renamed state has kept that id, of the name and a number. All subtasks find the same
    /// id, because all know the same renamed states.
    fn id_of(&self, name: &str) -> StateId {
        if let Some(id) = self.renamed.get(name) {
            return *id;
        }
        let taken = |id: &StateId| {
            let holder = self.states.get(id).filter(|state| state.name != name);
            holder.is_some_and(|state| self.renamed.contains_key(&state.name))
        };
        let numbered = (1_u64..).map(|n| StateId::of(&format!("{name}\0{n}")));
        let mut ids = std::iter::once(StateId::of(name)).chain(numbered);
        ids.find(|id| *id != StateId::RESERVED && !taken(id)).unwrap_or_else(|| StateId::of(name))
    }

    pub(crate) fn is_registered(&self, id: StateId) -> bool {
        self.ttls.contains_key(&id)
    }

    /// All states. The list is rebuilt at the first call after a change, not at each change, so
    /// that registering thousands of states stays cheap.
    pub(crate) fn list(&mut self) -> Arc<[StateInfo]> {
        let states = &self.states;
        Arc::clone(self.list.get_or_insert_with(|| states.values().cloned().collect()))
    }

    pub(crate) fn register(&mut self, options: &StateOptions) -> Result<State> {
        check_name(&options.name)?;
        self.check_stays(&options.name)?;
        let id = self.id_of(&options.name);
        let mut info = options.info(id);
        if let Some(known) = self.states.get(&id) {
            check(known, &info, options.migrates)
                .map_err(|error| error.object(format!("state {:?}", options.name)))?;
            if !known.key.is_empty() {
                info.key.clone_from(&known.key);
            }
            info.value.oldest_schema = known.value.oldest_schema;
            if known.value.schema == info.value.schema && !info.value.type_is_named {
                // A name that was given stays until the schema changes. Otherwise the next one
                // could not be compared.
                info.value.type_name.clone_from(&known.value.type_name);
                info.value.type_is_named = known.value.type_is_named;
            }
            if known.value.schema == info.value.schema && info.value.shape.is_empty() {
                info.value.shape.clone_from(&known.value.shape);
            }
        }
        if *self.ttls.entry(id).or_insert(options.ttl) != options.ttl {
            return Err(Error::new(ErrorKind::Incompatible, "the state is in use with another TTL")
                .object(format!("state {:?}", options.name))
                .advise("register it with the same TTL everywhere; a restored state may be given another"));
        }
        self.set(info);
        Ok(State { id, table: options.table, raw: options.kind == StateKind::Raw })
    }

    /// Registers a state exactly as it was described elsewhere.
    pub(crate) fn adopt(&mut self, info: &StateInfo) -> Result<State> {
        check_name(&info.name)?;
        self.check_stays(&info.name)?;
        // Ids are each job's own.
        let info = &StateInfo { id: self.id_of(&info.name), ..info.clone() };
        if let Some(known) = self.states.get(&info.id) {
            // One that was never written to has no type of keys yet.
            let key = if known.key.is_empty() { info.key.clone() } else { known.key.clone() };
            if (StateInfo { key, ..known.clone() }) != *info {
                let message = if known.name == info.name {
                    "the job has it as another kind, or with other types".to_owned()
                } else {
                    format!("the name has the same id as the state {:?}", known.name)
                };
                return Err(Error::new(ErrorKind::Incompatible, message)
                    .object(format!("state {:?}", info.name))
                    .advise("bring it into a job of its own"));
            }
        }
        self.set(info.clone());
        Ok(State { id: info.id, table: TableKind::Hash, raw: info.kind == StateKind::Raw as u16 })
    }

    /// The type of a state's keys. Empty if it was not declared and no key is stored yet, or if
    /// there is no such state.
    pub(crate) fn key_type_of(&self, id: StateId) -> &str {
        self.states.get(&id).map_or("", |info| info.key.as_str())
    }

    /// From the first key that is stored on, a state has only keys of this type.
    pub(crate) fn set_key(&mut self, id: StateId, key: String) {
        if let Some(info) = self.states.get(&id) {
            self.set(StateInfo { key, ..info.clone() });
        }
    }

    /// A stored key of a state, for messages.
    pub(crate) fn name_key(&self, id: StateId, stored: &[u8]) -> String {
        name_key(self.states.get(&id), stored)
    }

    /// Where an encoded key lies, for messages.
    pub(crate) fn name_encoded_key(&self, encoded: &[u8]) -> String {
        name_encoded_key(key::state_of(encoded).and_then(|id| self.states.get(&id)), encoded)
    }

    /// For messages.
    pub(crate) fn name_of(&self, id: StateId) -> String {
        self.states.get(&id).map_or_else(|| format!("state {id}"), |info| format!("state {:?}", info.name))
    }

    fn set(&mut self, info: StateInfo) {
        debug_assert_ne!(info.id, StateId::RESERVED, "the table keeps its own entries under this id");
        if self.states.get(&info.id) != Some(&info) {
            if info.id != StateId::of(&info.name) {
                self.renamed.insert(info.name.clone(), info.id);
            }
            self.states.insert(info.id, info);
            self.list = None;
        }
    }
}

pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("a state's name must not be empty"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ValueInfo;

    /// A value state.
    fn options() -> StateOptions {
        let value = ValueInfo { codec: "postcard".into(), schema: 2, ..ValueInfo::default() };
        StateOptions { kind: StateKind::Value, value, ..StateOptions::new("clicks") }
    }

    fn with_value(change: impl FnOnce(&mut ValueInfo)) -> StateOptions {
        let mut options = options();
        change(&mut options.value);
        options
    }

    fn assert_clash(registry: &mut Registry, options: &StateOptions, words: &[&str]) {
        let before = registry.list();
        let error = registry.register(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        for word in ["\"clicks\""].iter().chain(words) {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
        assert_eq!(registry.list(), before);
    }

    #[test]
    fn a_clash_names_the_state() {
        let mut registry = Registry::new(&[]);
        registry.register(&options()).unwrap();
        registry.register(&options()).unwrap();
        let raw = StateOptions::new("clicks");
        assert_clash(&mut registry, &raw, &["value", "raw"]);
        let namespaced = StateOptions { namespace: "u64".into(), ..options() };
        assert_clash(&mut registry, &namespaced, &["namespaces", "none", "\"u64\""]);
        let map = StateOptions { map_key: "u64".into(), ..options() };
        assert_clash(&mut registry, &map, &["map keys", "\"u64\""]);
        let codec = with_value(|value| value.codec = "json".into());
        assert_clash(&mut registry, &codec, &["codec", "\"postcard\"", "\"json\""]);
        assert_eq!(registry.list().len(), 1);
    }

    #[test]
    fn the_list_is_made_when_it_is_asked_for_and_not_at_each_change() {
        let mut registry = Registry::new(&[]);
        for n in 0..100 {
            let state = registry.register(&StateOptions::new(format!("state {n}"))).unwrap();
            registry.set_key(state.id, "u64".into());
            assert!(registry.list.is_none());
        }
        let list = registry.list();
        assert_eq!(list.len(), 100);
        assert!(list.iter().all(|info| info.key == "u64"));
        registry.register(&StateOptions::new("state 7")).unwrap();
        assert!(Arc::ptr_eq(&list, &registry.list()), "nothing has changed");
    }

    #[test]
    fn a_renamed_state_keeps_its_id_and_its_old_name_is_free() {
        let hits = StateInfo { name: "hits".into(), ..options().info(StateId::of("clicks")) };
        let mut registry = Registry::new(&[hits]);
        let named = |name: &str| StateOptions { name: name.into(), ..options() };
        assert_eq!(registry.register(&named("hits")).unwrap().id, StateId::of("clicks"));
        let clicks = registry.register(&named("clicks")).unwrap().id;
        assert_ne!(clicks, StateId::of("clicks"));
        assert_eq!(registry.register(&named("clicks")).unwrap().id, clicks);
        assert!(registry.is_registered(clicks) && !registry.is_registered(StateId::of("words")));
        // The next attempt, and another subtask of this one, find both again.
        for known in [registry.list().to_vec(), registry.list()[..].iter().rev().cloned().collect()] {
            let mut next = Registry::new(&known);
            assert_eq!(next.register(&named("clicks")).unwrap().id, clicks);
            assert_eq!(next.register(&named("hits")).unwrap().id, StateId::of("clicks"));
        }
        // A job that takes such a state over gives it an id of its own.
        let moved = registry.list().iter().find(|info| info.name == "hits").cloned().unwrap();
        assert_eq!(Registry::new(&[]).adopt(&moved).unwrap().id, StateId::of("hits"));
    }

    #[test]
    fn what_every_start_drops_cannot_be_registered() {
        let mut registry = Registry::new(&[]).without(&[Revision::Drop("clicks".into())]);
        let error = registry.register(&options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("\"clicks\""), "{error}");
    }

    #[test]
    fn names_that_collide_are_refused() {
        // As if both names had one checksum.
        let mut registry = Registry::new(&[]);
        let other = StateInfo { name: "another".into(), ..options().info(StateId::of("clicks")) };
        registry.states.insert(other.id, other);
        assert_clash(&mut registry, &options(), &["\"another\""]);
    }

    #[test]
    fn types_are_compared_once_the_user_names_them() {
        let typed = |name: &str, named| {
            with_value(|value| (value.type_name, value.type_is_named) = (name.to_owned(), named))
        };
        let mut registry = Registry::new(&[]);
        registry.register(&typed("alloc::Count", false)).unwrap();
        registry.register(&typed("core::Count", false)).unwrap();
        registry.register(&typed("Count", true)).unwrap();
        registry.register(&typed("other::Count", false)).unwrap();
        assert_clash(&mut registry, &typed("Total", true), &["\"Count\"", "\"Total\""]);
    }

    #[test]
    fn numbers_are_compared_even_if_nobody_named_them() {
        let typed = |name: &str| with_value(|value| name.clone_into(&mut value.type_name));
        let mut registry = Registry::new(&[]);
        registry.register(&typed("u64")).unwrap();
        // Its bytes would be read without an error, as another number.
        assert_clash(&mut registry, &typed("i64"), &["\"u64\"", "\"i64\""]);
        registry.register(&typed("u64")).unwrap();
        // The compiler may call a type of the user's something else next time.
        registry.register(&typed("app::Clicks")).unwrap();
        registry.register(&typed("app::clicks::Clicks")).unwrap();
    }

    #[test]
    fn a_changed_shape_needs_a_new_schema_version() {
        let shaped =
            |text: &str, schema| with_value(|value| (value.shape, value.schema) = (text.to_owned(), schema));
        let migrates = |options| StateOptions { migrates: true, ..options };
        let mut registry = Registry::new(&[]);
        registry.register(&shaped("", 2)).unwrap();
        registry.register(&shaped("{a: u32, b: u32}", 2)).unwrap();
        let words = ["\"b\"", "\"a\"", "schema", "migrate"];
        assert_clash(&mut registry, &shaped("{b: u32, a: u32}", 2), &words);
        assert_clash(&mut registry, &migrates(shaped("{a: u32, b: i32}", 2)), &["u32", "i32"]);
        // A program that does not know the shape keeps the recorded one.
        registry.register(&shaped("", 2)).unwrap();
        let mut restored = Registry::new(&registry.list());
        assert_clash(&mut restored, &shaped("{b: u32, a: u32}", 2), &words);
        restored.register(&migrates(shaped("{b: u32, a: u32}", 3))).unwrap();
        assert_eq!(restored.list()[0].value.shape, "{b: u32, a: u32}");
        assert_clash(&mut restored, &migrates(shaped("[u8]", 3)), &["[u8]"]);
        // A newer version whose shape is not known says nothing of the older one's.
        restored.register(&migrates(shaped("", 4))).unwrap();
        assert_eq!(restored.list()[0].value.shape, "");
    }

    #[test]
    fn a_newer_schema_needs_a_way_to_migrate() {
        let schema = |schema, migrates| {
            let options =
                with_value(|value| (value.schema, value.codec) = (schema, format!("codec {schema}")));
            StateOptions { migrates, ..options }
        };
        let mut registry = Registry::new(&[]);
        registry.register(&schema(2, false)).unwrap();
        assert_clash(&mut registry, &schema(1, true), &["schema 2", "1"]);
        assert_clash(&mut registry, &schema(3, false), &["schema 2", "3", "migrate"]);
        registry.register(&schema(3, true)).unwrap();
        let value = registry.list()[0].value.clone();
        assert_eq!((value.schema, value.oldest_schema), (3, 2));
        // Values of the old version may still be there, in this attempt and in all that follow.
        let mut restored = Registry::new(&registry.list());
        assert_clash(&mut restored, &schema(3, false), &["schema 2", "3", "migrate"]);
        restored.register(&schema(3, true)).unwrap();
        restored.register(&schema(4, true)).unwrap();
        assert_eq!(restored.list()[0].value.oldest_schema, 2);
    }

    #[test]
    fn ttl_may_change_and_keys_are_learned() {
        let mut registry = Registry::new(&[]);
        let state = registry.register(&options()).unwrap();
        assert_eq!(registry.key_type_of(state.id), "");
        registry.set_key(state.id, "u64".into());
        let ttl = Some(TtlInfo { millis: 7, mode: 1 });
        assert_clash(&mut registry, &StateOptions { ttl, ..options() }, &["TTL"]);
        let mut registry = Registry::new(&registry.list());
        registry.register(&StateOptions { ttl, ..options() }).unwrap();
        let list = registry.list();
        assert_eq!((list[0].key.as_str(), list[0].ttl), ("u64", ttl));
        assert_eq!(registry.name_of(state.id), "state \"clicks\"");
    }
}
