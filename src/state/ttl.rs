//! [`Ttl`]: entries expire that were not accessed for a while.
//!
//! An entry stores the time of its last access, not the time at which it expires, so a TTL can be
//! switched on, off or changed without rewriting anything. An entry without a time, written while
//! the state had no TTL, never expires until it is written (or, with [`TtlUpdate::OnReadAndWrite`],
//! read) again.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::manifest::TtlInfo;
use crate::store::{Layout, StateKind, StateStore};
use crate::table::{Expiry, is_expired};

use super::cell::{Cell, Elements, Head};

/// How long the entries of a state live after their last access: a value, an entry of a map, an
/// element of a list. Given to a state's descriptor; by default nothing expires.
///
/// Expired entries are hidden from reads at once, and leave the table when RocksDB compacts the
/// files that they lie in. Time is [`Clock::unix_millis`](crate::Clock::unix_millis) of the job's
/// [`Env`](crate::Env), in steps of a millisecond; a TTL is as exact as the clocks of the machines
/// that the job runs on, one after the other.
///
/// ```
/// use std::time::Duration;
/// use alluvium::{Ttl, TtlUpdate};
///
/// let ttl = Ttl::new(Duration::from_secs(3600)).update(TtlUpdate::OnReadAndWrite);
/// assert_eq!(ttl.duration(), Duration::from_secs(3600));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    millis: u64,
    update: TtlUpdate,
    visibility: TtlVisibility,
}

/// Which accesses make an entry young again. Default [`TtlUpdate::OnCreateAndWrite`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TtlUpdate {
    /// Writes.
    #[default]
    OnCreateAndWrite,
    /// Reads as well: each read of an entry also writes it. Scans don't.
    OnReadAndWrite,
}

/// What reads do with an entry that has expired and is still there. Default
/// [`TtlVisibility::NeverReturnExpired`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TtlVisibility {
    /// They never show it.
    #[default]
    NeverReturnExpired,
    /// They show it for as long as it happens to be there. No read makes it young again.
    ReturnExpiredIfNotCleanedUp,
}

/// How a read treats an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Shows it.
    Show,
    /// Shows it, and writes it again with the time of now.
    Renew,
    /// Behaves as if it were not there.
    Hide,
}

impl Ttl {
    /// Entries expire `duration` after their last write. Parts of a millisecond are rounded up; a
    /// state with a TTL of 0 is refused when it is registered.
    pub fn new(duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Self { millis, update: TtlUpdate::default(), visibility: TtlVisibility::default() }
    }

    /// Which accesses make an entry young again. Default [`TtlUpdate::OnCreateAndWrite`].
    #[must_use]
    pub fn update(mut self, update: TtlUpdate) -> Self {
        self.update = update;
        self
    }

    /// What reads do with an expired entry that is still there. Default
    /// [`TtlVisibility::NeverReturnExpired`].
    #[must_use]
    pub fn visibility(mut self, visibility: TtlVisibility) -> Self {
        self.visibility = visibility;
        self
    }

    /// Time from the last access of an entry until it has expired.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.millis)
    }

    pub(super) fn check(self) -> Result<()> {
        if self.millis == 0 {
            return Err(Error::invalid("a TTL of 0 would let every entry expire before it can be read")
                .advise("give a longer one, or none for entries that never expire"));
        }
        Ok(())
    }

    /// The form that checkpoints record: bit 0 of the mode says that reads count, bit 1 that
    /// expired entries may be shown.
    pub(super) fn info(self) -> TtlInfo {
        let reads = u8::from(self.update == TtlUpdate::OnReadAndWrite);
        let shows = u8::from(self.visibility == TtlVisibility::ReturnExpiredIfNotCleanedUp);
        TtlInfo { millis: self.millis, mode: reads | shows << 1 }
    }

    /// As it was recorded.
    pub(super) fn of(info: TtlInfo) -> Self {
        let update = if info.mode & 1 == 0 { TtlUpdate::OnCreateAndWrite } else { TtlUpdate::OnReadAndWrite };
        let visibility = if info.mode & 2 == 0 {
            TtlVisibility::NeverReturnExpired
        } else {
            TtlVisibility::ReturnExpiredIfNotCleanedUp
        };
        Self { millis: info.millis, update, visibility }
    }

    /// When the stored values of a state may be removed.
    pub(super) fn expiry(self, kind: StateKind) -> Expiry {
        let list = kind.layout() == Layout::Elements;
        Expiry {
            ttl_millis: self.millis,
            last_access: if list { list_time } else { cell_time },
            first_element: if list { first_element } else { |_| None },
        }
    }

    /// How a read at `now` treats an entry last accessed at `time`; both in milliseconds since
    /// 1970.
    fn access(self, time: Option<u64>, now: u64) -> Access {
        if time.is_some_and(|time| is_expired(time, self.millis, now)) {
            return match self.visibility {
                TtlVisibility::NeverReturnExpired => Access::Hide,
                // Shown but not renewed: it may be gone at the next read.
                TtlVisibility::ReturnExpiredIfNotCleanedUp => Access::Show,
            };
        }
        match self.update {
            TtlUpdate::OnCreateAndWrite => Access::Show,
            // Two reads within a millisecond write it once.
            TtlUpdate::OnReadAndWrite if time == Some(now) => Access::Show,
            TtlUpdate::OnReadAndWrite => Access::Renew,
        }
    }
}

/// The TTL of a state, if it has one, at the moment of an operation.
#[derive(Debug, Clone, Copy)]
pub struct TtlNow(Option<(Ttl, u64)>);

impl TtlNow {
    pub(super) fn of(ttl: Option<Ttl>, store: &StateStore) -> Self {
        Self::by(ttl, || store.unix_millis())
    }

    /// `unix_millis` is asked only if there is a TTL.
    pub(super) fn by(ttl: Option<Ttl>, unix_millis: impl FnOnce() -> u64) -> Self {
        Self(ttl.map(|ttl| (ttl, unix_millis())))
    }

    /// The access time of an entry that is written now.
    pub(super) fn time(self) -> Option<u64> {
        self.0.map(|(_, now)| now)
    }

    pub(super) fn access(self, time: Option<u64>) -> Access {
        self.0.map_or(Access::Show, |(ttl, now)| ttl.access(time, now))
    }

    pub(super) fn shows(self, time: Option<u64>) -> bool {
        self.access(time) != Access::Hide
    }

    /// Whether reads show nothing of a stored value of a state of `kind`.
    pub(super) fn hides(self, kind: StateKind, value: &[u8]) -> bool {
        // A compaction may leave an empty list, which the next one removes.
        if kind.layout() == Layout::Elements && value.is_empty() {
            return true;
        }
        self.0.is_some_and(|(ttl, now)| {
            ttl.visibility == TtlVisibility::NeverReturnExpired && ttl.expiry(kind).is_expired(value, now)
        })
    }

    /// The cell with the time of now.
    pub(super) fn renewed(self, cell: Cell<'_>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(cell.payload.len() + 16);
        Head { time: self.time(), ..cell.head }.push(&mut bytes);
        bytes.extend_from_slice(cell.payload);
        bytes
    }

    /// The list with renewed access times and without expired elements. None if a read does not
    /// change it.
    pub(super) fn renewed_list(self, list: &[u8]) -> Option<Vec<u8>> {
        self.0.filter(|(ttl, _)| ttl.update == TtlUpdate::OnReadAndWrite)?;
        let (mut bytes, mut changed) = (Vec::with_capacity(list.len()), false);
        let mut elements = Elements::new(list);
        loop {
            let stored = elements.rest();
            let Some(element) = elements.next() else { break };
            let cell = element.ok()?;
            match self.access(cell.head.time) {
                Access::Hide => {}
                Access::Show => bytes.extend_from_slice(stored.get(..stored.len() - elements.rest().len())?),
                Access::Renew => {
                    let start = bytes.len();
                    bytes.extend_from_slice(cell.payload);
                    Head { time: self.time(), ..cell.head }.frame(&mut bytes, start);
                    changed = true;
                }
            }
        }
        changed.then_some(bytes)
    }
}

fn cell_time(bytes: &[u8]) -> Option<u64> {
    Cell::decode(bytes).ok()?.head.time
}

/// The newest time of a list: it may be removed only once all of its elements have expired. None if
/// one of them never does, or if the bytes are not a list: a reader is to see that they are
/// corrupt. An empty list may be removed at any time.
fn list_time(bytes: &[u8]) -> Option<u64> {
    // 0 has expired at any time, so an empty list may go.
    let mut newest = Some(0);
    for element in Elements::new(bytes) {
        newest = newest.max(Some(element.ok()?.head.time?));
    }
    newest
}

/// Time and length of a list's first element.
fn first_element(list: &[u8]) -> Option<(Option<u64>, usize)> {
    let mut elements = Elements::new(list);
    let first = elements.next()?.ok()?;
    Some((first.head.time, list.len() - elements.rest().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Ttl = Ttl {
        millis: 10,
        update: TtlUpdate::OnCreateAndWrite,
        visibility: TtlVisibility::NeverReturnExpired,
    };

    fn list(times: &[Option<u64>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for time in times {
            let start = bytes.len();
            bytes.push(b'x');
            Head { time: *time, schema: 0 }.frame(&mut bytes, start);
        }
        bytes
    }

    #[test]
    fn defaults_and_rounding() {
        assert_eq!(Ttl::new(Duration::from_millis(10)), TTL);
        assert_eq!(Ttl::new(Duration::from_nanos(1)).duration(), Duration::from_millis(1));
        assert_eq!(Ttl::new(Duration::MAX).duration(), Duration::from_millis(u64::MAX));
        assert!(Ttl::new(Duration::ZERO).check().is_err());
        assert!(TTL.check().is_ok());
    }

    #[test]
    fn every_mode_at_every_age() {
        use Access::{Hide, Renew, Show};
        use TtlUpdate::{OnCreateAndWrite, OnReadAndWrite};
        use TtlVisibility::{NeverReturnExpired, ReturnExpiredIfNotCleanedUp};
        for (update, visibility, without_time, same_moment, fresh, expired) in [
            (OnCreateAndWrite, NeverReturnExpired, Show, Show, Show, Hide),
            (OnCreateAndWrite, ReturnExpiredIfNotCleanedUp, Show, Show, Show, Show),
            (OnReadAndWrite, NeverReturnExpired, Renew, Show, Renew, Hide),
            (OnReadAndWrite, ReturnExpiredIfNotCleanedUp, Renew, Show, Renew, Show),
        ] {
            let ttl = TTL.update(update).visibility(visibility);
            assert_eq!(ttl.access(None, 100), without_time);
            assert_eq!(ttl.access(Some(100), 100), same_moment);
            assert_eq!(ttl.access(Some(91), 100), fresh);
            assert_eq!(ttl.access(Some(90), 100), expired);
            // Written by a clock that was ahead.
            assert_eq!(ttl.access(Some(200), 100), fresh);
            assert_eq!(TtlNow(Some((ttl, 100))).shows(Some(90)), expired != Hide);
        }
    }

    #[test]
    fn a_cell_expires_by_its_time_and_not_without() {
        let cell = |time| {
            let mut bytes = Vec::new();
            Head { time, schema: 3 }.push(&mut bytes);
            bytes.push(b'x');
            bytes
        };
        let expiry = TTL.expiry(StateKind::Value);
        assert!(expiry.is_expired(&cell(Some(90)), 100));
        assert!(!expiry.is_expired(&cell(Some(91)), 100));
        assert!(!expiry.is_expired(&cell(None), u64::MAX));
        assert!(!expiry.is_expired(&[0xff], u64::MAX), "not a cell");
    }

    #[test]
    fn a_list_expires_with_its_last_element() {
        let expiry = TTL.expiry(StateKind::List);
        assert!(expiry.is_expired(&list(&[Some(80), Some(90), Some(85)]), 100));
        assert!(!expiry.is_expired(&list(&[Some(80), Some(91), Some(85)]), 100));
        assert!(!expiry.is_expired(&list(&[Some(80), None]), u64::MAX));
        assert!(expiry.is_expired(&[], 100), "nothing is left of it");
        let parts = list(&[Some(80), None]);
        let first = list(&[Some(80)]).len();
        assert_eq!((expiry.first_element)(&parts), Some((Some(80), first)));
        assert_eq!((expiry.first_element)(&parts[first..]), Some((None, parts.len() - first)));
        assert_eq!((expiry.first_element)(&[]), None);
        assert_eq!((TTL.expiry(StateKind::Value).first_element)(&parts), None);
        assert!(TtlNow(None).hides(StateKind::List, &[]) && !TtlNow(None).hides(StateKind::List, &parts));
        let mut torn = list(&[Some(80), Some(81)]);
        torn.pop();
        assert!(!expiry.is_expired(&torn, u64::MAX), "not a list");
    }

    #[test]
    fn a_list_that_is_read_becomes_young_without_what_has_expired() {
        let now = |ttl: Ttl| TtlNow(Some((ttl, 100)));
        let stored = list(&[Some(90), None, Some(95), Some(100)]);
        assert_eq!(now(TTL).renewed_list(&stored), None);
        let reads = TTL.update(TtlUpdate::OnReadAndWrite);
        assert_eq!(now(reads).renewed_list(&stored), Some(list(&[Some(100); 3])));
        let shows = reads.visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp);
        let expected = list(&[Some(90), Some(100), Some(100), Some(100)]);
        assert_eq!(now(shows).renewed_list(&stored), Some(expected));
        assert_eq!(now(reads).renewed_list(&list(&[Some(100)])), None);
        assert_eq!(now(reads).renewed_list(&stored[1..]), None, "not a list");
    }

    #[test]
    fn modes_are_part_of_the_format() {
        let reads = TTL.update(TtlUpdate::OnReadAndWrite);
        let shows = TTL.visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp);
        assert_eq!(TTL.info(), TtlInfo { millis: 10, mode: 0 });
        assert_eq!(reads.info().mode, 1);
        assert_eq!(shows.info().mode, 2);
        for ttl in [TTL, reads, shows, reads.visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp)] {
            assert_eq!(Ttl::of(ttl.info()), ttl);
        }
    }
}
