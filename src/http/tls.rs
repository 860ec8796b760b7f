//! TLS of the endpoint. Certificate and key are looked at for each connection and read again where
//! they have changed, so that a renewed certificate needs no restart. One that cannot be used is
//! said, and the one before goes on serving: a slip in a renewal must not take probes away.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::{TlsAcceptor, rustls};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::config::settled::HttpTls;
use crate::fault::{Code, Fault};

/// What is spoken inside. Nothing else, so that clients do not try.
const ALPN: &[u8] = b"http/1.1";

/// What the endpoint shows of itself, as it is now.
#[derive(Debug)]
pub struct Identity {
    files: HttpTls,
    current: Mutex<Current>,
}

struct Current {
    seen: [Option<Mark>; 2],
    acceptor: TlsAcceptor,
    expires: Option<Duration>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// What tells one state of a file from another: where it is, its length, and when it was written.
type Mark = (u64, u64, u64, i64, i64);

impl Identity {
    /// As the files say now.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn read(files: HttpTls) -> Result<Self, Fault> {
        let current = Current::read(&files)?;
        Ok(Self { files, current: Mutex::new(current) })
    }

    /// What takes the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = marks(&self.files);
        if seen != current.seen {
            match Current::read(&self.files) {
                Ok(new) => {
                    *current = new;
                    tracing::info!("the certificate of the HTTP endpoint was read again");
                }
                // Once for each change.
                Err(Fault { code, what, mend }) => {
                    tracing::error!(code = code.id(), mend, "{what}; the one before is kept");
                    current.seen = seen;
                }
            }
        }
        current.acceptor.clone()
    }

    /// When the certificate that is shown runs out, since 1970.
    pub(super) fn expires(&self) -> Option<Duration> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).expires
    }
}

impl Current {
    fn read(files: &HttpTls) -> Result<Self, Fault> {
        // Before they are read: what is written meanwhile is seen the next time.
        let seen = marks(files);
        let HttpTls { certificate, key } = files;
        let chain = certificates(certificate)?;
        let private = open(key).and_then(|file| {
            PrivateKeyDer::from_pem_reader(file).map_err(|error| unusable(key, &error))
        })?;
        let expires = chain.first().and_then(|leaf| {
            let leaf = Certificate::from_der(leaf).ok()?;
            Some(leaf.tbs_certificate().validity().not_after.to_unix_duration())
        });
        let config = ServerConfig::builder().with_no_client_auth();
        let mut config = config.with_single_cert(chain, private).map_err(|error| {
            let both = format!("{} and {}: {error}", certificate.display(), key.display());
            fault(format!("the certificate and the key do not go together: {both}"))
        })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { seen, acceptor: TlsAcceptor::from(Arc::new(config)), expires })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(open(path)?).collect();
    let chain = read.map_err(|error| unusable(path, &error))?;
    if chain.is_empty() {
        return Err(unusable(path, &"it has no certificate in PEM form"));
    }
    Ok(chain)
}

fn open(path: &Path) -> Result<File, Fault> {
    File::open(path).map_err(|error| unusable(path, &error))
}

fn marks(files: &HttpTls) -> [Option<Mark>; 2] {
    [&files.certificate, &files.key].map(|path| mark(path).ok())
}

fn mark(path: &Path) -> io::Result<Mark> {
    // Of what a link leads to: Kubernetes renews a Secret by another link.
    let is = std::fs::metadata(path)?;
    Ok((is.dev(), is.ino(), is.size(), is.mtime(), is.mtime_nsec()))
}

fn unusable(path: &Path, error: &impl std::fmt::Display) -> Fault {
    fault(format!("{} cannot be used for TLS: {error}", path.display()))
}

fn fault(what: String) -> Fault {
    let mend = "let http.tls.certificate name the certificate with those that issued it, and \
                http.tls.key its key, both in PEM and readable by the daemon's user";
    Fault::new(Code::CertificateUnusable, what, mend)
}
