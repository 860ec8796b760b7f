//! How questions reach the registry: over the network, or in a directory of our own.

use serde_json::Value;

use super::Error;
use super::directory::{self, Asked, Directory, Trouble};
use super::transport::{Question, Settings, Transport, refusal};

/// A registry of our own.
#[derive(Clone, Debug)]
pub struct Own {
    /// Where it is.
    pub directory: Directory,
    /// The URL under which consumers ask it.
    pub url: String,
}

#[derive(Debug)]
pub(super) enum Way {
    Network(Box<Transport>),
    Own(Own),
}

impl Way {
    pub(super) fn new(mut settings: Settings) -> Result<Self, Error> {
        match settings.own.take() {
            Some(own) => Ok(Self::Own(own)),
            None => Ok(Self::Network(Box::new(Transport::new(settings)?))),
        }
    }

    /// Reads certificates again: they may have been renewed.
    pub(super) fn renew(&mut self) -> Result<(), Error> {
        match self {
            Self::Network(transport) => transport.renew(),
            Self::Own(_) => Ok(()),
        }
    }

    /// Where it is, for messages.
    pub(super) fn url(&self) -> &str {
        match self {
            Self::Network(transport) => transport.url(),
            Self::Own(own) => &own.url,
        }
    }

    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Value, Error> {
        let own = match self {
            Self::Network(transport) => return transport.ask(question).await,
            Self::Own(own) => own,
        };
        let asked = Asked {
            method: question.method.clone(),
            path: question.path.iter().map(|&part| part.to_owned()).collect(),
            query: question.query.unwrap_or_default().to_owned(),
            body: question.body.map(|body| body.to_string().into_bytes()).unwrap_or_default(),
        };
        let directory = own.directory.clone();
        // Files are waited for where nothing else waits.
        let answer = tokio::task::spawn_blocking(move || directory::answer(&directory, &asked));
        let path = || own.directory.path().display().to_string();
        match answer.await {
            Ok(Ok((status, body))) if status.is_success() => Ok(body),
            Ok(Ok((status, body))) => {
                Err(refusal(status, body.to_string().as_bytes(), question.subject))
            }
            Ok(Err(Trouble::Io { reason })) => Err(Error::Directory { path: path(), reason }),
            Ok(Err(Trouble::Damaged { reason })) => Err(Error::Damaged { path: path(), reason }),
            Err(error) => Err(Error::Directory { path: path(), reason: error.to_string() }),
        }
    }
}
