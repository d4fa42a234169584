//! Netlink without a family's meaning: bytes, batches, sockets. What the messages say is for `ipvs`, `route` and
//! `device`.
//!
//! | file | job |
//! |---|---|
//! | [`address_family`] | `AF_INET` and `AF_INET6` |
//! | [`encode`] | many messages, one after another, in one buffer |
//! | [`decode`] | messages and attributes out of a buffer, whatever is in it |
//! | [`family`] | the number that this kernel gave to a generic netlink family |
//! | `dump` | what the messages of a dump come to |
//! | [`socket`] | sends a batch in one system call, tells whose answer is whose, reads whole dumps |

pub mod address_family;
pub mod decode;
mod dump;
pub mod encode;
pub mod family;
pub mod socket;

pub use decode::Malformed;
pub use encode::{Batch, Message};
pub use socket::{Answer, Counters, Socket};
