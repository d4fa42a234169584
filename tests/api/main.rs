//! The source for Kubernetes against an API server that fails on demand (`tests/support/kubernetes/api_server`). `tests/cluster`
//! has what the real one says to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../support/kubernetes/mod.rs"]
mod kubernetes;

#[allow(dead_code, reason = "each program that includes this uses a part of it")]
#[path = "../support/deployment.rs"]
mod deployment;

mod access;
mod bad_objects;
mod events;
mod faults;
mod start;
mod storm;
mod streams;

use kubernetes::{api_server, follower, objects};
