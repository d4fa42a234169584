//! The demo's manifests, and the directory they are in.

use super::network::Host;
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

/// Where a backend's HTTP is.
pub const HTTP_TARGET: u16 = 8080;
/// Where a backend's UDP service is.
pub const UDP_TARGET: u16 = 7007;
/// The Services' TCP port.
pub const HTTP_PORT: u16 = 80;
/// The Services' UDP port.
pub const UDP_PORT: u16 = 7;

/// A Service of the demo: one file of manifests.
#[derive(Clone, Copy, Debug)]
pub struct DemoService<'a> {
    /// Of the Service and of the file.
    pub name: &'a str,
    /// Cluster IP.
    pub ipv4: Ipv4Addr,
    /// Cluster IP.
    pub ipv6: Ipv6Addr,
    /// One weight per backend, for the scheduler `wrr`; without, it is the default scheduler.
    pub weights: Option<&'a [u32]>,
}

impl DemoService<'_> {
    /// The Service and its two EndpointSlices, with these backends as endpoints.
    pub fn manifest(&self, backends: &[Host]) -> String {
        let ipv4: Vec<IpAddr> = backends.iter().map(|host| host.addresses.ipv4.into()).collect();
        let ipv6: Vec<IpAddr> = backends.iter().map(|host| host.addresses.ipv6.into()).collect();
        [self.service(), self.slice("IPv4", &ipv4), self.slice("IPv6", &ipv6)].join("---\n")
    }

    /// How it spreads connections: the scheduler, and the weights if they count.
    pub fn scheduling(&self) -> String {
        match self.weights {
            None => "rr".to_owned(),
            Some(weights) => {
                let weights: Vec<_> = weights.iter().map(ToString::to_string).collect();
                format!("wrr {}", weights.join(":"))
            }
        }
    }

    fn service(&self) -> String {
        let Self { name, ipv4, ipv6, .. } = self;
        let annotations = match self.weights {
            Some(_) => "\n  annotations:\n    ipvsd.io/scheduler: wrr",
            None => "",
        };
        format!(
            r#"apiVersion: v1
kind: Service
metadata:
  name: {name}{annotations}
spec:
  clusterIP: {ipv4}
  clusterIPs: ["{ipv4}", "{ipv6}"]
  ports:
  - {{name: http, port: {HTTP_PORT}, protocol: TCP}}
  - {{name: who, port: {UDP_PORT}, protocol: UDP}}
"#
        )
    }

    fn slice(&self, family: &str, endpoints: &[IpAddr]) -> String {
        let name = self.name;
        let annotations = self.weights.map(|weights| weights_annotation(endpoints, weights)).unwrap_or_default();
        let listed: String = endpoints.iter().map(|address| format!("- addresses: [\"{address}\"]\n")).collect();
        format!(
            r#"apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-{suffix}
  labels:
    kubernetes.io/service-name: {name}{annotations}
addressType: {family}
ports:
- {{name: http, port: {HTTP_TARGET}, protocol: TCP}}
- {{name: who, port: {UDP_TARGET}, protocol: UDP}}
endpoints:
{listed}"#,
            suffix = family.to_lowercase(),
        )
    }
}

fn weights_annotation(endpoints: &[IpAddr], weights: &[u32]) -> String {
    let pairs: Vec<_> = endpoints.iter().zip(weights).map(|(address, weight)| format!("{address}={weight}")).collect();
    format!("\n  annotations:\n    ipvsd.io/weights: \"{}\"", pairs.join(","))
}

/// A directory of manifests, with room for other files beside it. All of it is removed when this value is dropped.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    manifests: PathBuf,
}

impl Directory {
    /// Makes one where temporary files are, for this user only.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ipvsd-demo-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let directory = Self { manifests: root.join("manifests"), root };
        fs::create_dir(&directory.manifests)?;
        Ok(directory)
    }

    /// Where the manifests are.
    pub fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// A path for a file that is no manifest.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a manifest so that readers find the old text or the new, never half of it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, name: &str, text: &str) -> Result<()> {
        let (draft, path) = (self.beside("draft"), self.manifests.join(name));
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // There is nobody to tell, and a temporary directory that stays does no harm.
        let _removed = fs::remove_dir_all(&self.root);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_stand_beside_the_endpoints_they_are_for() {
        let service = DemoService {
            name: "web",
            ipv4: Ipv4Addr::new(10, 96, 0, 10),
            ipv6: Ipv6Addr::LOCALHOST,
            weights: Some(&[3, 1]),
        };
        let endpoints = ["10.244.1.2".parse().unwrap(), "10.244.2.2".parse().unwrap()];
        assert_eq!(
            service.slice("IPv4", &endpoints),
            r#"apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-ipv4
  labels:
    kubernetes.io/service-name: web
  annotations:
    ipvsd.io/weights: "10.244.1.2=3,10.244.2.2=1"
addressType: IPv4
ports:
- {name: http, port: 8080, protocol: TCP}
- {name: who, port: 7007, protocol: UDP}
endpoints:
- addresses: ["10.244.1.2"]
- addresses: ["10.244.2.2"]
"#
        );
        assert!(service.service().contains("\n  annotations:\n    ipvsd.io/scheduler: wrr\nspec:\n"));
    }

    #[test]
    fn a_directory_goes_with_its_value() {
        let directory = Directory::new().unwrap();
        directory.put("web.yaml", "kind: Service").unwrap();
        let path = directory.manifests().join("web.yaml");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kind: Service");
        drop(directory);
        assert!(!path.exists());
    }
}
