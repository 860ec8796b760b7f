//! How Kafka is told who we are, where that changes while the daemon runs.
//!
//! A password is read again whenever a client is made. Tokens are asked for by librdkafka itself:
//! when a client is made, when four fifths of a token's life are over, and ten seconds after there
//! was none to be had.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::client::OAuthToken;
use rdkafka::config::ClientConfig;
use serde_json::Value;

use crate::credential::{Credential, Secret};

/// A start makes half a dozen clients, one after another; they share what was read for the first.
const SHARED_FOR: Duration = Duration::from_secs(5);

/// How long a token counts that does not say it itself.
const LIFE_OF_OPAQUE: Duration = Duration::from_secs(300);

/// Who we are, beside what the properties say.
#[derive(Clone, Debug, Default)]
pub enum Login {
    /// As the properties say.
    #[default]
    AsConfigured,
    /// With a password of its own place.
    Password(Credential),
    /// As the bearer of a token.
    Token(Arc<Tokens>),
}

impl Login {
    /// As the bearer of the token that is to be found there.
    #[must_use]
    pub fn token(source: Credential) -> Self {
        Self::Token(Arc::new(Tokens { source, last: Mutex::default() }))
    }

    /// Enters what is known when a client is made.
    pub(super) fn configure(&self, config: &mut ClientConfig) -> Result<(), String> {
        match self {
            Self::AsConfigured => {}
            Self::Password(source) => {
                config.set("sasl.password", source.read_named()?.expose());
            }
            Self::Token(_) => {
                config.set("sasl.mechanism", "OAUTHBEARER");
            }
        }
        Ok(())
    }
}

/// Where tokens come from.
#[derive(Debug)]
pub struct Tokens {
    source: Credential,
    last: Mutex<Option<(Instant, Secret)>>,
}

impl Tokens {
    fn current(&self) -> Result<Secret, String> {
        // Others wait meanwhile, and then share it.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, token)) = last.as_ref().filter(|(at, _)| at.elapsed() < SHARED_FOR) {
            return Ok(token.clone());
        }
        let token = self.source.read_named()?;
        *last = Some((Instant::now(), token.clone()));
        Ok(token)
    }
}

/// One client's login.
#[derive(Debug, Default)]
pub(super) struct Badge {
    login: Login,
    /// It was asked for, and given or not.
    asked: AtomicBool,
}

impl Badge {
    pub(super) fn new(login: &Login) -> Self {
        Self { login: login.clone(), asked: AtomicBool::new(false) }
    }

    /// A token for librdkafka.
    pub(super) fn show(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let Login::Token(tokens) = &self.login else {
            return Err("neither kafka.token_file nor kafka.token_command is given".into());
        };
        let token = tokens.current();
        self.asked.store(true, Ordering::Relaxed);
        let token = token?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Claims { subject, expires } = claims(token.expose());
        let until = expires.unwrap_or(now + LIFE_OF_OPAQUE);
        if until <= now {
            return Err("the token has expired".into());
        }
        Ok(OAuthToken {
            token: token.expose().to_owned(),
            principal_name: subject.unwrap_or_else(|| "waltide".to_owned()),
            lifetime_ms: i64::try_from(until.as_millis()).unwrap_or(i64::MAX),
        })
    }

    /// Lets a client ask that has no thread for it: without a token it would not connect.
    pub(super) fn settle(&self, deadline: Instant, poll: impl Fn()) {
        let wanted = matches!(self.login, Login::Token(_));
        while wanted && !self.asked.load(Ordering::Relaxed) && Instant::now() < deadline {
            poll();
        }
    }
}

/// What a token says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Claims {
    subject: Option<String>,
    expires: Option<Duration>,
}

/// Of a JSON Web Token; of any other, nothing.
fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).and_then(from_base64url);
    let claims = payload.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let Some(claims) = claims else { return Claims::default() };
    Claims {
        subject: claims.get("sub").and_then(Value::as_str).map(str::to_owned),
        expires: claims.get("exp").and_then(Value::as_f64).and_then(seconds),
    }
}

/// Some issuers write fractions.
fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok()
}

fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xFF).unwrap_or_default());
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_it_is_for_and_how_long() {
        // {"alg":"none"} . {"sub":"wal tide?","exp":1893456000.5}
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ3YWwgdGlkZT8iLCJleHAiOjE4OTM0NTYwMDAuNX0.";
        let expires = Some(Duration::from_millis(1_893_456_000_500));
        assert_eq!(claims(token), Claims { subject: Some("wal tide?".to_owned()), expires });
    }

    #[test]
    fn of_any_other_token_nothing_is_known() {
        for token in ["", "opaque", "a.b.c", "x.!!.y", "a.e30.c", "a.eyJleHAiOi0xfQ.c"] {
            assert_eq!(claims(token), Claims::default(), "{token}");
        }
    }

    #[test]
    fn clients_that_are_made_together_share_a_token() {
        let words = ["sh", "-c", "echo $$"].map(str::to_owned).to_vec();
        let login = Login::token(Credential::Command(words));
        let (one, other) = (Badge::new(&login), Badge::new(&login));
        assert_eq!(one.show().unwrap().token, other.show().unwrap().token);
    }
}
