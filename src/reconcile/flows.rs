//! The end of a pass: has flows forgotten that what was done left without a destination. They are no part of what is wanted
//! or found, so there is nothing to compare; what was done says where to look.

use super::{Reconciler, Report};
use crate::kernel::Kernel;
use crate::model::Family;

impl<K: Kernel> Reconciler<K> {
    /// Looks for flows where something changed, by what the kernel has now: a destination that could not be removed is
    /// alive, and so are its flows. Where that fails, the next pass looks again.
    pub(super) fn forget_flows(&mut self, report: &mut Report) {
        for family in [Family::Ipv4, Family::Ipv6] {
            let kept = self.suspects.kept(family, &self.found.model, &self.found.foreign);
            let forgotten = (!kept.is_empty()).then(|| self.kernel.forget_flows(family, &kept));
            if forgotten.as_ref().is_none_or(|forgotten| forgotten.failure.is_none()) {
                self.suspects.settle(family);
            }
            if let Some(forgotten) = forgotten {
                report.take_forgotten(family, forgotten);
            }
        }
    }
}
