//! `ipvsd demo`: shows the whole thing at work in network namespaces of its own.

pub mod backend;
pub mod client;
pub mod namespace;
pub mod network;
mod socket;
