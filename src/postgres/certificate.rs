//! What we need to know of the server's certificate that the TLS library does not tell: whom it
//! names as libpq reads it, when it is valid, and its hash for channel binding.

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{ContextSpecific, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, SliceReader, TagNumber};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::AlgorithmIdentifierOwned;

/// The server's certificate.
pub(super) struct PeerCertificate(Certificate);

impl PeerCertificate {
    /// `None` where it cannot be read.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        Certificate::from_der(der).ok().map(Self)
    }

    /// The names that are checked, for messages.
    pub(super) fn names(&self) -> Vec<String> {
        let presented = self.presented();
        let names = presented.dns.into_iter().chain(presented.ip.iter().map(IpAddr::to_string));
        names.chain(presented.common_name).collect()
    }

    /// Whether it is for this host, by libpq's rules: the alternative names, or the common name
    /// where there is none of the host's kind.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let presented = self.presented();
        let address = host.parse::<IpAddr>().ok();
        let alternatives =
            if address.is_some() { !presented.ip.is_empty() } else { !presented.dns.is_empty() };
        presented.dns.iter().any(|name| matches(name, host))
            || address.is_some_and(|address| presented.ip.contains(&address))
            || (!alternatives && presented.common_name.is_some_and(|name| matches(&name, host)))
    }

    fn presented(&self) -> Presented {
        let tbs = self.0.tbs_certificate();
        let mut presented = Presented::default();
        let alternatives = tbs.get_extension::<SubjectAltName>().ok().flatten();
        for name in alternatives.map(|(_, names)| names.0).unwrap_or_default() {
            match name {
                GeneralName::DnsName(name) => presented.dns.push(name.as_str().to_owned()),
                GeneralName::IpAddress(bytes) => presented.ip.extend(address(bytes.as_bytes())),
                _ => {}
            }
        }
        let common_name = tbs.subject().iter().find(|attribute| attribute.oid == COMMON_NAME);
        presented.common_name =
            common_name.and_then(|name| String::from_utf8(name.value.value().to_vec()).ok());
        presented
    }

    /// Whether a moment, since 1970, is within its validity.
    pub(super) fn is_valid_at(&self, now: Duration) -> bool {
        let validity = self.0.tbs_certificate().validity();
        validity.not_before.to_unix_duration() <= now
            && now <= validity.not_after.to_unix_duration()
    }

    /// When it runs out, since 1970; none for what no clock comes to.
    pub(super) fn expires(&self) -> Option<Duration> {
        let at = self.0.tbs_certificate().validity().not_after.to_unix_duration();
        (!at.is_zero()).then_some(at)
    }

    /// Whether it is of the oldest form, which has no extensions and which webpki does not read.
    pub(super) fn is_version_1(&self) -> bool {
        self.0.tbs_certificate().version() == Version::V1
    }

    /// Its public key, in DER.
    pub(super) fn public_key(&self) -> Option<Vec<u8>> {
        self.0.tbs_certificate().subject_public_key_info().to_der().ok()
    }

    /// RFC 5929's `tls-server-end-point`: the certificate hashed with the hash of its signature,
    /// MD5 and SHA-1 replaced by SHA-256. Undefined for signatures without a hash (Ed25519).
    pub(super) fn end_point_hash(&self, der: &[u8]) -> Option<Vec<u8>> {
        let signature = self.0.signature_algorithm();
        let hash = match signature.oid {
            RSA_PSS => Hash::of(pss_hash(signature)),
            oid => Hash::of_signature(oid),
        };
        Some(match hash? {
            Hash::Sha224 => Sha224::digest(der).to_vec(),
            Hash::Sha256 => Sha256::digest(der).to_vec(),
            Hash::Sha384 => Sha384::digest(der).to_vec(),
            Hash::Sha512 => Sha512::digest(der).to_vec(),
        })
    }
}

#[derive(Default)]
struct Presented {
    dns: Vec<String>,
    ip: Vec<IpAddr>,
    common_name: Option<String>,
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// A `*` stands for the whole first label and nothing else.
fn matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.as_bytes(), host.strip_suffix('.').unwrap_or(host).as_bytes());
    if pattern.contains(&0) {
        return false;
    }
    match pattern.strip_prefix(b"*.") {
        None => pattern.eq_ignore_ascii_case(host),
        Some(parent) => {
            let label = host.iter().position(|byte| *byte == b'.');
            label.is_some_and(|end| {
                end > 0 && host.get(end + 1..).is_some_and(|rest| rest.eq_ignore_ascii_case(parent))
            })
        }
    }
}

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const COMMON_NAME: ObjectIdentifier = oid("2.5.4.3");
const RSA_PSS: ObjectIdentifier = oid("1.2.840.113549.1.1.10");

#[derive(Clone, Copy)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Signature algorithms and the hash within.
const SIGNATURES: [(ObjectIdentifier, Hash); 14] = [
    (oid("1.2.840.113549.1.1.4"), Hash::Sha256), // MD5 with RSA
    (oid("1.2.840.113549.1.1.5"), Hash::Sha256), // SHA-1 with RSA
    (oid("1.2.840.113549.1.1.14"), Hash::Sha224),
    (oid("1.2.840.113549.1.1.11"), Hash::Sha256),
    (oid("1.2.840.113549.1.1.12"), Hash::Sha384),
    (oid("1.2.840.113549.1.1.13"), Hash::Sha512),
    (oid("1.2.840.10045.4.1"), Hash::Sha256), // ECDSA with SHA-1
    (oid("1.2.840.10045.4.3.1"), Hash::Sha224),
    (oid("1.2.840.10045.4.3.2"), Hash::Sha256),
    (oid("1.2.840.10045.4.3.3"), Hash::Sha384),
    (oid("1.2.840.10045.4.3.4"), Hash::Sha512),
    (oid("1.2.840.10040.4.3"), Hash::Sha256), // DSA with SHA-1
    (oid("2.16.840.1.101.3.4.3.1"), Hash::Sha224),
    (oid("2.16.840.1.101.3.4.3.2"), Hash::Sha256),
];

/// Hashes by themselves, as RSA-PSS names them.
const HASHES: [(ObjectIdentifier, Hash); 5] = [
    (oid("1.3.14.3.2.26"), Hash::Sha256), // SHA-1
    (oid("2.16.840.1.101.3.4.2.4"), Hash::Sha224),
    (oid("2.16.840.1.101.3.4.2.1"), Hash::Sha256),
    (oid("2.16.840.1.101.3.4.2.2"), Hash::Sha384),
    (oid("2.16.840.1.101.3.4.2.3"), Hash::Sha512),
];

impl Hash {
    fn of_signature(signature: ObjectIdentifier) -> Option<Self> {
        SIGNATURES.iter().find(|(oid, _)| *oid == signature).map(|(_, hash)| *hash)
    }

    fn of(hash: Option<ObjectIdentifier>) -> Option<Self> {
        HASHES.iter().find(|(oid, _)| Some(*oid) == hash).map(|(_, hash)| *hash)
    }
}

/// The hash of an RSA-PSS signature is in its parameters; left out, it is SHA-1.
fn pss_hash(signature: &AlgorithmIdentifierOwned) -> Option<ObjectIdentifier> {
    let parameters = signature.parameters.as_ref()?;
    let mut reader = SliceReader::new(parameters.value()).ok()?;
    let hash =
        ContextSpecific::<AlgorithmIdentifierOwned>::decode_explicit(&mut reader, TagNumber(0));
    Some(hash.ok()?.map_or(oid("1.3.14.3.2.26"), |hash| hash.value.oid))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SignatureAlgorithm};

    use super::*;

    fn certificate(names: &[SanType], common_name: Option<&str>, key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.self_signed(key).unwrap().der().to_vec()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn is_for(names: &[SanType], common_name: Option<&str>, host: &str) -> bool {
        let der = certificate(names, common_name, &KeyPair::generate().unwrap());
        PeerCertificate::read(&der).unwrap().is_for(host)
    }

    #[test]
    fn a_name_matches_as_in_libpq() {
        let names = [dns("db.example"), dns("*.replica.example")];
        for (host, expected) in [
            ("db.example", true),
            ("DB.Example", true),
            ("db.example.", true),
            ("xdb.example", false),
            ("a.replica.example", true),
            ("a.b.replica.example", false),
            ("replica.example", false),
            (".replica.example", false),
            ("other", false),
        ] {
            assert_eq!(is_for(&names, Some("other"), host), expected, "{host}");
        }
    }

    #[test]
    fn the_common_name_counts_where_there_is_no_name_of_the_hosts_kind() {
        let ip = SanType::IpAddress("10.0.0.7".parse().unwrap());
        assert!(is_for(&[], Some("db"), "db"));
        assert!(is_for(std::slice::from_ref(&ip), Some("db"), "db"));
        assert!(!is_for(&[dns("other")], Some("db"), "db"));
        assert!(is_for(&[dns("other")], Some("10.0.0.7"), "10.0.0.7"));
        assert!(!is_for(&[ip], Some("10.0.0.8"), "10.0.0.8"));
    }

    #[test]
    fn an_address_matches_the_address_in_whatever_way_it_is_written() {
        let ip = SanType::IpAddress("fd00::1".parse().unwrap());
        assert!(is_for(std::slice::from_ref(&ip), None, "fd00:0::1"));
        assert!(!is_for(&[ip], None, "fd00::2"));
    }

    #[test]
    fn the_binding_uses_the_hash_of_the_signature() {
        let hash_len = |algorithm: &'static SignatureAlgorithm| {
            let der = certificate(&[], Some("db"), &KeyPair::generate_for(algorithm).unwrap());
            PeerCertificate::read(&der).unwrap().end_point_hash(&der).map(|hash| hash.len())
        };
        assert_eq!(hash_len(&rcgen::PKCS_ECDSA_P256_SHA256), Some(32));
        assert_eq!(hash_len(&rcgen::PKCS_ECDSA_P384_SHA384), Some(48));
        assert_eq!(hash_len(&rcgen::PKCS_ED25519), None);
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let der = certificate(&[], Some("db"), &KeyPair::generate().unwrap());
        for end in 0..der.len() {
            assert!(PeerCertificate::read(&der[..end]).is_none());
        }
    }
}
