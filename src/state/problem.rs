//! Problems with the input, as values: which object, which field, what is wrong.

use super::ObjectName;
use std::fmt;
use std::sync::Arc;

/// Where an object was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A document in a manifest.
    Manifest {
        /// The file's path as the user would write it.
        file: Arc<str>,
        /// Counted from 1 within the file; 0 stands for the whole file.
        document: usize,
    },
    /// The Kubernetes API.
    Api,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest { file, document: 0 } => f.write_str(file),
            Self::Manifest { file, document } => write!(f, "{file}, document {document}"),
            Self::Api => f.write_str("the API"),
        }
    }
}

/// Kind and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectRef {
    /// A v1 Service.
    Service(ObjectName),
    /// A discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice(ObjectName),
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "Service {name}"),
            Self::EndpointSlice(name) => write!(f, "EndpointSlice {name}"),
        }
    }
}

/// Something in the input that cannot be done as it stands. It costs its own object only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// File and document, or the API.
    pub origin: Origin,
    /// The object, where the document got far enough to say which.
    pub object: Option<ObjectRef>,
    /// The path of the field, such as `spec.ports[0].port`; empty where no field is to blame.
    pub field: String,
    /// What is wrong and, where that is not plain, what ipvsd does about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
