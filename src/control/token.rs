//! The token that lets somebody change what the daemon does, and where the command line finds it.
//!
//! Where none is configured the daemon makes one at its start and writes it to a file that only its
//! own user can read, named after its address, so that several daemons of a host do not meet.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::crypto::CryptoProvider;

use crate::credential::{Credential, Secret};

/// As many as a key of AES has.
const TOKEN_BYTES: usize = 32;

/// What files of tokens end in.
const SUFFIX: &str = ".token";

/// What links to the certificate of a daemon that speaks TLS end in.
const CERTIFICATE_SUFFIX: &str = ".pem";

/// How a request proves that it may ask for changes.
#[derive(Clone, Debug)]
pub struct Token(Option<Credential>);

impl Token {
    /// As it is configured, or made.
    #[must_use]
    pub fn of(credential: Option<Credential>) -> Self {
        Self(credential)
    }

    /// Whether this is the token. Compared by its digest, so that the time tells nothing of it.
    ///
    /// # Errors
    /// Where there is none, or its file cannot be read.
    pub fn is(&self, given: &str) -> Result<bool, String> {
        let Some(credential) = &self.0 else {
            return Err("the daemon has no token".to_owned());
        };
        let known = credential.read_named()?;
        let known = known.expose();
        Ok(!known.is_empty() && Sha256::digest(known) == Sha256::digest(given))
    }
}

/// A token's file, and the link to a certificate beside it; both go away with their owner.
#[derive(Debug)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(self.0.with_extension("pem"));
    }
}

/// Makes a token and writes it down for a daemon that listens there, with where its certificate is.
///
/// # Errors
/// Where it cannot be written so that nobody else can read it.
pub fn write(listen: SocketAddr, certificate: Option<&Path>) -> io::Result<(Secret, TokenFile)> {
    let mut bytes = [0; TOKEN_BYTES];
    let provider = CryptoProvider::get_default();
    let provider = provider.ok_or_else(|| io::Error::other("there is no source of chance"))?;
    let filled = provider.secure_random.fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system gives no chance"))?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let directory = directory()?;
    let make = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    make.map_err(|error| named(&directory, &error))?;
    refuse_others(&directory)?;
    let path = directory.join(format!("{listen}{SUFFIX}"));
    // What a daemon left that was killed; nobody else writes here.
    let _ = fs::remove_file(&path);
    let mut file = OpenOptions::new();
    let file = file.write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(token.as_bytes()));
    written.map_err(|error| named(&path, &error))?;
    let link = path.with_extension("pem");
    let _ = fs::remove_file(&link);
    if let Some(certificate) = certificate {
        let link_to = std::path::absolute(certificate)?;
        symlink(link_to, &link).map_err(|error| named(&link, &error))?;
    }
    Ok((Secret::new(token), TokenFile(path)))
}

/// The addresses of this user's daemons on this host, as far as they have written tokens down. One
/// that was killed may still be among them.
#[must_use]
pub fn daemons() -> Vec<SocketAddr> {
    let Ok(directory) = directory() else { return Vec::new() };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<SocketAddr> =
        names.filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok()).collect();
    found.sort();
    found
}

/// The token of the daemon that is asked at this address, where this user may read it.
#[must_use]
pub fn find(asked: SocketAddr) -> Option<Secret> {
    paths(asked, SUFFIX).into_iter().find_map(|path| Credential::File(path).read().ok())
}

/// The certificate of the daemon that is asked at this address, where it speaks TLS.
#[must_use]
pub fn find_certificate(asked: SocketAddr) -> Option<PathBuf> {
    paths(asked, CERTIFICATE_SUFFIX).into_iter().find(|path| path.is_symlink())
}

/// Where something may be of the daemon that is asked at this address.
fn paths(asked: SocketAddr, suffix: &str) -> Vec<PathBuf> {
    let Ok(directory) = directory() else { return Vec::new() };
    if refuse_others(&directory).is_err() {
        return Vec::new();
    }
    let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let everywhere = everywhere.map(|ip| SocketAddr::new(ip, asked.port()));
    let listens = std::iter::once(asked).chain(everywhere.into_iter().filter(|_| is_here(asked)));
    listens.map(|listen| directory.join(format!("{listen}{suffix}"))).collect()
}

/// A daemon that listens everywhere may be asked at any address; a token goes to none but this
/// host's.
fn is_here(asked: SocketAddr) -> bool {
    asked.ip().is_loopback()
}

/// Where tokens of this user's daemons are.
fn directory() -> io::Result<PathBuf> {
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(runtime).join("waltide"));
    }
    let user = user()?;
    if user == 0 {
        return Ok(PathBuf::from("/run/waltide"));
    }
    let sessions = PathBuf::from(format!("/run/user/{user}"));
    if fs::metadata(&sessions).is_ok_and(|is| is.is_dir() && is.uid() == user) {
        return Ok(sessions.join("waltide"));
    }
    Ok(std::env::temp_dir().join(format!("waltide-{user}")))
}

/// In a directory that everybody may write, another could have been there first.
fn refuse_others(directory: &Path) -> io::Result<()> {
    let is = fs::symlink_metadata(directory).map_err(|error| named(directory, &error))?;
    if is.is_dir() && is.uid() == user()? && is.mode() & 0o077 == 0 {
        return Ok(());
    }
    let why = io::Error::other("it must be a directory that only the daemon's user can read");
    Err(named(directory, &why))
}

/// Who we are, as the system has it.
fn user() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_token_is_the_token() {
        let token = Token::of(Some(Credential::Inline(Secret::new("right"))));
        assert_eq!(token.is("right"), Ok(true));
        for wrong in ["", "righ", "right ", "Right"] {
            assert_eq!(token.is(wrong), Ok(false), "{wrong}");
        }
        assert!(Token::of(None).is("").is_err());
        let empty = Token::of(Some(Credential::Inline(Secret::new(""))));
        assert_eq!(empty.is(""), Ok(false));
    }

    #[test]
    fn a_directory_that_others_can_read_is_refused() {
        let path = std::env::temp_dir().join(format!("waltide-token-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).expect("a directory");
        refuse_others(&path).expect("it is ours");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(refuse_others(&path).is_err());
        fs::remove_dir(&path).expect("it is ours");
        assert!(refuse_others(Path::new("/tmp")).is_err());
    }
}
