//! Certificates for tests: an authority, what it signs, and odd ones.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    SignatureAlgorithm, SigningKey,
};

/// A directory that goes away with its owner.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("certificates-{name}"));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory for certificates");
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file for a certificate");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate and its key, in PEM files.
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    fn write(directory: &Directory, name: &str, certificate: &str, key: &KeyPair) -> Self {
        Self {
            certificate: directory.write(&format!("{name}.crt"), certificate),
            key: directory.write(&format!("{name}.key"), &key.serialize_pem()),
        }
    }

    /// As settings of a URL.
    pub(crate) fn as_client(&self) -> String {
        format!("sslcert={}&sslkey={}", self.certificate.display(), self.key.display())
    }
}

/// Someone who signs.
pub(crate) struct Authority {
    name: String,
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) certificate: PathBuf,
}

impl Authority {
    pub(crate) fn new(directory: &Directory, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let certificate = directory.write(&format!("{name}.crt"), &certificate);
        Self { name: name.to_owned(), issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate with this common name for these hosts.
    pub(crate) fn sign(&self, directory: &Directory, name: &str, hosts: &[&str]) -> Pair {
        self.sign_with(directory, name, hosts, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn sign_with(
        &self,
        directory: &Directory,
        name: &str,
        hosts: &[&str],
        algorithm: &'static SignatureAlgorithm,
    ) -> Pair {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let signed = named(name, hosts).signed_by(&key, &self.issuer).expect("a certificate");
        Pair::write(directory, &format!("{}-{name}", self.name), &signed.pem(), &key)
    }

    /// A certificate whose time has passed.
    pub(crate) fn sign_expired(&self, directory: &Directory, name: &str, host: &str) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut params = named(name, &[host]);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair::write(directory, &format!("{}-{name}", self.name), &signed.pem(), &key)
    }
}

/// As `openssl req -x509` makes them: self-signed, with the CA flag.
pub(crate) fn self_signed(directory: &Directory, name: &str, hosts: &[&str]) -> Pair {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let mut params = named(name, hosts);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    let pair = Pair::write(directory, name, &certificate.pem(), &key);
    // The key library writes the public key as well, which older OpenSSL does not read: what it
    // reads is a fixed header and the seed.
    let seed = &key.serialized_der()[16..48];
    let header = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    std::fs::write(&pair.key, pem("PRIVATE KEY", &[header, seed].concat())).expect("a key");
    pair
}

/// As `openssl x509 -req` made them for decades: version 1, without any extension.
pub(crate) fn version_1(directory: &Directory, name: &str) -> Pair {
    let key = KeyPair::generate().expect("a key");
    let modern = named(name, &[]).self_signed(&key).expect("a certificate");
    let [tbs, algorithm, _] = der::parts(der::content(modern.der()))[..] else {
        panic!("a certificate has three parts")
    };
    // Without the version in front and the extensions at the end.
    let fields = der::parts(der::content(tbs));
    let fields = fields.iter().filter(|field| !matches!(field[0], 0xa0 | 0xa3));
    let tbs = der::element(0x30, &fields.copied().collect::<Vec<_>>().concat());
    let signature = key.sign(&tbs).expect("a signature");
    let signature = der::element(0x03, &[&[0], &signature[..]].concat());
    let old = der::element(0x30, &[&tbs, algorithm, &signature].concat());
    Pair::write(directory, name, &pem("CERTIFICATE", &old), &key)
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn pem(label: &str, der: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// As little DER as taking a certificate apart needs.
mod der {
    /// Header and content length of the element at the front.
    fn lengths(bytes: &[u8]) -> (usize, usize) {
        match bytes[1] {
            short @ 0..0x80 => (2, usize::from(short)),
            long => {
                let count = usize::from(long & 0x7f);
                let len =
                    bytes[2..2 + count].iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
                (2 + count, len)
            }
        }
    }

    pub(super) fn content(element: &[u8]) -> &[u8] {
        let (header, len) = lengths(element);
        &element[header..header + len]
    }

    pub(super) fn parts(mut content: &[u8]) -> Vec<&[u8]> {
        let mut parts = Vec::new();
        while !content.is_empty() {
            let (header, len) = lengths(content);
            let (part, rest) = content.split_at(header + len);
            parts.push(part);
            content = rest;
        }
        parts
    }

    pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).expect("a short certificate").to_be_bytes();
        let header = match len {
            [0, short @ 0..0x80] => vec![tag, short],
            [0, longer] => vec![tag, 0x81, longer],
            [high, low] => vec![tag, 0x82, high, low],
        };
        [&header[..], content].concat()
    }
}
