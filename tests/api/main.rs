//! The source for Kubernetes against an API server that fails on demand (`tests/support/api_server`). `tests/cluster`
//! has what the real one says to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../support/api_server/mod.rs"]
mod api_server;

#[allow(dead_code, reason = "each program that includes this uses a part of it")]
#[path = "../support/deployment.rs"]
mod deployment;
#[path = "../support/follower.rs"]
mod follower;
#[path = "../support/objects.rs"]
mod objects;

mod access;
mod bad_objects;
mod events;
mod faults;
mod start;
mod storm;
mod streams;
