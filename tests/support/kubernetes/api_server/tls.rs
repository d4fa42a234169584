//! A certificate authority, and what it signs: the server's certificate and a client's.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Certificates and keys, as PEM.
pub struct Certificates {
    pub authority: String,
    pub server: Pair,
    pub client: Pair,
}

/// A certificate with its key.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Certificates {
    /// New ones, for a server at `address` or on this host.
    pub fn new(address: IpAddr) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let names = [address, Ipv4Addr::LOCALHOST.into()].map(|address| address.to_string());
        Self {
            server: signed(&issuer, "kube-apiserver", &names, ExtendedKeyUsagePurpose::ServerAuth),
            client: signed(&issuer, "system:kube-proxy", &[], ExtendedKeyUsagePurpose::ClientAuth),
            authority,
        }
    }

    /// Speaks TLS with clients, whether they have a certificate or not.
    pub fn server(&self) -> TlsAcceptor {
        let chain = CertificateDer::pem_slice_iter(self.server.certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.server.key.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let clients = WebPkiClientVerifier::builder(roots.into()).allow_unauthenticated().build().unwrap();
        let config = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn signed(issuer: &Issuer<'static, KeyPair>, name: &str, addresses: &[String], usage: ExtendedKeyUsagePurpose) -> Pair {
    let mut params = CertificateParams::new(addresses).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages.push(usage);
    let key = KeyPair::generate().unwrap();
    Pair { certificate: params.signed_by(&key, issuer).unwrap().pem(), key: key.serialize_pem() }
}
