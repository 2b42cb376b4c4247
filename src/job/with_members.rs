//! A job's side of the links to its members.

use bytes::Bytes;

use super::Job;
use super::members::{MemberLink, Outbox};
use crate::error::{Error, Result};
use crate::messages::{Side, decode};

impl Job {
    /// Says how messages reach a [member](crate::JobOptions::members): `outbox` takes each as bytes, and gives them to the
    /// member's process, which passes them to [`Member::deliver`](crate::Member::deliver). It is called on a thread of the
    /// background and must not wait. What was to be said before is kept and said now. Called again
    /// after a connection was lost, it says again what may have been lost with it.
    ///
    /// The way may lose, double, delay and reorder what it carries: that costs time, and nothing
    /// else. Bytes must arrive as they are, each call's together. Nobody else may be able to write
    /// to it.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the job has no member of this number.
    pub fn connect(&self, member: usize, outbox: impl Fn(Bytes) + Send + Sync + 'static) -> Result<()> {
        self.member(member)?.connect(Outbox::new(outbox));
        Ok(())
    }

    /// Takes in a message of a member, as its outbox was given it. A message of another job,
    /// attempt or member, one that comes twice or that is overdue is ignored. Never waits.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the job has no member of this number;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) and [`UnsupportedVersion`](crate::ErrorKind::UnsupportedVersion) for bytes that
    /// are no message. The job goes on.
    pub fn deliver(&self, member: usize, message: &[u8]) -> Result<()> {
        let link = self.member(member)?;
        link.received(decode(message, Side::Member)?);
        Ok(())
    }

    fn member(&self, member: usize) -> Result<&MemberLink> {
        let members = &self.inner.0.members;
        members.get(member).ok_or_else(|| {
            Error::invalid(format!("the job has {} members, and none of number {member}", members.len()))
        })
    }
}
