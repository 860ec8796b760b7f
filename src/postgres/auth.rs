//! Logging in: cleartext, MD5, SCRAM-SHA-256 with and without channel binding.
//!
//! The server chooses the method; what we refuse is decided here. Hazards:
//! - Somebody in the middle can leave out the PLUS variant, ask for the password in clear, or
//!   claim to trust us. `channel_binding=require` refuses all of that; `require_auth` refuses
//!   single methods. Without either we do what libpq does, and follow the server.
//! - With SCRAM the server proves that it knows the password, too. "Ok" before that proof is
//!   refused whatever the settings, or the proof would be worth nothing.

use std::path::Path;

use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use std::io;

use super::error::{AuthError, Error};
use super::link::Link;
use super::message::{self, Authentication};
use super::params::{AuthMethod, ChannelBinding, Params, Password, PasswordSource};
use super::passfile;
use super::tls;

/// The longest file that is taken for a password.
const MAX_PASSWORD_FILE_LEN: u64 = 64 * 1024;

/// Answers the server's requests until it is satisfied.
pub(super) async fn log_in(link: &mut Link, params: &Params) -> Result<(), Error> {
    let mut login = Login { params, method: AuthMethod::None, bound: false };
    let result = login.run(link).await;
    result.map_err(|error| match error {
        Failure::Refused(reason) => Error::Auth { peer: link.peer.clone(), reason },
        Failure::Other(error) => error,
    })
}

struct Login<'a> {
    params: &'a Params,
    /// What the server has asked for: one method, once.
    method: AuthMethod,
    /// Whether the login was bound to the channel.
    bound: bool,
}

enum Failure {
    Refused(AuthError),
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::Refused(error)
    }
}

/// A request of the server, no longer borrowed from the buffer.
enum Request {
    Ok,
    Cleartext,
    Md5([u8; 4]),
    /// Whether the PLUS variant is offered.
    Scram {
        plus: bool,
    },
}

impl Login<'_> {
    async fn run(&mut self, link: &mut Link) -> Result<(), Failure> {
        loop {
            match request(link).await? {
                Request::Ok => return Ok(self.finished()?),
                _ if self.method != AuthMethod::None => {
                    let what = "the server asked for a second login";
                    return Err(Error::protocol(&link.peer, what).into());
                }
                Request::Cleartext => {
                    self.asked(AuthMethod::Password)?;
                    let password = self.password(link).await?;
                    send_password(link, password.reveal().as_bytes()).await?;
                }
                Request::Md5(salt) => {
                    self.asked(AuthMethod::Md5)?;
                    let password = self.password(link).await?;
                    let user = self.params.user.as_bytes();
                    let hash = md5_hash(user, password.reveal().as_bytes(), salt);
                    send_password(link, hash.as_bytes()).await?;
                }
                Request::Scram { plus } => {
                    self.asked(AuthMethod::ScramSha256)?;
                    self.scram(link, plus).await?;
                }
            }
        }
    }

    /// The server asks for a method: refused before anything is given away.
    fn asked(&mut self, method: AuthMethod) -> Result<(), AuthError> {
        self.method = method;
        self.allowed()?;
        let binding_required = self.params.channel_binding == ChannelBinding::Require;
        if binding_required && method != AuthMethod::ScramSha256 {
            return Err(AuthError::ChannelBindingRequired(method.name()));
        }
        Ok(())
    }

    fn allowed(&self) -> Result<(), AuthError> {
        match &self.params.require_auth {
            Some(allowed) if !allowed.0.contains(&self.method) => {
                Err(AuthError::NotAllowed(self.method.name()))
            }
            _ => Ok(()),
        }
    }

    fn finished(&self) -> Result<(), AuthError> {
        self.allowed()?;
        if self.params.channel_binding == ChannelBinding::Require && !self.bound {
            return Err(AuthError::ChannelBindingRequired(self.method.name()));
        }
        Ok(())
    }

    async fn password(&self, link: &Link) -> Result<Password, Failure> {
        let password = match &self.params.password {
            // A command has been run before anybody was asked to wait for it.
            PasswordSource::None | PasswordSource::Command(_) => {
                return Err(AuthError::NoPassword.into());
            }
            PasswordSource::Given(password) => password.clone(),
            PasswordSource::File(path) => password_file(path).await?,
            PasswordSource::Passfile(path) => {
                let found = passfile::look_up(path, &link.peer).await?;
                found.ok_or(AuthError::NoPassword)?
            }
        };
        Ok(password)
    }

    async fn scram(&mut self, link: &mut Link, plus_offered: bool) -> Result<(), Failure> {
        let hash = match self.params.channel_binding {
            ChannelBinding::Disable => None,
            ChannelBinding::Prefer | ChannelBinding::Require => tls::end_point_hash(&link.socket),
        };
        // "Unrequested" tells the server that we would have, so that it notices where somebody
        // has taken PLUS off its list; that can only be said if we could have.
        let (mechanism, binding) = match hash {
            Some(hash) if plus_offered => {
                self.bound = true;
                (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
            }
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        if self.params.channel_binding == ChannelBinding::Require && !self.bound {
            return Err(AuthError::ChannelBindingRequired("SCRAM-SHA-256 without it").into());
        }
        let password = self.password(link).await?;
        let mut scram = sasl::ScramSha256::new(password.reveal().as_bytes(), binding);
        let encoded = frontend::sasl_initial_response(mechanism, scram.message(), &mut link.out);
        encode(link, encoded).await?;
        sasl_step(link, &mut scram, Step::Continue).await?;
        let encoded = frontend::sasl_response(scram.message(), &mut link.out);
        encode(link, encoded).await?;
        sasl_step(link, &mut scram, Step::Final).await
    }
}

enum Step {
    Continue,
    Final,
}

/// Takes the server's next part of the exchange, which must be this one.
async fn sasl_step(
    link: &mut Link,
    scram: &mut sasl::ScramSha256,
    step: Step,
) -> Result<(), Failure> {
    let frame = link.receive().await?;
    let done = match (frame.tag, &step) {
        (b'E', _) => {
            let error = message::server_error(frame.body);
            return Err(link.server(error).into());
        }
        (b'R', step) => match (message::authentication(frame.body), step) {
            (Some(Authentication::SaslContinue(data)), Step::Continue) => scram.update(data),
            (Some(Authentication::SaslFinal(data)), Step::Final) => scram.finish(data),
            _ => Err(io::Error::other("the exchange was broken off")),
        },
        (tag, _) => return Err(link.unexpected(tag, "login").into()),
    };
    done.map_err(|error| AuthError::NotProven(error.to_string()).into())
}

/// The server's next request.
async fn request(link: &mut Link) -> Result<Request, Failure> {
    loop {
        let frame = link.receive().await?;
        let asked = match frame.tag {
            b'R' => message::authentication(frame.body),
            b'E' => {
                let error = message::server_error(frame.body);
                return Err(link.server(error).into());
            }
            b'N' => continue,
            tag => return Err(link.unexpected(tag, "login").into()),
        };
        return match asked {
            None => Err(link.malformed("a request for authentication").into()),
            Some(Authentication::Ok) => Ok(Request::Ok),
            Some(Authentication::Cleartext) => Ok(Request::Cleartext),
            Some(Authentication::Md5 { salt }) => Ok(Request::Md5(salt)),
            Some(Authentication::Sasl { mechanisms }) => Ok(scram_of(&mechanisms)?),
            Some(Authentication::Other(code)) => Err(AuthError::Unsupported(name(code)).into()),
            Some(Authentication::SaslContinue(_) | Authentication::SaslFinal(_)) => {
                Err(link.unexpected(b'R', "login").into())
            }
        };
    }
}

fn scram_of(mechanisms: &[&[u8]]) -> Result<Request, AuthError> {
    let offers = |name: &str| mechanisms.contains(&name.as_bytes());
    let plus = offers(sasl::SCRAM_SHA_256_PLUS);
    if plus || offers(sasl::SCRAM_SHA_256) {
        return Ok(Request::Scram { plus });
    }
    let names: Vec<_> = mechanisms.iter().map(|name| String::from_utf8_lossy(name)).collect();
    Err(AuthError::Unsupported(names.join(" or ").into()))
}

fn name(code: i32) -> std::borrow::Cow<'static, str> {
    match code {
        2 => "Kerberos V5".into(),
        6 => "SCM credentials".into(),
        7 | 8 => "GSSAPI".into(),
        9 => "SSPI".into(),
        other => format!("authentication method {other}").into(),
    }
}

async fn send_password(link: &mut Link, password: &[u8]) -> Result<(), Failure> {
    let encoded = frontend::password_message(password, &mut link.out);
    encode(link, encoded).await
}

async fn encode(link: &mut Link, encoded: io::Result<()>) -> Result<(), Failure> {
    // The only thing an encoder objects to.
    encoded.map_err(|_| AuthError::Unsupported("a password with a zero byte".into()))?;
    Ok(link.send().await?)
}

/// What the file holds, without a newline at its end.
async fn password_file(path: &Path) -> Result<Password, Error> {
    let unusable = |reason: String| Error::File { path: path.to_owned(), reason };
    let about = tokio::fs::metadata(path).await.map_err(|error| unusable(error.to_string()))?;
    if about.len() > MAX_PASSWORD_FILE_LEN {
        return Err(unusable("it is too long to be a password".to_owned()));
    }
    let text = tokio::fs::read(path).await.map_err(|error| unusable(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|_| unusable("it is not UTF-8".to_owned()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(unusable("it is empty".to_owned()));
    }
    Ok(Password::new(line))
}
