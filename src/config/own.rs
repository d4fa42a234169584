//! The file of ipvsd's own settings, `--ipvsd-config`: what kube-proxy's file has no field for and would refuse.
//!
//! ```yaml
//! drainTimeout: 15m
//! netfilter: true
//! sharedAffinity: false
//! ipvsFallback: true
//! moveToIpvs: false
//! serviceMetrics: none
//! serviceMetricsLimit: 10000
//! inspectionSocket: /run/ipvsd/inspection.sock
//! ```
//!
//! It is small and strict: an unknown key is an error, since nobody else reads it.

use super::ServiceMetrics;
use super::duration::GoDuration;
use serde::Deserialize;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a departing destination may keep its connections, if nobody says.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How many series what goes through Services may be, if nobody says: of 1,000 virtual servers, or of 277 with two
/// destinations each.
pub const SERVICE_METRICS_LIMIT: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The file by which a daemon is asked, if nobody says.
pub const INSPECTION_SOCKET: &str = "/run/ipvsd/inspection.sock";

/// ipvsd's own settings. A field that is not there has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OwnSettings {
    /// How long a departing destination may keep its connections; 0 cuts them. [`DRAIN_TIMEOUT`].
    pub drain_timeout: Option<GoDuration>,
    /// Whether netfilter is programmed: masquerading, traffic policies for clients on the node, source ranges, what is
    /// around VIPs. Without it only for a cluster, as a directory of manifests may serve a machine without iptables.
    pub netfilter: Option<bool>,
    /// Whether a client of a Service with affinity has one endpoint by all addresses of a port, also when its timeout is
    /// over; not where a scheduler was chosen. If nobody says, it has one by each address, as with kube-proxy.
    pub shared_affinity: Option<bool>,
    /// Whether rules balance where IPVS is wanted and the kernel has none; otherwise the program ends there. True.
    pub ipvs_fallback: Option<bool>,
    /// Whether the program moves over to IPVS where a kernel that had none gets it, rather than to say so only. False.
    pub move_to_ipvs: Option<bool>,
    /// Whether metrics tell what goes through Services.
    pub service_metrics: Told,
    /// How many series that may be. [`SERVICE_METRICS_LIMIT`].
    pub service_metrics_limit: Option<NonZeroUsize>,
    /// The file by which the daemon is asked, beside the abstract name of its socket; an empty one is none.
    /// [`INSPECTION_SOCKET`].
    pub inspection_socket: Option<PathBuf>,
}

/// Of what metrics tell what goes through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Told {
    /// Of nothing.
    #[default]
    None,
    /// Of each virtual server.
    Services,
    /// And of each destination.
    Destinations,
}

/// Why a file has no settings.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not as it must be.
    #[error("{} has no settings of ipvsd: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
}

/// Reads a file of settings.
///
/// # Errors
/// See [`OwnError`].
pub fn load(path: &Path) -> Result<OwnSettings, OwnError> {
    let unreadable = |source| OwnError::Unreadable { path: path.to_owned(), source };
    let text = super::text(path).map_err(unreadable)?;
    parse(&text).map_err(|message| OwnError::Malformed { path: path.to_owned(), message })
}

/// Reads the text of settings; an empty one has none.
///
/// # Errors
/// Says what is wrong, and where.
pub fn parse(text: &str) -> Result<OwnSettings, String> {
    let read: Option<OwnSettings> =
        serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
    let settings = read.unwrap_or_default();
    match (&settings.drain_timeout, settings.inspection_socket()) {
        (Some(timeout), _) if timeout.to_std().is_none() => {
            Err(format!("drainTimeout: {timeout} must not be less than 0"))
        }
        (_, Some(path)) if !path.is_absolute() => {
            Err(format!("inspectionSocket: {path:?} must begin with /, or be empty for none"))
        }
        _ => Ok(settings),
    }
}

impl OwnSettings {
    /// The drain timeout that is in effect.
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout.and_then(GoDuration::to_std).unwrap_or(DRAIN_TIMEOUT)
    }

    /// The file by which the daemon is asked; none is no file.
    pub fn inspection_socket(&self) -> Option<&Path> {
        let path = self.inspection_socket.as_deref().unwrap_or(Path::new(INSPECTION_SOCKET));
        (!path.as_os_str().is_empty()).then_some(path)
    }

    /// What metrics tell of what goes through Services; none is nothing.
    pub fn service_metrics(&self) -> Option<ServiceMetrics> {
        let limit = self.service_metrics_limit.unwrap_or(SERVICE_METRICS_LIMIT);
        let told = ServiceMetrics { destinations: self.service_metrics == Told::Destinations, limit };
        (self.service_metrics != Told::None).then_some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        for (text, seconds) in [("", 900), ("# none\n", 900), ("{}", 900), ("drainTimeout: 1m30s\n", 90)] {
            assert_eq!(parse(text).unwrap().drain_timeout(), Duration::from_secs(seconds), "{text:?}");
        }
        assert_eq!(parse("drainTimeout: \"0\"").unwrap().drain_timeout(), Duration::ZERO);
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = load(Path::new("/dev/zero")).unwrap_err();
        assert!(
            matches!(&error, OwnError::Unreadable { source, .. } if source.to_string().contains("4 MiB")),
            "{error}"
        );
    }

    #[test]
    fn netfilter_is_as_the_input_needs_it_unless_said() {
        for (text, netfilter) in [("", None), ("netfilter: true", Some(true)), ("netfilter: false", Some(false))] {
            assert_eq!(parse(text).unwrap().netfilter, netfilter, "{text:?}");
        }
    }

    #[test]
    fn what_goes_through_services_is_told_where_that_is_asked_for() {
        let told =
            |destinations, limit| Some(ServiceMetrics { destinations, limit: NonZeroUsize::new(limit).unwrap() });
        for (text, wanted) in [
            ("", None),
            ("serviceMetrics: none\nserviceMetricsLimit: 7", None),
            ("serviceMetrics: services", told(false, 10_000)),
            ("serviceMetrics: destinations\nserviceMetricsLimit: 7", told(true, 7)),
        ] {
            assert_eq!(parse(text).unwrap().service_metrics(), wanted, "{text:?}");
        }
    }

    #[test]
    fn the_inspection_sockets_file_is_where_it_is_said_or_nowhere() {
        for (text, wanted) in [
            ("", Some(INSPECTION_SOCKET)),
            ("inspectionSocket: ''", None),
            ("inspectionSocket: /run/other/socket", Some("/run/other/socket")),
        ] {
            assert_eq!(parse(text).unwrap().inspection_socket(), wanted.map(Path::new), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, message) in [
            ("drainTimout: 1m", "drainTimout"),
            ("drainTimeout: 1", "\"1\" is not a duration"),
            ("drainTimeout: -1s", "must not be less than 0"),
            ("drainTimeout: 1m\ndrainTimeout: 2m", "drainTimeout"),
            ("- 1", "line 1"),
            ("serviceMetrics: pods", "pods"),
            ("serviceMetricsLimit: 0", "nonzero"),
            ("inspectionSocket: inspection.sock", "inspectionSocket: \"inspection.sock\" must begin with /"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
