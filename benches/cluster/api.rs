//! The API server of a cluster: the one of the tests, or a real one.

use crate::api_server::ApiServer;
use crate::control_plane::ControlPlane;
use crate::world::{World, with_managed_fields};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// An API server.
pub enum Api {
    /// That of the tests, on a thread of this process.
    Small(ApiServer),
    /// kube-apiserver on etcd.
    Real(Box<ControlPlane>),
}

impl Api {
    /// Starts one that has these objects.
    pub fn start(world: World, is_real: bool) -> Self {
        let api =
            if is_real { Self::Real(Box::new(ControlPlane::start(&[]))) } else { Self::Small(ApiServer::start()) };
        for object in world.objects() {
            api.put(object);
        }
        api
    }

    /// Creates or changes an object. Returns when the server acknowledged it; that of the tests, which may tell of it
    /// before it returns, began to store it then.
    pub fn put(&self, object: Value) -> Instant {
        match self {
            Self::Small(server) => {
                let object = with_managed_fields(object);
                let begun = Instant::now();
                server.put(object);
                begun
            }
            Self::Real(plane) => {
                plane.put(&object);
                Instant::now()
            }
        }
    }

    /// A kubeconfig file for a kube-proxy.
    pub fn kubeconfig(&self, directory: &Path) -> PathBuf {
        match self {
            Self::Small(server) => server.kubeconfig(directory),
            Self::Real(plane) => plane.kubeconfig("system:kube-proxy"),
        }
    }
}
