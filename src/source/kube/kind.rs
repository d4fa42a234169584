//! What is followed, and how the API server is asked for it.

use std::fmt;

/// The API server leaves out what another proxy has (Kubernetes API conventions), with any value of the label.
const NO_OTHER_PROXYS: &str = "!service.kubernetes.io/service-proxy-name";
/// Headless Services have no frontend.
const NOT_HEADLESS: &str = "spec.clusterIP!=None";
/// The slices of headless Services, which the endpoint slice controller marks.
const NO_HEADLESS_SLICES: &str = "!service.kubernetes.io/headless";

/// What is followed in a cluster: the same objects with the same selectors as kube-proxy follows, so that its RBAC
/// rules (`system:node-proxier`) are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1 Services.
    Services,
    /// discovery.k8s.io/v1 EndpointSlices.
    EndpointSlices,
    /// The v1 Node that ipvsd runs on.
    Node,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Services, Self::EndpointSlices, Self::Node];

    /// How people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Services => "the cluster's Services",
            Self::EndpointSlices => "the cluster's EndpointSlices",
            Self::Node => "this node's Node object",
        }
    }

    /// The path of the collection.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Services => "/api/v1/services",
            Self::EndpointSlices => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::Node => "/api/v1/nodes",
        }
    }

    pub(super) fn labels(self) -> Option<String> {
        match self {
            Self::Services => Some(NO_OTHER_PROXYS.to_owned()),
            Self::EndpointSlices => Some(NO_HEADLESS_SLICES.to_owned()),
            Self::Node => None,
        }
    }

    /// `node` is this node's name.
    pub(super) fn fields(self, node: &str) -> Option<String> {
        match self {
            Self::Services => Some(NOT_HEADLESS.to_owned()),
            Self::EndpointSlices => None,
            Self::Node => Some(format!("metadata.name={node}")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
