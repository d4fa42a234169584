//! What `deploy/` and `systemd/` install: checked as far as that goes without a cluster, an image or a service manager.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod command_lines;
mod image;
mod kubectl;
mod kustomize;
mod monitoring;
mod objects;
mod requests;
mod rights;
mod units;
