//! What configuration says, as each room wants to be told it.

use std::time::Duration;

use crate::config;
use crate::fault::{Code, Fault};
use crate::postgres::{Params, Password};
use crate::{kafka, registry};

/// How long one server may take to let us in; `run` promises to name what is wrong within ten
/// seconds. A shorter time in the URL counts.
const CONNECT: Duration = Duration::from_secs(5);

/// How soon the server lets go of the slot of a daemon that froze or lost its network. A standby
/// needs a second or two more, and takes over within ten.
const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(7);

pub(crate) fn params(source: &config::settled::Source) -> Result<Params, Fault> {
    params_of("source.url", &source.url, source.password.as_ref())
}

/// How a replica is connected to.
pub(crate) fn params_of_replica(of: &config::settled::Replica) -> Result<Params, Fault> {
    params_of("snapshot.from.url", &of.url, of.password.as_ref())
}

fn params_of(
    key: &str,
    url: &config::DatabaseUrl,
    password: Option<&config::Credential>,
) -> Result<Params, Fault> {
    let wrong = |error: crate::postgres::url::UrlError| {
        let mend = format!("correct {key} and the files it names");
        Fault::new(Code::SourceSettings, format!("{key}: {error}"), mend)
    };
    let params: Params = url.expose().parse().map_err(wrong)?;
    let mut params = match password {
        Some(config::Credential::File(path)) => params.with_password_from(Some(path.clone()), None),
        Some(config::Credential::Inline(secret)) => {
            params.with_password_from(None, Some(Password::new(secret.expose())))
        }
        Some(config::Credential::Command(words)) => params.with_password_command(words),
        None => params,
    };
    params.connect_timeout = params.connect_timeout.min(CONNECT);
    params.wal_sender_timeout.get_or_insert(WAL_SENDER_TIMEOUT);
    Ok(params)
}

pub(crate) fn kafka_settings(of: &config::settled::Kafka) -> kafka::Settings {
    use config::settled::KafkaLogin;
    let plain = |(key, value): (&String, &config::Secret)| (key.clone(), value.expose().to_owned());
    let login = match &of.login {
        KafkaLogin::AsConfigured => kafka::Login::AsConfigured,
        KafkaLogin::Password(password) => kafka::Login::Password(password.clone()),
        KafkaLogin::Token(token) => kafka::Login::token(token.clone()),
    };
    kafka::Settings {
        bootstrap_servers: of.bootstrap_servers.clone(),
        properties: of.properties.iter().map(plain).collect(),
        login,
    }
}

pub(crate) fn registry_settings(of: &config::settled::Registry) -> registry::Settings {
    use config::settled::RegistryLogin;
    let authentication = match &of.login {
        RegistryLogin::None => registry::Authentication::None,
        RegistryLogin::Basic { username, password } => registry::Authentication::Basic {
            username: username.clone(),
            password: password.clone(),
        },
        RegistryLogin::Bearer(token) => registry::Authentication::Bearer(token.clone()),
        RegistryLogin::Client { token_url, id, secret, scope } => {
            registry::Authentication::Client {
                token_url: token_url.clone(),
                id: id.clone(),
                secret: secret.clone(),
                scope: scope.clone(),
            }
        }
    };
    registry::Settings {
        own: of.own.as_ref().map(|own| registry::Own {
            directory: registry::directory::Directory::at(own.directory.clone()),
            url: own.announced.clone(),
        }),
        urls: of.urls.clone(),
        authentication,
        ca_file: of.ca_file.clone(),
        certificate: of.certificate.clone(),
    }
}
