//! When to copy deltas together, so that a restore reads few objects (I8) and a checkpoint names
//! few objects (I5). A pure decision.
//!
//! Three reasons, in this order:
//! - Manifests carry deltas inline. They are packed once more than [`MAX_CARRIERS`] of them are
//!   live, or a few that carry much. Until then their bytes are kept in memory.
//! - Objects are small. They are packed once [`FANOUT`] of them are of one size class, or once they
//!   amount to two large ones. If all small objects together make a large one, all of them go into
//!   it. Classes grow by the same factor, so a byte is rewritten at most once per class, and the
//!   number of objects grows with the logarithm of the changelog.
//! - Objects are large, but hold little of each of many subtasks. A checkpoint names each subtask's
//!   part separately. Consecutive parts are therefore laid side by side once there are
//!   [`FRAGMENTS`] of them for each subtask. Then one reference stands for up to 2 MiB.
//!
//! If each subtask writes objects of its own, one checkpoint may add a small object for each.
//! Packing then waits for [`PER_SUBTASK`] objects of each subtask; otherwise it would run at every
//! checkpoint. The number of objects is bounded by a multiple of the subtasks, from which a restore
//! reads anyway.
//!
//! An object that deltas of several subtasks share loses the part of each when that subtask takes a
//! base. What is left will follow soon, so it is not rewritten for its size before less
//! than a quarter ([`REST`]) is live. The packer remembers how large an object was ([`Sizes`]).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ids::SubtaskIndex;
use crate::manifest::DeltaRef;
use crate::remote::ObjectName;

use super::joined::LARGE;

/// Manifests that may carry live deltas;
const MAX_CARRIERS: usize = 16;
/// and how many at least are packed because they carry much.
const FEW_CARRIERS: usize = 4;
/// Objects of one size class that may exist side by side,
const FANOUT: usize = 8;
/// or, if that is more, this many for each subtask that has written one.
const PER_SUBTASK: usize = 4;
/// Upper end of the smallest size class.
const SMALLEST: u64 = 256 << 10;
/// Bytes that are packed into one object, and so are in memory at a time.
const MAX_PACK: u64 = 16 << 20;
/// Parts of large objects that a checkpoint may name for each subtask before they are laid side by
/// side.
const FRAGMENTS: usize = 32;
/// A part of this length justifies a reference of its own.
const WHOLE: u64 = 256 << 10;
/// A part that is this many times longer than all parts after it is not rewritten for their sake. A
/// byte is thus rewritten a logarithmic number of times.
const OUTWEIGHS: u64 = 8;

/// The part of a large object that is worth rewriting, because the rest of the object is dead.
const REST: u64 = 4;

/// How large objects were, in bytes, as far as the checkpoints of this process show: the most that
/// one has named of an object, or where the last named part ends.
#[derive(Debug, Default)]
pub(crate) struct Sizes(HashMap<ObjectName, u64>);

impl Sizes {
    /// A checkpoint names these deltas. Objects that it does not name are forgotten.
    pub(crate) fn named<'a>(&mut self, deltas: impl IntoIterator<Item = &'a DeltaRef>) {
        let mut live = HashMap::<_, (u64, u64)>::with_capacity(self.0.len());
        for delta in deltas {
            let (bytes, end) = live.entry(&delta.object).or_default();
            *bytes = bytes.saturating_add(delta.length);
            *end = delta.offset.saturating_add(delta.length).max(*end);
        }
        self.0.retain(|name, _| live.contains_key(name));
        for (name, (bytes, end)) in live {
            let bytes = bytes.max(end);
            match self.0.get_mut(name) {
                Some(most) => *most = bytes.max(*most),
                None => drop(self.0.insert(name.clone(), bytes)),
            }
        }
    }

    /// Whether an object of which so much is live is left as it is.
    fn is_large(&self, object: &Live<'_>) -> bool {
        let most = self.0.get(object.name).copied().unwrap_or_default();
        object.bytes >= LARGE || (most >= LARGE && object.bytes >= most / REST)
    }
}

/// What goes into one pack, in this order: the subtask, and the reference that the checkpoint has
/// to its delta.
pub(crate) type Pack = Vec<(SubtaskIndex, DeltaRef)>;

/// A reference of a checkpoint.
type Named<'a> = (SubtaskIndex, &'a DeltaRef);

/// What an object holds of the live deltas.
#[derive(Clone)]
struct Live<'a> {
    name: &'a ObjectName,
    bytes: u64,
    parts: Vec<Named<'a>>,
}

/// What should be packed now. `deltas` are all deltas that the newest checkpoint of the process
/// refers to, those of a subtask oldest first. `sizes` has seen them. `carried` is what manifests may
/// carry before a few of them are packed.
pub(crate) fn due<'a>(deltas: impl IntoIterator<Item = Named<'a>>, carried: u64, sizes: &Sizes) -> Vec<Pack> {
    let deltas: Vec<_> = deltas.into_iter().collect();
    let mut live = BTreeMap::<&ObjectName, Live<'_>>::new();
    for (subtask, delta) in &deltas {
        let name = &delta.object;
        let object = live.entry(name).or_insert(Live { name, bytes: 0, parts: Vec::new() });
        object.bytes = object.bytes.saturating_add(delta.length);
        object.parts.push((*subtask, delta));
    }
    let (manifests, objects): (Vec<_>, Vec<_>) =
        live.into_values().partition(|object| object.name.is_manifest());
    let (large, small): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| sizes.is_large(object));
    let many = manifests.len() > MAX_CARRIERS;
    let much = manifests.len() >= FEW_CARRIERS && bytes_of(&manifests) >= carried;
    // Packing even one manifest is worth it, because the manifest can then be deleted. An object that
    // is copied alone is only the same object again.
    let (chosen, least) = if many || much { (Some(&manifests), 1) } else { (None, 2) };
    let full = full_class(&small);
    if let Some(chosen) = chosen.or(full.as_ref()) {
        let enough = bytes_of(&manifests).saturating_add(bytes_of(&small)) >= LARGE;
        // A large object is not packed again, so everything goes into it. Consecutive parts of a
        // subtask that lie in objects and in manifests by turns then lie together.
        let packs = if enough { packs(manifests.iter().chain(&small), least) } else { packs(chosen, least) };
        if !packs.is_empty() {
            return packs;
        }
    }
    let large: BTreeSet<_> = large.iter().map(|object| object.name).collect();
    cut(fragments(&deltas, &large).unwrap_or_default(), 2)
}

fn bytes_of(objects: &[Live<'_>]) -> u64 {
    objects.iter().fold(0, |sum, object| sum.saturating_add(object.bytes))
}

/// Small objects of one size class, of which there are too many.
fn full_class<'a>(small: &[Live<'a>]) -> Option<Vec<Live<'a>>> {
    let mut classes = BTreeMap::<u32, Vec<Live<'a>>>::new();
    for object in small {
        classes.entry(class_of(object.bytes)).or_default().push(object.clone());
    }
    classes.into_values().find(|objects| {
        // If each subtask writes objects of its own, one checkpoint adds one for each.
        let writers: BTreeSet<_> = objects.iter().filter_map(|object| subtask_of(object.name)).collect();
        let most = FANOUT.max(writers.len() * PER_SUBTASK);
        // Two large objects, for as many as fill a class.
        let heavy = most as u64 * (2 * LARGE / FANOUT as u64);
        objects.len() >= most || objects.len() > 1 && bytes_of(objects) >= heavy
    })
}

/// Consecutive short parts of all subtasks, if `large` objects hold enough of them.
fn fragments<'a>(deltas: &[Named<'a>], large: &BTreeSet<&ObjectName>) -> Option<Pack> {
    let mut found = Vec::new();
    let (mut subtasks, mut parts) = (BTreeSet::new(), 0);
    let follows = |a: &Named<'a>, b: &Named<'a>| {
        let short = a.1.length < WHOLE && b.1.length < WHOLE;
        short && a.0 == b.0 && a.1.last.next() == b.1.first
    };
    for chain in deltas.chunk_by(follows) {
        let chain = worth_rewriting(chain);
        let [(subtask, _), _, ..] = chain else { continue };
        let in_large = chain.iter().filter(|(_, delta)| large.contains(&delta.object)).count();
        if in_large > 0 {
            subtasks.insert(*subtask);
            parts += in_large;
            found.extend(chain.iter().map(|(subtask, delta)| (*subtask, (*delta).clone())));
        }
    }
    (parts > 0 && parts >= FRAGMENTS * subtasks.len()).then_some(found)
}

/// The end of a chain, up to what outweighs all that follows it.
fn worth_rewriting<'c, 'a>(chain: &'c [Named<'a>]) -> &'c [Named<'a>] {
    let (mut bytes, mut from) = (0_u64, chain.len());
    for (at, (_, delta)) in chain.iter().enumerate().rev() {
        if bytes > 0 && delta.length / OUTWEIGHS > bytes {
            break;
        }
        bytes = bytes.saturating_add(delta.length);
        from = at;
    }
    chain.get(from..).unwrap_or_default()
}

/// Cuts what `objects` hold into packs; one of fewer than `least` objects is left as it is.
fn packs<'s, 'a: 's>(objects: impl IntoIterator<Item = &'s Live<'a>>, least: usize) -> Vec<Pack> {
    let parts = objects.into_iter().flat_map(|object| &object.parts);
    let mut parts: Vec<_> = parts.map(|(subtask, delta)| (*subtask, (*delta).clone())).collect();
    // The deltas of one subtask lie side by side, so that one reference stands for them.
    parts.sort_by_key(|(subtask, delta)| (*subtask, delta.first));
    cut(parts, least)
}

fn cut(parts: Pack, least: usize) -> Vec<Pack> {
    let mut packs = vec![Pack::new()];
    let mut left = MAX_PACK;
    for (subtask, delta) in parts {
        if delta.length > left {
            packs.push(Vec::new());
            left = MAX_PACK;
        }
        left = left.saturating_sub(delta.length);
        packs.last_mut().into_iter().for_each(|pack| pack.push((subtask, delta.clone())));
    }
    // A single delta may be longer than a pack.
    debug_assert!(packs.iter().all(|pack| pack.len() < 2 || length_of(pack) <= MAX_PACK));
    packs.retain(|pack| pack.iter().map(|(_, delta)| &delta.object).collect::<BTreeSet<_>>().len() >= least);
    packs
}

fn length_of(pack: &Pack) -> u64 {
    pack.iter().map(|(_, delta)| delta.length).sum()
}

fn subtask_of(name: &ObjectName) -> Option<SubtaskIndex> {
    match name {
        ObjectName::Data { subtask, .. } => Some(*subtask),
        _ => None,
    }
}

fn class_of(bytes: u64) -> u32 {
    (bytes / SMALLEST).checked_ilog(FANOUT as u64).map_or(0, |class| class + 1)
}
