//! Asks generic netlink for the number that this kernel gave to a family.

use super::decode::{Malformed, generic_attributes, u16_of};
use super::socket::{Answer, Socket};
use crate::kernel::Errno;
use neli::consts::genl::{CtrlAttr, CtrlCmd};
use neli::consts::nl::GenlId;

/// The version of the controller's protocol that asks for one family by name (linux/genetlink.h).
const VERSION: u8 = 2;

/// Why a family's number is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FamilyError {
    /// The kernel has no such family: its module is not loaded.
    #[error("the kernel has no such generic netlink family")]
    Unknown,
    /// The kernel refused to say, or its answer was lost.
    #[error("the kernel does not answer: {0}")]
    Refused(Errno),
    /// The answer makes no sense.
    #[error("the kernel's answer cannot be understood")]
    Malformed(#[from] Malformed),
}

/// Looks a family up by its name.
///
/// # Errors
/// There is no such family, or the exchange failed.
pub fn look_up(socket: &mut Socket, name: &str) -> Result<u16, FamilyError> {
    let zero_terminated = [name.as_bytes(), &[0]].concat();
    let mut found = Err(FamilyError::Unknown);
    socket.exchange(
        [()],
        |batch, ()| {
            batch.push(GenlId::Ctrl.into(), 0, |message| {
                message.raw(&[CtrlCmd::Getfamily.into(), VERSION, 0, 0]);
                message.attribute(CtrlAttr::FamilyName.into(), &zero_terminated);
            });
        },
        |(), answer| {
            found = match answer {
                Answer::Data(payload) => number(payload),
                Answer::Refused(Errno::ENOENT) => Err(FamilyError::Unknown),
                Answer::Refused(errno) | Answer::Lost(errno) => Err(FamilyError::Refused(errno)),
            }
        },
    );
    found
}

/// The family's number in the payload of the controller's answer.
///
/// # Errors
/// There is none.
pub fn number(payload: &[u8]) -> Result<u16, FamilyError> {
    for attribute in generic_attributes(payload) {
        let attribute = attribute?;
        if attribute.kind == u16::from(CtrlAttr::FamilyId) {
            return Ok(u16_of(attribute.value)?);
        }
    }
    Err(Malformed::new("the family's number is missing").into())
}
