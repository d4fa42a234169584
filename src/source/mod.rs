//! Where input comes from: a directory of manifests, and this node's links.
//!
//! Each source turns what it reads into [`crate::state::Change`]s. Parsing and checking happen here, once;
//! what comes out cannot be wrong in itself.

pub mod convert;
pub mod kube;
pub mod manifests;
pub mod node;
