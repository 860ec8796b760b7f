//! TLS as `sslmode` asks for it.
//!
//! What is checked, by mode:
//!
//! | sslmode                    | trusted root | host name |
//! |----------------------------|--------------|-----------|
//! | allow, prefer, require     | only if `sslrootcert` is given (as libpq, for old times' sake) | no |
//! | verify-ca                  | yes          | no        |
//! | verify-full                | yes          | yes       |
//!
//! Whatever the mode, the server must prove that it holds the certificate's key: otherwise
//! channel binding would bind to a certificate that anybody can copy. Files are read anew for
//! each connection, so renewed certificates take effect without a restart.
//!
//! Two things differ from the TLS library's own verifier, because Postgres servers are often set
//! up so and libpq takes them: a certificate that is itself among the roots (self-signed with the
//! CA flag) is trusted, and names are checked as libpq does, common name included.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsConnector, rustls};

use super::certificate::PeerCertificate;
use super::error::{Error, Peer};
use super::params::{ClientCertificate, Roots, SslMode, SslNegotiation, Tls, TlsVersion};
use super::transport::{Socket, buffered};

/// The name PostgreSQL registered for its protocol inside TLS.
const ALPN: &[u8] = b"postgresql";

/// What asks a server whether it speaks TLS.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// How a plain answer to [`SSL_REQUEST`] is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfRefused {
    /// Go on without.
    GoOn,
    /// Give up.
    Fail,
}

/// Files read and checked: ready to connect.
pub(super) struct Material {
    trust: Trust,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

#[derive(Clone, Debug)]
enum Trust {
    Anybody,
    Roots { store: Arc<RootCertStore>, themselves: Arc<Vec<CertificateDer<'static>>> },
}

impl Material {
    /// Reads the files that the settings name.
    pub(super) async fn load(tls: &Tls) -> Result<Self, Error> {
        if tls.roots == Roots::Unset && tls.mode < SslMode::VerifyCa && tls.client.is_none() {
            return Ok(Self { trust: Trust::Anybody, client: None });
        }
        let tls = tls.clone();
        let roots = PathBuf::from("the certificates of the system");
        let read = tokio::task::spawn_blocking(move || Self::load_blocking(&tls));
        read.await.map_err(|panic| Error::File { path: roots, reason: panic.to_string() })?
    }

    fn load_blocking(tls: &Tls) -> Result<Self, Error> {
        let trust = match (&tls.roots, tls.mode) {
            (Roots::File(path), _) => Trust::roots(certificates(path)?, path)?,
            (Roots::Unset, mode) if mode < SslMode::VerifyCa => Trust::Anybody,
            (Roots::System | Roots::Unset, _) => system_roots()?,
        };
        let client = tls.client.as_ref().map(client_certificate).transpose()?;
        Ok(Self { trust, client })
    }

    /// Turns an open TCP connection into an encrypted one.
    pub(super) async fn encrypt(
        &self,
        mut stream: TcpStream,
        tls: &Tls,
        if_refused: IfRefused,
        peer: &Peer,
    ) -> Result<Socket, Error> {
        let direct = tls.negotiation == SslNegotiation::Direct;
        if !direct && !offered(&mut stream, peer).await? {
            return match if_refused {
                IfRefused::GoOn => Ok(Socket::Tcp(stream)),
                IfRefused::Fail => Err(Error::TlsRefused { peer: peer.clone() }),
            };
        }
        let name = server_name(peer.host(), &stream).map_err(|e| Error::broken(peer, e))?;
        let connector = TlsConnector::from(Arc::new(self.config(tls, peer)?));
        let stream = connector.connect(name, buffered(stream)).await;
        let stream = stream.map_err(|error| handshake_error(peer, error))?;
        if direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            let reason = "the server does not know sslnegotiation=direct".to_owned();
            return Err(Error::Tls { peer: peer.clone(), reason });
        }
        Ok(Socket::Tls(Box::new(stream)))
    }

    fn config(&self, tls: &Tls, peer: &Peer) -> Result<ClientConfig, Error> {
        let failed =
            |error: rustls::Error| Error::Tls { peer: peer.clone(), reason: error.to_string() };
        let provider = Arc::new(crypto::ring::default_provider());
        let versions: &[_] = match tls.min_version {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let host = (tls.mode == SslMode::VerifyFull).then(|| peer.host().to_owned());
        let verifier = Verifier { trust: self.trust.clone(), host, provider: provider.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.client {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                config.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(failed)?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = tls.sni;
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// What a login over this connection can be bound to.
pub(super) fn end_point_hash(socket: &Socket) -> Option<Vec<u8>> {
    let certificate = shown(socket)?;
    PeerCertificate::read(certificate)?.end_point_hash(certificate)
}

/// The certificate that the server has shown.
pub(super) fn certificate(socket: &Socket) -> Option<PeerCertificate> {
    PeerCertificate::read(shown(socket)?)
}

fn shown(socket: &Socket) -> Option<&CertificateDer<'static>> {
    let Socket::Tls(stream) = socket else { return None };
    let stream: &TlsStream<_> = stream;
    stream.get_ref().1.peer_certificates()?.first()
}

/// Asks the server for TLS. Exactly one byte is read: what follows in plain text can only be
/// somebody else's, and the handshake fails on it.
async fn offered(stream: &mut TcpStream, peer: &Peer) -> Result<bool, Error> {
    let failed = |error| Error::broken(peer, error);
    stream.write_all(&SSL_REQUEST).await.map_err(failed)?;
    match stream.read_u8().await.map_err(failed)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // What it says is not shown: nobody has proved to be the server yet.
        b'E' => Err(Error::protocol(peer, "an error came in answer to the request for TLS")),
        _ => Err(Error::protocol(peer, "the answer to the request for TLS is none of Postgres")),
    }
}

/// The name for SNI; hosts that are no DNS name go by their address, which is not sent.
fn server_name(host: &str, stream: &TcpStream) -> std::io::Result<ServerName<'static>> {
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Ok(name),
        Err(_) => Ok(ServerName::from(stream.peer_addr()?.ip())),
    }
}

fn handshake_error(peer: &Peer, error: std::io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let peer = peer.clone();
    match inner {
        Some(rustls::Error::InvalidCertificate(wrong)) => match wrong {
            CertificateError::Other(OtherError(other)) if other.is::<WrongHost>() => {
                let names = other.downcast_ref().map(|WrongHost(names)| names.clone());
                Error::CertificateWrongHost { peer, names: names.unwrap_or_default() }
            }
            wrong => Error::CertificateUntrusted { peer, reason: reason(wrong) },
        },
        Some(other) => Error::Tls { peer, reason: other.to_string() },
        None => Error::broken(&peer, error),
    }
}

fn reason(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "none of the trusted roots has issued it".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::Other(OtherError(other)) => other.to_string(),
        other => other.to_string(),
    }
}

/// The certificate names other hosts.
#[derive(Debug)]
struct WrongHost(Vec<String>);

impl std::fmt::Display for WrongHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the certificate names other hosts")
    }
}

impl std::error::Error for WrongHost {}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    /// Whom the certificate must be for, where that is checked.
    host: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn verify_trust(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let Trust::Roots { store, themselves } = &self.trust else { return Ok(()) };
        if themselves.contains(certificate) {
            let read = PeerCertificate::read(certificate).ok_or(CertificateError::BadEncoding)?;
            let now = std::time::Duration::from_secs(now.as_secs());
            return if read.is_valid_at(now) {
                Ok(())
            } else {
                Err(CertificateError::Expired.into())
            };
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, store, intermediates, now, algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify_trust(certificate, intermediates, now)?;
        if let Some(host) = &self.host {
            let read = PeerCertificate::read(certificate).ok_or(CertificateError::BadEncoding)?;
            if !read.is_for(host) {
                let wrong = OtherError(Arc::new(WrongHost(read.names())));
                return Err(CertificateError::Other(wrong).into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        // The library does not read certificates of version 1, which `openssl x509 -req` made for
        // decades. Their keys sign like any other.
        let old = PeerCertificate::read(certificate).filter(PeerCertificate::is_version_1);
        match old.and_then(|old| old.public_key()) {
            Some(key) => {
                let key = SubjectPublicKeyInfoDer::from(key);
                crypto::verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
            }
            None => crypto::verify_tls13_signature(message, certificate, signature, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Trust {
    fn roots(certificates: Vec<CertificateDer<'static>>, path: &Path) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        let (usable, _) = store.add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 {
            let reason = "it has no certificate that can be trusted as a root".to_owned();
            return Err(Error::File { path: path.to_owned(), reason });
        }
        Ok(Self::Roots { store: Arc::new(store), themselves: Arc::new(certificates) })
    }
}

fn system_roots() -> Result<Trust, Error> {
    let found = rustls_native_certs::load_native_certs();
    let place = PathBuf::from("the system's root certificates");
    if found.certs.is_empty() {
        let reason = match found.errors.first() {
            Some(error) => error.to_string(),
            None => "there are none; install ca-certificates or set SSL_CERT_FILE".to_owned(),
        };
        return Err(Error::File { path: place, reason });
    }
    Trust::roots(found.certs, &place)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = certificates.map_err(|error| unusable(path, error))?;
    if certificates.is_empty() {
        return Err(unusable(path, "it has no certificate in PEM form"));
    }
    Ok(certificates)
}

fn client_certificate(
    files: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key);
    Ok((chain, key.map_err(|error| unusable(&files.key, error))?))
}

fn unusable(path: &Path, error: impl ToString) -> Error {
    Error::File { path: path.to_owned(), reason: error.to_string() }
}
