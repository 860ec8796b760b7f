//! By what the command line knows that it speaks with the daemon that was meant.
//!
//! A file of certificates names authorities, or the daemon's own certificate. Who shows one of these
//! very certificates, and proves to hold its key, is known whatever host it names and however old it
//! is: a probe in a pod asks 127.0.0.1, and a certificate that has run out is no reason to restart.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_rustls::rustls;

use crate::fault::{Code, Fault};

/// What to do about a daemon that is not known.
pub(super) const MEND: &str = "name a file with the authority that issued its certificate, or with \
                               that certificate itself, with --ca-file";

/// Trusts those of a file.
///
/// # Errors
/// Where the file has none.
pub(super) fn of(path: &Path) -> Result<ClientConfig, Fault> {
    let unusable = |why: String| {
        let what = format!("{} cannot be used for TLS: {why}", path.display());
        Fault::new(Code::DaemonAway, what, MEND)
    };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let known = read.map_err(|error| unusable(error.to_string()))?;
    if known.is_empty() {
        return Err(unusable("it has no certificate in PEM form".to_owned()));
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(known.iter().cloned());
    let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    // It fails where there is no root among them.
    let verifier = Verifier { known, roots: roots.build().ok(), provider: provider.clone() };
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| unusable(error.to_string()))?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

#[derive(Debug)]
struct Verifier {
    known: Vec<CertificateDer<'static>>,
    roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.known.contains(certificate) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.roots {
            Some(roots) => roots.verify_server_cert(certificate, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
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
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why there was no answer: what lies deepest, and what to do where that is a matter of TLS.
pub(super) fn why(error: &(dyn std::error::Error + 'static)) -> (String, Option<&'static str>) {
    let mut at = error;
    loop {
        match at.downcast_ref() {
            Some(rustls::Error::InvalidCertificate(why)) => {
                return (format!("its certificate is not known: {why}"), Some(MEND));
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                return ("it does not speak TLS".to_owned(), Some("name it as http://HOST:PORT"));
            }
            _ => {}
        }
        // An error of a file or socket leaves out of its sources what it is made of itself.
        let inside = at.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match inside.map(|inside| inside as &(dyn std::error::Error + 'static)).or(at.source()) {
            Some(deeper) => at = deeper,
            None => return (at.to_string(), None),
        }
    }
}
