//! A cluster to test against: API servers, the objects in them, and a client that remembers what it heard.

#![allow(dead_code, unused_imports, reason = "each program that includes this uses a part of it")]

pub mod api_server;
pub mod control_plane;
pub mod follower;
pub mod objects;
pub mod relay;
