//! How stale flows are looked for: by which filters, and what if the kernel does not filter. What comes is judged again
//! in any case.

use super::{Entry, Filter};
use crate::kernel::{Errno, FlowsError, ObserveError};
use crate::model::{Flow, Kept};
use std::collections::BTreeSet;

/// Up to so many frontends are asked for one by one: the kernel goes through its whole table for each. With more, most of
/// what it would leave out is read faster than it is gone through again.
const FEW: usize = 16;

/// What is known of the kernel's filters.
#[derive(Debug)]
pub struct Search {
    /// Whether the kernel has not shown so far that it does not filter.
    filters: bool,
}

/// One reading of the table.
pub struct Dump<'a> {
    /// What the kernel is asked for.
    pub filter: Filter,
    /// Which of what it sends is wanted. To be called for each.
    pub is_asked_for: &'a mut dyn FnMut(&Flow) -> bool,
}

impl Default for Search {
    fn default() -> Self {
        Self { filters: true }
    }
}

impl Search {
    /// The stale flows of these frontends. `read` reads the table.
    ///
    /// # Errors
    /// They could not all be read.
    pub fn stale(
        &mut self,
        kept: &Kept,
        mut read: impl FnMut(Dump<'_>) -> Result<Vec<Entry>, ObserveError>,
    ) -> Result<Vec<Entry>, FlowsError> {
        let mut stale = Vec::new();
        for filter in filters(kept) {
            if self.filters {
                stale.extend(self.filtered(filter, kept, &mut read)?);
            }
        }
        if self.filters {
            return Ok(stale);
        }
        let whole = Dump { filter: Filter::Nothing, is_asked_for: &mut |flow| flow.is_stale(kept) };
        read(whole).map_err(|error| match error {
            // There is no such subsystem, and no module for it (nfnetlink_rcv_msg). Of filters it says nothing.
            ObserveError::Refused { errno: Errno::EINVAL, .. } => {
                self.filters = true;
                FlowsError::Unavailable
            }
            error => FlowsError::Unread(error),
        })
    }

    /// The stale flows that the kernel finds by a filter. None, and a note, if it does not filter.
    fn filtered(
        &mut self,
        filter: Filter,
        kept: &Kept,
        read: &mut impl FnMut(Dump<'_>) -> Result<Vec<Entry>, ObserveError>,
    ) -> Result<Vec<Entry>, FlowsError> {
        let filters = &mut self.filters;
        let found = read(Dump {
            filter,
            is_asked_for: &mut |flow| {
                *filters &= !filter.excludes(flow);
                // Those of another port come again with that port's filter.
                !matches!(filter, Filter::Frontend(frontend) if frontend != flow.frontend) && flow.is_stale(kept)
            },
        });
        match found {
            Err(ObserveError::Refused { errno: Errno::EINVAL | Errno::EOPNOTSUPP, .. }) => {
                self.filters = false;
                Ok(Vec::new())
            }
            found => found.map_err(FlowsError::Unread),
        }
    }
}

/// What to ask for to see the flows of these frontends.
fn filters(kept: &Kept) -> Vec<Filter> {
    if kept.len() <= FEW {
        return kept.keys().copied().map(Filter::Frontend).collect();
    }
    let protocols: BTreeSet<_> = kept.keys().map(|frontend| frontend.protocol).collect();
    protocols.into_iter().map(Filter::Protocol).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::model::netfilter::AddressPort;

    /// What a kernel makes of filters.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Filters {
        Work,
        Ignored,
        Refused(Errno),
        /// So is everything.
        NoSubsystem,
    }

    fn frontend(last: u8, protocol: Protocol, port: u16) -> AddressPort {
        AddressPort { address: [10, 96, 0, last].into(), protocol, port }
    }

    /// A flow to a frontend that leads to 10.1.0.`to`.
    fn entry(number: u8, frontend: AddressPort, to: u8) -> Entry {
        let client = ([10, 244, 0, number], 4000).into();
        let destination = crate::model::DestinationKey { address: [10, 1, 0, to].into(), port: 53 };
        Entry { flow: Flow { client, frontend, destination }, id: [number; 4] }
    }

    /// A table with a stale and a live flow of each frontend, and those of others.
    fn table(frontends: &[AddressPort]) -> Vec<Entry> {
        let foreign =
            [frontend(200, Protocol::Udp, 53), frontend(1, Protocol::Tcp, 53), frontend(1, Protocol::Udp, 54)];
        let numbers = (1..).step_by(2);
        let ours = numbers.zip(frontends).flat_map(|(number, of)| [entry(number, *of, 9), entry(number + 1, *of, 1)]);
        ours.chain(foreign.map(|of| entry(0, of, 9))).collect()
    }

    fn kept(frontends: &[AddressPort]) -> Kept {
        frontends.iter().map(|of| (*of, BTreeSet::from([entry(0, *of, 1).flow.destination]))).collect()
    }

    /// What came of a search: the numbers of the entries, or whether the kernel cannot tell; and what it was asked for.
    type Came = (Result<Vec<u8>, bool>, Vec<Filter>);

    /// Looks for stale flows twice.
    fn search(frontends: &[AddressPort], kernel: Filters) -> [Came; 2] {
        let (table, mut search) = (table(frontends), Search::default());
        [(); 2].map(|()| {
            let mut asked = Vec::new();
            let found = search.stale(&kept(frontends), |Dump { filter, is_asked_for }| {
                asked.push(filter);
                let refused = |errno| Err(ObserveError::Refused { what: "flows", errno });
                match kernel {
                    Filters::NoSubsystem => return refused(Errno::EINVAL),
                    Filters::Refused(errno) if filter != Filter::Nothing => return refused(errno),
                    _ => {}
                }
                let sent = table.iter().filter(|entry| kernel != Filters::Work || !filter.excludes(&entry.flow));
                Ok(sent.filter(|entry| is_asked_for(&entry.flow)).copied().collect())
            });
            let found = found.map(|found| found.iter().map(|entry| entry.id[0]).collect());
            (found.map_err(|error| matches!(error, FlowsError::Unavailable)), asked)
        })
    }

    #[test]
    fn few_frontends_are_asked_for_one_by_one_and_many_by_protocol() {
        let few = [(1, Protocol::Udp, 53), (1, Protocol::Sctp, 53), (1, Protocol::Sctp, 54), (2, Protocol::Udp, 53)];
        let mut few = few.map(|(last, protocol, port)| frontend(last, protocol, port));
        few.sort();
        for (found, asked) in search(&few, Filters::Work) {
            assert_eq!(found, Ok(vec![1, 3, 5, 7]), "each once, though SCTP's ports are not filtered");
            assert_eq!(asked, few.map(Filter::Frontend));
        }
        let many: Vec<_> = (1..=17).map(|last| frontend(last, Protocol::Udp, 53)).collect();
        for (found, asked) in search(&many, Filters::Work) {
            assert_eq!(found, Ok((1..=33).step_by(2).collect()));
            assert_eq!(asked, [Filter::Protocol(Protocol::Udp)]);
        }
    }

    #[test]
    fn a_kernel_that_does_not_filter_is_asked_once_for_everything() {
        let frontends = [1, 2, 3].map(|last| frontend(last, Protocol::Udp, 53));
        for kernel in [Filters::Ignored, Filters::Refused(Errno::EINVAL), Filters::Refused(Errno::EOPNOTSUPP)] {
            let [first, again] = search(&frontends, kernel);
            assert_eq!(first, (Ok(vec![1, 3, 5]), vec![Filter::Frontend(frontends[0]), Filter::Nothing]), "{kernel:?}");
            assert_eq!(again, (Ok(vec![1, 3, 5]), vec![Filter::Nothing]), "{kernel:?}");
        }
    }

    #[test]
    fn a_kernel_that_cannot_tell_is_told_from_one_that_fails() {
        let frontends = [frontend(1, Protocol::Udp, 53)];
        let [(found, _), (again, _)] = search(&frontends, Filters::NoSubsystem);
        assert_eq!([found, again], [Err(true), Err(true)]);
        let [(found, asked), (again, _)] = search(&frontends, Filters::Refused(Errno::EPERM));
        assert_eq!([found, again], [Err(false), Err(false)]);
        assert_eq!(asked, [Filter::Frontend(frontends[0])]);
    }
}
