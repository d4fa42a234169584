//! kube-proxy's configuration file: read, with its defaults, and written back.
//!
//! [`v1alpha1`] has the fields, [`decode`] reads a text into them, [`defaults`] completes them, [`gates`] knows the
//! feature gates. Whether values are good is [`resolve`](super::resolve)'s matter.

pub mod decode;
pub mod defaults;
pub mod gates;
pub mod logging;
pub mod v1alpha1;

use decode::{DecodeError, Decoded};
use logging::VmoduleItem;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use v1alpha1::{API_VERSION, KIND, KubeProxyConfiguration};

/// The API group, under which `/configz` has the object.
const GROUP: &str = "kubeproxy.config.k8s.io";

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can be read, and is no object of the kind.
    #[error("{} is no configuration of kube-proxy", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DecodeError,
    },
}

/// Reads a file: its fields with their defaults, and what is strange about it.
///
/// # Errors
/// See [`LoadError`].
pub fn load(path: &Path) -> Result<Decoded<KubeProxyConfiguration>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let text = super::text(path).map_err(unreadable)?;
    parse(&text).map_err(|source| LoadError::Malformed { path: path.to_owned(), source })
}

/// Reads a text: its fields with their defaults, and what is strange about it.
///
/// # Errors
/// See [`DecodeError`].
pub fn parse(text: &str) -> Result<Decoded<KubeProxyConfiguration>, DecodeError> {
    let mut decoded = decode::decode(text, &shape())?;
    for (field, found, wanted) in
        [("apiVersion", &decoded.object.api_version, API_VERSION), ("kind", &decoded.object.kind, KIND)]
    {
        if found != wanted {
            return Err(DecodeError::field(field, format_args!("{found:?} must be {wanted}")));
        }
    }
    decoded.object.set_defaults();
    Ok(decoded)
}

/// A configuration that has every field which a file may have.
pub fn shape() -> KubeProxyConfiguration {
    let mut shape = KubeProxyConfiguration { windows_run_as_service: true, ..KubeProxyConfiguration::default() };
    shape.logging.vmodule = vec![VmoduleItem::default()];
    shape.logging.options.text.split_stream = true;
    shape.logging.options.json.split_stream = true;
    shape.feature_gates.insert(String::new(), false);
    shape
}

impl KubeProxyConfiguration {
    /// What kube-proxy serves at `/configz`: JSON.
    pub fn configz(&self) -> String {
        // It can always be written as JSON.
        serde_json::to_string(&BTreeMap::from([(GROUP, self)])).unwrap_or_default()
    }

    /// The text that kube-proxy writes with `--write-config-to`: YAML, with keys in the order of the alphabet.
    pub fn to_yaml(&self) -> String {
        // A value of JSON has nothing that YAML could not say.
        serde_json::to_value(self).ok().and_then(|value| serde_saphyr::to_string(&value).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
