//! What the messages of a dump come to: values if it is whole, or what keeps it from being so.

use super::decode::{self, Malformed, Received};
use crate::kernel::ObserveError;
use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN};

/// A dump that is being read.
pub(super) struct Dump<T> {
    what: &'static str,
    /// What was decoded so far.
    pub(super) found: Vec<T>,
    /// The table changed while it was read, so that entries may be missing or doubled.
    pub(super) interrupted: bool,
    /// The first thing that was wrong.
    pub(super) error: Option<ObserveError>,
}

impl<T> Dump<T> {
    /// Of which nothing has arrived. `what` is named in errors.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, found: Vec::new(), interrupted: false, error: None }
    }

    /// Takes a message in; says whether it was the last.
    pub(super) fn take(
        &mut self,
        message: Received<'_>,
        decode: &mut impl FnMut(&[u8]) -> Result<Option<T>, Malformed>,
    ) -> bool {
        self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        let what = self.what;
        let malformed = |Malformed(detail)| ObserveError::Malformed { what, detail };
        match message.kind {
            NLMSG_NOOP | NLMSG_OVERRUN => return false,
            NLMSG_ERROR | NLMSG_DONE => {
                // A dump that fails on its way ends with NLMSG_DONE and the errno.
                match decode::status(message.payload) {
                    Ok(status) if status < 0 => {
                        let errno = decode::errno(status);
                        self.error.get_or_insert(ObserveError::Refused { what, errno });
                    }
                    Ok(_) => {}
                    Err(error) => drop(self.error.get_or_insert_with(|| malformed(error))),
                }
                return true;
            }
            _ => {}
        }
        match decode(message.payload) {
            Ok(value) => self.found.extend(value),
            Err(error) => drop(self.error.get_or_insert_with(|| malformed(error))),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Errno;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Received<'_> {
        Received { kind, flags, sequence: 1, payload }
    }

    /// Reads messages as a dump of numbers; returns whether the last one ended it.
    fn read(messages: &[Received<'_>]) -> (Dump<u32>, bool) {
        let mut dump = Dump::new("numbers");
        let ends: Vec<bool> =
            messages.iter().map(|message| dump.take(*message, &mut |bytes| decode::u32_of(bytes).map(Some))).collect();
        assert!(ends.iter().rev().skip(1).all(|end| !end), "it ended early");
        (dump, ends.last().copied().unwrap())
    }

    #[test]
    fn a_dump_goes_on_to_its_end_after_something_malformed() {
        let one = 1_u32.to_ne_bytes();
        let ok = [0; 4];
        let (dump, ended) = read(&[
            message(99, 0, &one),
            message(99, 0, &one[..2]),
            message(NLMSG_NOOP, 0, &[]),
            message(99, 0, &one),
            message(NLMSG_DONE, 0, &ok),
        ]);
        assert!(ended && matches!(dump.error, Some(ObserveError::Malformed { what: "numbers", .. })));
        assert_eq!((dump.found, dump.interrupted), (vec![1, 1], false));
    }

    #[test]
    fn a_dump_that_fails_is_no_smaller_dump() {
        let eperm = (-libc::EPERM).to_ne_bytes();
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let (dump, ended) = read(&[message(99, 0, &[0; 4]), message(kind, 0, &eperm)]);
            assert!(ended && matches!(dump.error, Some(ObserveError::Refused { errno: Errno::EPERM, .. })));
        }
        let (dump, ended) = read(&[message(NLMSG_DONE, 0, &[])]);
        assert!(ended && matches!(dump.error, Some(ObserveError::Malformed { .. })));
    }

    #[test]
    fn a_change_during_a_dump_shows_on_any_of_its_messages() {
        let ok = [0; 4];
        for flags in [[NLM_F_DUMP_INTR, 0], [0, NLM_F_DUMP_INTR]] {
            let (dump, ended) = read(&[message(99, flags[0], &ok), message(NLMSG_DONE, flags[1], &ok)]);
            assert!(ended && dump.interrupted);
        }
    }
}
