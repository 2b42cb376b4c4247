//! Parts of a manifest that seldom change. One manifest carries them and later ones refer to it,
//! so that they are not written again with every checkpoint.
//!
//! The bytes lie in the first manifest that needs them, beside its deltas, so that a commit stays
//! one request. A reference names the manifest, the offset in it, and the bytes' checksum.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::inline::Inline;
use super::state_info::StateInfo;
use super::state_lists::StateLists;
use super::varint::{Reader, Writer};
use crate::error::{Error, Result};
use crate::ids::Version;
use crate::remote::{ObjectName, Remote};

/// Bytes inside a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    /// The manifest.
    pub(super) object: ObjectName,
    offset: u64,
    length: u64,
    crc32c: u32,
}

impl Carried {
    /// Adds `bytes` to those that manifest `carrier` will hold.
    pub(super) fn push(bytes: Vec<u8>, carrier: Version, inline: &mut Inline) -> Self {
        let (length, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
        let offset = inline.push(bytes.into());
        Self { object: ObjectName::manifest(carrier), offset, length, crc32c }
    }

    /// Whether manifest `version` holds the bytes.
    pub(super) fn is_in(&self, version: Version) -> bool {
        self.object == ObjectName::Manifest(version)
    }

    fn is_before(&self, version: Version) -> bool {
        matches!(self.object, ObjectName::Manifest(carrier) if carrier < version)
    }

    /// Takes the bytes out of the manifest that holds them, and checks them.
    pub(super) fn of<'a>(&self, manifest: &'a [u8]) -> Result<&'a [u8]> {
        let start = usize::try_from(self.offset).ok();
        let place = start.zip(usize::try_from(self.length).ok());
        let place = place.and_then(|(start, length)| Some(start..start.checked_add(length)?));
        let bytes = place.and_then(|place| manifest.get(place));
        let bytes = bytes.ok_or_else(|| Error::corrupt("the manifest carries less than it says"))?;
        self.check(bytes)?;
        Ok(bytes)
    }

    /// Fetches and checks the bytes.
    pub(super) async fn fetch(&self, remote: &Remote) -> Result<Bytes> {
        let end = self.offset.saturating_add(self.length);
        let bytes = remote.get_range(&self.object, self.offset..end).await?;
        self.check(&bytes).map_err(|error| error.object(&self.object))?;
        Ok(bytes)
    }

    fn check(&self, bytes: &[u8]) -> Result<()> {
        if crc32c::crc32c(bytes) != self.crc32c {
            return Err(Error::corrupt("checksum of what the manifest carries does not match"));
        }
        Ok(())
    }

    /// Checks a reference in manifest `version`, whose own bytes are `inline`. It must point into them
    /// or to an earlier manifest.
    pub(super) fn validate(&self, version: Version, inline: &Range<u64>) -> Result<()> {
        let end = self.offset.checked_add(self.length);
        let inside = self.offset >= inline.start && end.is_some_and(|end| end <= inline.end);
        match self.object {
            ObjectName::Manifest(carrier) if carrier < version && end.is_some() => Ok(()),
            ObjectName::Manifest(carrier) if carrier == version && inside => Ok(()),
            _ => Err(Error::corrupt(format!("{} carries nothing that could be referred to", self.object))),
        }
    }

    /// The reference's form in manifest `version`.
    pub(super) fn write(&self, version: Version, out: &mut Writer) -> Result<()> {
        let ObjectName::Manifest(carrier) = self.object else {
            return Err(Error::internal("only manifests carry").object(&self.object));
        };
        out.back(carrier.0, version.0);
        out.number(self.offset);
        out.number(self.length);
        out.fixed(self.crc32c.to_le_bytes());
        Ok(())
    }

    pub(super) fn read(version: Version, input: &mut Reader<'_>) -> Result<Self> {
        let object = ObjectName::manifest(Version(input.back(version.0)?));
        let (offset, length) = (input.number()?, input.number()?);
        Ok(Self { object, offset, length, crc32c: u32::from_le_bytes(input.fixed()?) })
    }
}

/// The descriptions of a checkpoint's states. They change seldom, and a job may have thousands.
#[derive(Debug, Clone)]
pub(crate) struct States {
    /// `None` in a manifest that was read, if an earlier manifest holds them.
    lists: Option<StateLists>,
    /// `None` in a manifest of format 1, in a draft, and if there are no states.
    pub(super) place: Option<Carried>,
}

/// Descriptions up to this many bytes are written again if nothing else needs the manifest that holds
/// them. To keep that manifest might cost a thousand times as much.
const FEW: u64 = 1 << 10;

/// The first byte of the states of one operator; the list in postcard follows.
const STATES: u8 = 1;
/// The first byte of the states of several operators; a list of lists in postcard follows.
const STATE_LISTS: u8 = 2;

impl States {
    pub(crate) fn new(lists: StateLists) -> Self {
        Self { lists: Some(lists), place: None }
    }

    pub(super) fn at(place: Option<Carried>) -> Self {
        place.map_or_else(Self::default, |place| Self { lists: None, place: Some(place) })
    }

    /// The manifest that holds them, if any.
    pub(crate) fn carrier(&self) -> Option<&ObjectName> {
        self.place.as_ref().map(|place| &place.object)
    }

    /// The descriptions, if they were read before.
    pub(crate) fn known(&self) -> Option<&StateLists> {
        self.lists.as_ref()
    }

    /// The descriptions; fetches them if they were not read before.
    ///
    /// # Errors
    /// `Corrupt` or `MissingObject` with the manifest that should hold them; the store's errors.
    pub(crate) async fn fetch(&self, remote: &Remote) -> Result<StateLists> {
        match (&self.lists, &self.place) {
            (Some(lists), _) => Ok(lists.clone()),
            (None, Some(place)) => {
                let bytes = place.fetch(remote).await?;
                decode_states(&bytes).map_err(|error| error.object(&place.object))
            }
            (None, None) => Err(Error::internal("a checkpoint does not say where its states are described")),
        }
    }

    /// Adds descriptions that were fetched or lie in the manifest itself.
    pub(crate) fn fill(&mut self, lists: StateLists) {
        self.lists = Some(lists);
    }

    /// Refers to the manifest that holds `before`, the states of the newest checkpoint, if these are
    /// equal. Otherwise they are added to manifest `carrier`. A short list is added as well if the
    /// earlier manifest is older than `oldest`, the first that is retained, and would be kept for the
    /// list alone.
    pub(super) fn carry(
        &mut self,
        before: Option<&Self>,
        oldest: Version,
        carrier: Version,
        inline: &mut Inline,
    ) -> Result<()> {
        let Some(lists) = self.lists.as_ref().filter(|lists| !lists.is_empty()) else {
            *self = Self::at(None);
            return Ok(());
        };
        let same = |before: &&Self| {
            before.lists.as_ref().is_some_and(|before| before.is_same(lists) || before == lists)
        };
        let worth_it = |place: &Carried| place.length > FEW || !place.is_before(oldest);
        let place = before.filter(same).and_then(|before| before.place.clone());
        self.place = match place.filter(worth_it) {
            Some(place) => Some(place),
            None => Some(Carried::push(encode_states(lists)?, carrier, inline)),
        };
        Ok(())
    }
}

impl Default for States {
    /// No states.
    fn default() -> Self {
        Self::new(StateLists::default())
    }
}

impl PartialEq for States {
    /// Compares the references if both have one: they contain a checksum, and one list may not have
    /// been read.
    fn eq(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Some(place), Some(other)) => place == other,
            _ => self.lists == other.lists,
        }
    }
}

impl Eq for States {}

fn encode_states(lists: &StateLists) -> Result<Vec<u8>> {
    let all: Vec<&[StateInfo]> = lists.iter().map(AsRef::as_ref).collect();
    let encoded = match all.as_slice() {
        // As before operators had names.
        [list] => postcard::to_extend(list, vec![STATES]),
        all => postcard::to_extend(all, vec![STATE_LISTS]),
    };
    encoded.map_err(|error| Error::internal("descriptions of states cannot be encoded").source(error))
}

pub(super) fn decode_states(bytes: &[u8]) -> Result<StateLists> {
    let (version, body) = bytes.split_first().ok_or_else(unreadable)?;
    match *version {
        STATES => Ok(StateLists::from(Arc::from(decode_all::<Vec<StateInfo>>(body)?))),
        STATE_LISTS => {
            let lists = decode_all::<Vec<Vec<StateInfo>>>(body)?;
            Ok(StateLists::new(lists.into_iter().map(Arc::from).collect()))
        }
        version => Err(super::errors::newer(format!("descriptions of states have version {version}"))),
    }
}

/// What makes up all of `bytes`.
fn decode_all<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match postcard::take_from_bytes::<T>(bytes) {
        Ok((all, [])) => Ok(all),
        Ok(_) => Err(unreadable()),
        Err(error) => Err(unreadable().source(error)),
    }
}

fn unreadable() -> Error {
    Error::corrupt("descriptions of states do not read")
}

#[cfg(test)]
mod tests {
    use super::super::format::HEADER_LEN;
    use super::super::samples::{checkpoint, id};
    use super::*;
    use crate::error::ErrorKind;

    fn list() -> StateLists {
        checkpoint(id(1, 1), Vec::new()).states.known().unwrap().clone()
    }

    fn info() -> StateInfo {
        list().of(0)[0].clone()
    }

    /// Of one operator.
    fn one(list: Vec<StateInfo>) -> StateLists {
        StateLists::from(Arc::from(list))
    }

    #[test]
    fn states_are_carried_once_and_again_when_they_change() {
        let (mut first, mut inline) = (States::new(list()), Inline::new());
        first.carry(None, Version(1), Version(5), &mut inline).unwrap();
        let place = first.place.clone().unwrap();
        assert!(place.is_in(Version(5)));

        let mut second = States::new(list());
        let mut nothing = Inline::new();
        second.carry(Some(&first), Version(5), Version(6), &mut nothing).unwrap();
        assert_eq!((second.place.as_ref(), nothing.len()), (Some(&place), 0));

        // A short list is not worth a manifest that nothing else needs.
        let mut again = States::new(list());
        again.carry(Some(&first), Version(6), Version(6), &mut Inline::new()).unwrap();
        assert!(again.place.as_ref().unwrap().is_in(Version(6)));
        let many = one(vec![info(); 100]);
        let mut last = States::default();
        for version in 5..9 {
            let mut next = States::new(many.clone());
            next.carry(Some(&last), Version(version), Version(version), &mut Inline::new()).unwrap();
            assert!(next.place.as_ref().unwrap().is_in(Version(5)));
            last = next;
        }

        let changed = one(vec![StateInfo { kind: 9, ..info() }]);
        let mut third = States::new(changed);
        let mut inline = Inline::new();
        third.carry(Some(&second), Version(1), Version(7), &mut inline).unwrap();
        assert!(third.place.as_ref().unwrap().is_in(Version(7)));
        assert_eq!(inline.len(), place.length);

        // A list that was not read cannot be compared.
        let unread = States::at(Some(place));
        let mut fourth = States::new(list());
        fourth.carry(Some(&unread), Version(1), Version(8), &mut Inline::new()).unwrap();
        assert!(fourth.place.unwrap().is_in(Version(8)));

        let mut none = States::new(StateLists::new(vec![Arc::default(); 3]));
        none.carry(Some(&third), Version(1), Version(9), &mut Inline::new()).unwrap();
        assert_eq!(none.place, None);
    }

    #[test]
    fn i4_what_is_carried_is_checked() {
        let mut inline = Inline::new();
        let bytes = encode_states(&list()).unwrap();
        let place = Carried::push(bytes.clone(), Version(5), &mut inline);
        let manifest = [vec![0; HEADER_LEN as usize], bytes].concat();
        assert_eq!(decode_states(place.of(&manifest).unwrap()).unwrap(), list());
        for at in HEADER_LEN as usize..manifest.len() {
            let mut flipped = manifest.clone();
            flipped[at] ^= 4;
            assert_eq!(place.of(&flipped).unwrap_err().kind(), ErrorKind::Corrupt);
            assert!(place.of(&manifest[..at]).is_err());
        }
        assert!(decode_states(&[]).is_err());
        assert_eq!(decode_states(&[3, 0]).unwrap_err().kind(), ErrorKind::UnsupportedVersion);
        assert!(decode_states(&[STATES, 0, 0]).is_err());
        assert!(decode_states(&[STATE_LISTS, 1]).is_err());
    }

    #[test]
    fn each_operator_has_a_list_of_its_own() {
        let other: Arc<[_]> = [StateInfo { kind: 9, ..info() }].into();
        let lists = StateLists::new(vec![Arc::default(), list().of(0), other, Arc::default()]);
        let read = decode_states(&encode_states(&lists).unwrap()).unwrap();
        assert_eq!(read, lists);
        assert_eq!((read.of(1), read.of(2)[0].kind), (list().of(0), 9));
        assert!(read.of(0).is_empty() && read.of(3).is_empty());
        // What one operator has is written as ever.
        assert_eq!(encode_states(&list()).unwrap()[0], STATES);
        assert_ne!(read, list());
    }
}
