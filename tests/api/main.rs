//! The source for Kubernetes against an API server: `tests/support/api_server`, and the real one where there is one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../support/api_server/mod.rs"]
mod api_server;

mod access;
mod bad_objects;
mod events;
mod faults;
mod follower;
mod objects;
mod start;
mod streams;
