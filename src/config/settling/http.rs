//! The endpoint, as it is meant.

use std::net::SocketAddr;

use super::Settling;
use crate::config::error::Kind;
use crate::config::reading::{Given, Key};
use crate::config::settled::{Http, HttpTls};
use crate::config::typed::{self, value_or};

/// Where it is unless told otherwise.
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

impl Settling<'_> {
    pub(super) fn http(&mut self, typed: &Key<typed::Http>) -> Option<Http> {
        let nothing = typed::Http::default();
        let typed = match typed {
            Key::Broken => return None,
            Key::Absent => &nothing,
            Key::Given(given) => &given.value,
        };
        let listen = self.listen(&typed.listen);
        let token = self.secret((&typed.token, &typed.token_file));
        let protect_reads = value_or(&typed.protect_reads, false);
        let tls = self.tls(&typed.tls);
        Some(Http { listen: listen?, token: token?, protect_reads, tls: tls? })
    }

    /// The outer nothing says that a problem was collected.
    fn tls(&mut self, typed: &Key<typed::HttpTls>) -> Option<Option<HttpTls>> {
        let Given { value: typed, at } = match typed {
            Key::Broken => return None,
            Key::Absent => return Some(None),
            Key::Given(given) => given,
        };
        let certificate = typed.certificate.required("certificate", at, self.problems);
        let key = typed.key.required("key", at, self.problems);
        let (certificate, key) = (certificate?.value.clone(), key?.value.clone());
        Some(Some(HttpTls { certificate, key }))
    }

    fn listen(&mut self, typed: &Key<String>) -> Option<SocketAddr> {
        let given = match typed {
            Key::Broken => return None,
            Key::Absent => return Some(DEFAULT_LISTEN),
            Key::Given(given) => given,
        };
        if let Ok(listen) = given.value.parse() {
            return Some(listen);
        }
        let error = given.at.error(Kind::InvalidValue, "this is not an address with a port");
        self.problems.add(error.help(
            "as in `127.0.0.1:9464`, `0.0.0.0:9464` or `[::]:9464`; a host's name does not say on \
             which address to listen",
        ));
        None
    }
}
