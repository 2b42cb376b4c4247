//! API sketch: typed state on top of StateStore.
use crate::{error::Result, store::*};
use serde::{Serialize, de::DeserializeOwned};
/// One value per key, coded by serde (postcard). `ValueState::<u64>::descriptor("clicks")`, registered by `store.value_state(descriptor)`.
#[derive(Debug)]
pub struct ValueState<T> { _t: std::marker::PhantomData<fn() -> T> }
#[derive(Debug)]
pub struct ValueDescriptor<T> { _t: std::marker::PhantomData<fn() -> T> }
impl<T: Serialize + DeserializeOwned> ValueState<T> {
    pub fn descriptor(name: impl Into<String>) -> ValueDescriptor<T> { unimplemented!() }
    /// The value of `key` (its group is the store's `group_of(key)`).
    pub fn get(&self, store: &StateStore, key: &[u8]) -> Result<Option<T>> { unimplemented!() }
    pub fn put(&self, store: &mut StateStore, key: &[u8], value: &T) -> Result<()> { unimplemented!() }
    pub fn clear(&self, store: &mut StateStore, key: &[u8]) -> Result<()> { unimplemented!() }
    /// All keys and values in a group, ordered by key.
    pub fn entries(&self, store: &StateStore, group: crate::KeyGroup) -> Result<impl Iterator<Item = Result<(Vec<u8>, T)>>> where T: 'static { Ok(std::iter::empty()) }
}
impl StateStore { pub fn value_state<T>(&mut self, descriptor: ValueDescriptor<T>) -> Result<ValueState<T>> { unimplemented!() } }
