//! The registry's settings, as they are meant.

use std::path::PathBuf;

use super::Settling;
use crate::config::error::Kind;
use crate::config::reading::{At, Given, Key};
use crate::config::scalars;
use crate::config::secret::{Credential, Secret};
use crate::config::settled::{OnIncompatible, Registry, RegistryLogin, Subjects};
use crate::config::typed::{self, value_or};
use crate::config::url::RegistryUrl;

impl Settling<'_> {
    pub(super) fn registry(&mut self, given: &Given<typed::Registry>) -> Option<Registry> {
        let Given { value: typed, at } = given;
        let own = self.own_registry(typed);
        let urls = match &typed.directory {
            Key::Absent => self.registry_url(typed, at),
            Key::Given(_) | Key::Broken => Some(Vec::new()),
        };
        let in_url = urls.as_ref().and_then(|urls| urls.iter().find_map(|url| url.login.clone()));
        let login = match &own {
            Some(Some(_)) => Some(RegistryLogin::None),
            Some(None) => self.login(typed, at, in_url),
            None => None,
        };
        let certificate = self.certificate(typed);
        Some(Registry {
            own: own?,
            urls: urls?.into_iter().map(|url| url.address).collect(),
            login: login?,
            ca_file: typed.ca_file.value().cloned(),
            certificate: certificate?,
            subjects: value_or(&typed.subjects, Subjects::Topic),
            verify_ids: value_or(&typed.verify_ids, true),
            on_incompatible: value_or(&typed.on_incompatible, OnIncompatible::Halt),
        })
    }

    fn registry_url(&mut self, typed: &typed::Registry, at: &At) -> Option<Vec<RegistryUrl>> {
        if let Key::Absent = typed.url {
            let help = "or give a `directory`, in which the daemon keeps schemas itself";
            self.problems.add(at.missing("url").help(help));
        }
        typed.url.given().and_then(|given| self.registry_urls(given))
    }

    fn registry_urls(&mut self, given: &Given<scalars::Url>) -> Option<Vec<RegistryUrl>> {
        let parts = given.value.0.expose().split(',').map(str::trim);
        let urls: Result<Vec<_>, _> = parts.map(RegistryUrl::parse).collect();
        self.problems.check(urls.map_err(|why| given.at.error(Kind::InvalidValue, why)))
    }

    /// The outer nothing says that a problem was collected.
    fn certificate(&mut self, typed: &typed::Registry) -> Option<Option<(PathBuf, PathBuf)>> {
        match (&typed.certificate_file, &typed.key_file) {
            (Key::Given(certificate), Key::Given(key)) => {
                Some(Some((certificate.value.clone(), key.value.clone())))
            }
            (Key::Absent, Key::Absent) => Some(None),
            (Key::Given(one), Key::Absent) => {
                let error = one.at.key_error(Kind::Conflict, "a certificate needs its key");
                self.problems.add(error.help("give `key_file`"));
                None
            }
            (Key::Absent, Key::Given(one)) => {
                let error = one.at.key_error(Kind::Conflict, "a key needs its certificate");
                self.problems.add(error.help("give `certificate_file`"));
                None
            }
            (Key::Broken, _) | (_, Key::Broken) => None,
        }
    }

    fn oauth(&mut self, given: &Given<typed::OAuth>) -> Option<RegistryLogin> {
        let Given { value: typed, at } = given;
        let url = typed.token_url.required("token_url", at, self.problems);
        let url = url.and_then(|given| {
            let parsed = RegistryUrl::parse(&given.value);
            self.problems.check(parsed.map_err(|why| given.at.error(Kind::InvalidValue, why)))
        });
        let id = typed.client_id.required("client_id", at, self.problems);
        let id = id.map(|given| given.value.clone());
        let secret = match self.secret((&typed.client_secret, &typed.client_secret_file))? {
            Some(secret) => Some(secret),
            None => {
                let help = "`client_id` needs a secret";
                self.problems.add(at.missing("client_secret_file").help(help));
                None
            }
        };
        let (token_url, scope) = (url?.address, typed.scope.value().cloned());
        Some(RegistryLogin::Client { token_url, id: id?, secret: secret?, scope })
    }

    fn login(
        &mut self,
        typed: &typed::Registry,
        at: &At,
        in_url: Option<(String, Secret)>,
    ) -> Option<RegistryLogin> {
        let ways = [
            in_url.is_some().then_some("a login in `url`"),
            typed.token_file.given().map(|_| "`token_file`"),
            typed.username.given().map(|_| "`username`"),
            typed.oauth.given().map(|_| "`oauth`"),
        ];
        let ways: Vec<&str> = ways.into_iter().flatten().collect();
        if ways.len() > 1 {
            let message = format!("there are two ways to log in: {}", ways.join(" and "));
            let error = at.key_error(Kind::Conflict, message);
            self.problems.add(error.help("keep one of them"));
            return None;
        }
        let password = self.secret((&typed.password, &typed.password_file))?;
        if let (Key::Given(given), None) = (&typed.oauth, &password) {
            return self.oauth(given);
        }
        if let Key::Broken = typed.oauth {
            return None;
        }
        match (in_url, typed.token_file.value(), &typed.username, password) {
            (None, None, Key::Given(user), Some(password)) => {
                Some(RegistryLogin::Basic { username: user.value.clone(), password })
            }
            (_, _, Key::Given(_), None) => {
                self.problems.add(at.missing("password_file").help("`username` needs a password"));
                None
            }
            (None, None, Key::Absent, Some(_)) if ways.is_empty() => {
                self.problems.add(at.missing("username").help("the password needs a user"));
                None
            }
            (_, _, _, Some(_)) if !ways.is_empty() => {
                let message = format!("there is a password beside {}", ways.concat());
                self.problems.add(at.key_error(Kind::Conflict, message).help("keep one of them"));
                None
            }
            (Some((username, password)), ..) => {
                Some(RegistryLogin::Basic { username, password: Credential::Inline(password) })
            }
            (None, Some(file), ..) => Some(RegistryLogin::Bearer(Credential::File(file.clone()))),
            (None, None, Key::Absent, None) => Some(RegistryLogin::None),
            (_, _, Key::Broken, _) | (.., Some(_)) => None,
        }
    }

    /// The outer nothing says that a problem was collected.
    pub(super) fn secret(
        &mut self,
        given: (&Key<Secret>, &Key<PathBuf>),
    ) -> Option<Option<Credential>> {
        match given {
            (Key::Broken, _) | (_, Key::Broken) => None,
            (Key::Given(_), Key::Given(file)) => {
                let message = "it is given twice: here and beside it";
                self.problems.add(file.at.key_error(Kind::Conflict, message).help("keep this one"));
                None
            }
            (Key::Given(given), Key::Absent) => Some(Some(Credential::Inline(given.value.clone()))),
            (Key::Absent, Key::Given(file)) => Some(Some(Credential::File(file.value.clone()))),
            (Key::Absent, Key::Absent) => Some(None),
        }
    }
}
