//! ipvsd: a node's service proxy on kernel IPVS. This file is the map of the crate.
//!
//! Data flows one way, and each step has a module that does only that step:
//!
//! | module | job | effects |
//! |---|---|---|
//! | [`source`] | reads manifests and the node's addresses, parses them once | files, rtnetlink |
//! | [`state`] | what the cluster says, and which Services changed | none |
//! | [`desired`] | what this node's kernel should hold | none |
//! | [`diff`] | what must change, in a safe order | none |
//! | [`kernel`] | reads and programs Linux (or the faithful fake) | netlink |
//! | [`reconcile`] | turns the wheel: decide, apply, fold, retry | through [`kernel`] |
//!
//! [`inspect`] answers what people ask of it: who gets traffic and why, where a packet goes, what differs.
//! [`health`] and [`metrics`] hold what is told of the work, [`server`] tells it over HTTP.
//! [`model`] is the vocabulary of the middle; [`config`] is what the operator decides; [`daemon`] wires the tasks
//! together; [`cli`] reads flags, prints and exits; [`demo`] shows it all at work, in namespaces that the kernel tests
//! use too. Who may name whom is enforced by `tests/layers.rs`.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod desired;
pub mod diff;
pub mod health;
pub mod inspect;
pub mod kernel;
pub mod metrics;
pub mod model;
pub mod reconcile;
pub mod server;
pub mod source;
pub mod state;
