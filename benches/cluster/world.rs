//! Clusters of a size: their objects, and what is asked of ipvsd in them.

use crate::objects;
use ipvsd::model::{DestinationKey, Protocol, VirtualServerKey};
use serde_json::{Map, Value, json};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// A cluster of Services with one port and one EndpointSlice each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// How many Services; at most 60,000.
    pub services: u32,
    /// How many endpoints each of them has; at most 100.
    pub endpoints: u32,
}

/// What is asked of ipvsd in a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Goals {
    /// From the start of the process to everything in the kernel, with two processors. The lab has one.
    pub start: Option<Duration>,
    /// Resident memory after the start.
    pub megabytes: Option<u64>,
}

impl World {
    /// The sizes that have goals.
    pub const WITH_GOALS: [Self; 2] =
        [Self { services: 10_000, endpoints: 2 }, Self { services: 30_000, endpoints: 4 }];

    /// What is asked in a cluster of this size.
    pub fn goals(self) -> Goals {
        match (self.services, self.endpoints) {
            (10_000, 2) => Goals { start: Some(Duration::from_secs(3)), megabytes: Some(60) },
            (30_000, 4) => Goals { start: None, megabytes: Some(250) },
            _ => Goals::default(),
        }
    }

    /// All objects, one after the other.
    pub fn objects(self) -> impl Iterator<Item = Value> {
        let of_service = move |number| [service(number), slice(number, self.endpoints)];
        std::iter::once(objects::node("a")).chain((0..self.services).flat_map(of_service))
    }
}

impl FromStr for World {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok();
        let numbers = text.split_once('x').and_then(|(left, right)| number(left).zip(number(right)));
        let (services, endpoints) = numbers.ok_or(format!("{text:?} is no size: 10000x2 is one"))?;
        if services > 60_000 || endpoints > 100 {
            return Err(format!("{text} is more than there are addresses for"));
        }
        Ok(Self { services, endpoints })
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Services x {} endpoints", self.services, self.endpoints)
    }
}

/// The EndpointSlice of a Service, with so many endpoints.
pub fn slice(service: u32, endpoints: u32) -> Value {
    let slice = objects::slice(&name(service), &[]);
    let endpoints = (0..endpoints).map(|which| endpoint(service, which)).collect();
    let caused = json!({"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-25T10:00:00Z"});
    objects::with(objects::with(slice, "/endpoints", endpoints), "/metadata/annotations", caused)
}

/// What connections to a Service match.
pub fn virtual_server(service: u32) -> VirtualServerKey {
    let address = IpAddr::from([10, 96, third(service), fourth(service)]);
    VirtualServerKey::new(address, 80, Protocol::Tcp)
}

/// Where an endpoint of a Service is.
pub fn destination(service: u32, which: u32) -> DestinationKey {
    DestinationKey { address: endpoint_address(service, which), port: 8080 }
}

/// With the bookkeeping that an API server adds: who set which field.
pub fn with_managed_fields(mut object: Value) -> Value {
    let entry = json!({
        "manager": "kube-controller-manager",
        "operation": "Update",
        "apiVersion": object["apiVersion"],
        "time": "2026-11-25T10:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields_of(&object),
    });
    object["metadata"]["managedFields"] = json!([entry]);
    object
}

fn fields_of(value: &Value) -> Value {
    let field = |(name, value): (&String, &Value)| (format!("f:{name}"), fields_of(value));
    value.as_object().into_iter().flatten().map(field).collect::<Map<_, _>>().into()
}

fn service(number: u32) -> Value {
    objects::service(&name(number), number.try_into().unwrap())
}

fn endpoint(service: u32, which: u32) -> Value {
    json!({
        "addresses": [endpoint_address(service, which)],
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": format!("worker-{}", (service + which) % 100),
        "targetRef": {
            "kind": "Pod",
            "namespace": "default",
            "name": format!("{}-6d4cf56db6-{which:05}", name(service)),
            "uid": format!("6f0c1c4e-1111-4222-8333-{service:06}{which:06}"),
        },
        "zone": "a",
    })
}

fn endpoint_address(service: u32, which: u32) -> IpAddr {
    [10, u8::try_from(128 + which).unwrap(), third(service), fourth(service)].into()
}

fn name(service: u32) -> String {
    format!("service-{service}")
}

/// As `objects::service` counts its cluster IPs.
fn third(service: u32) -> u8 {
    (service / 250).try_into().unwrap()
}

fn fourth(service: u32) -> u8 {
    (service % 250 + 1).try_into().unwrap()
}
