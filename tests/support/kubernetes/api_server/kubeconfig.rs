//! Kubeconfig files for the server.

use super::tls::{Certificates, Pair};
use super::{ApiServer, TOKEN};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How a client says who it is.
pub enum Credentials<'a> {
    /// A token in the file.
    Token(&'a str),
    /// A token in a file of its own.
    TokenFile(&'a Path),
    /// A client certificate in files.
    Certificate,
    /// Not at all.
    None,
}

impl ApiServer {
    /// Writes a file with the token that is good, and returns its path.
    pub fn kubeconfig(&self, directory: &Path) -> PathBuf {
        self.kubeconfig_with(directory, &Credentials::Token(TOKEN))
    }

    /// Writes a file with these credentials, and returns its path.
    pub fn kubeconfig_with(&self, directory: &Path, credentials: &Credentials<'_>) -> PathBuf {
        write_kubeconfig(directory, self.address, &self.certificates, credentials)
    }
}

/// Writes a file for any server that has its certificate from `certificates`, and returns its path.
pub fn write_kubeconfig(
    directory: &Path,
    address: SocketAddr,
    certificates: &Certificates,
    credentials: &Credentials<'_>,
) -> PathBuf {
    fs::write(directory.join("ca.crt"), &certificates.authority).unwrap();
    let user = match credentials {
        Credentials::Token(token) => json!({"token": token}),
        Credentials::TokenFile(path) => json!({"tokenFile": path}),
        Credentials::Certificate => client_certificate(directory, &certificates.client),
        Credentials::None => json!({}),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority": "ca.crt",
        }}],
        "users": [{"name": "ipvsd", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "ipvsd"}}],
        "current-context": "test",
    });
    let path = directory.join("kubeconfig");
    fs::write(&path, config.to_string()).unwrap();
    path
}

fn client_certificate(directory: &Path, client: &Pair) -> Value {
    fs::write(directory.join("client.crt"), &client.certificate).unwrap();
    fs::write(directory.join("client.key"), &client.key).unwrap();
    json!({"client-certificate": "client.crt", "client-key": "client.key"})
}
