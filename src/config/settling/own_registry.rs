//! The settings of a registry of our own, as they are meant.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Settling;
use crate::config::error::Kind;
use crate::config::reading::{Given, Key, MapEntry};
use crate::config::scalars;
use crate::config::secret::Credential;
use crate::config::settled::{self, OwnRegistry};
use crate::config::typed;
use crate::config::url::RegistryUrl;

/// Where it answers unless told otherwise: the port at which registries are looked for.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

impl Settling<'_> {
    /// The registry of our own, where there is to be one. The outer nothing says that a problem
    /// was collected.
    pub(super) fn own_registry(&mut self, typed: &typed::Registry) -> Option<Option<OwnRegistry>> {
        let directory = match &typed.directory {
            Key::Broken => return None,
            Key::Given(given) => given,
            Key::Absent => {
                let alone = [typed.listen.given().map(|it| &it.at), at(&typed.announce)];
                for at in alone.iter().flatten() {
                    let message = "there is no registry of our own that this could be about";
                    let error = at.key_error(Kind::Conflict, message);
                    self.problems.add(error.help("give `directory`, or take this away"));
                }
                return alone.iter().all(Option::is_none).then_some(None);
            }
        };
        let elsewhere = [
            at(&typed.url),
            at(&typed.username),
            at(&typed.password),
            at(&typed.password_file),
            at(&typed.oauth),
            at(&typed.ca_file),
            at(&typed.certificate_file),
            at(&typed.key_file),
        ];
        for at in elsewhere.iter().flatten() {
            let message = "this is about a registry elsewhere, and `directory` makes one here";
            let error = at.key_error(Kind::Conflict, message);
            self.problems.add(error.help("keep one of the two"));
        }
        let listen = self.registry_listen(&typed.listen);
        let announced = self.announced(&typed.announce);
        let listen = listen?;
        let reached = if listen.ip().is_unspecified() { "localhost" } else { "" };
        let host = match reached {
            "" => listen.to_string(),
            name => format!("{name}:{}", listen.port()),
        };
        let token = match &typed.token_file {
            Key::Broken => return None,
            Key::Absent => None,
            Key::Given(file) => Some(Credential::File(file.value.clone())),
        };
        elsewhere.iter().all(Option::is_none).then_some(Some(OwnRegistry {
            directory: directory.value.clone(),
            listen,
            announced: announced?.unwrap_or_else(|| format!("http://{host}")),
            token,
        }))
    }

    fn registry_listen(&mut self, typed: &Key<String>) -> Option<SocketAddr> {
        let given = match typed {
            Key::Broken => return None,
            Key::Absent => return Some(DEFAULT_LISTEN),
            Key::Given(given) => given,
        };
        let parsed = given.value.parse();
        if parsed.is_err() {
            let error = given.at.error(Kind::InvalidValue, "this is not an address with a port");
            self.problems.add(error.help(
                "as in `127.0.0.1:8081`, `0.0.0.0:8081` or `[::]:8081`; a host's name does not say \
                 on which address to listen, and `announce` says under which it is reached",
            ));
        }
        parsed.ok()
    }

    /// The outer nothing says that a problem was collected.
    fn announced(&mut self, typed: &Key<scalars::Url>) -> Option<Option<String>> {
        let given = match typed {
            Key::Broken => return None,
            Key::Absent => return Some(None),
            Key::Given(given) => given,
        };
        let parsed = RegistryUrl::parse(given.value.0.expose()).and_then(|url| match url.login {
            None => Ok(url.address),
            Some(_) => Err("consumers are told this, so it has no login".to_owned()),
        });
        let parsed = parsed.map_err(|why| given.at.error(Kind::InvalidValue, why));
        self.problems.check(parsed).map(Some)
    }

    /// One directory has one address, and one address one directory.
    pub(super) fn refuse_registries_that_meet(
        &mut self,
        entries: &[MapEntry<typed::Pipeline>],
        settled: &[Option<settled::Pipeline>],
    ) {
        let own = |pipeline: &Option<settled::Pipeline>| pipeline.as_ref()?.registry.own.clone();
        for (index, (entry, pipeline)) in entries.iter().zip(settled).enumerate() {
            let Some(this) = own(pipeline) else { continue };
            let meets = |other: &OwnRegistry| {
                let same = other.directory == this.directory;
                let chosen = other.listen == this.listen && this.listen.port() != 0;
                *other != this && (same || chosen)
            };
            let before = entries.iter().zip(settled).take(index);
            let mut met = before.filter(|(_, other)| own(other).is_some_and(|other| meets(&other)));
            let Some((first, _)) = met.next() else { continue };
            let typed = entry.value.value().and_then(|pipeline| pipeline.registry.given());
            let at = typed.map_or(&entry.at, |registry| &registry.at);
            let message = "this registry and another share the directory or the address only";
            self.problems.add(at.key_error(Kind::Conflict, message).help(format!(
                "give both pipelines the same `directory`, `listen`, `announce` and `token_file`, \
                 or each a `directory` and a `listen` of its own; the other pipeline is at {}",
                first.at.key.place
            )));
        }
    }
}

fn at<T>(key: &Key<T>) -> Option<&crate::config::reading::At> {
    key.given().map(|given: &Given<T>| &given.at)
}
