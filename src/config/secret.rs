//! Secrets in texts that come from outside and are shown.

pub(super) use crate::credential::read_file;
pub use crate::credential::{Credential, MASK, MAX_SECRET_BYTES, Secret};

/// Masks the password of every URL in a text: for text that came from outside and is shown.
#[must_use]
pub fn mask_urls(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + "://".len());
        shown.push_str(before);
        rest = after;
        // A password may hold a slash that should have been escaped, so the credentials reach
        // to the word's last @; masking too much is the better mistake.
        let word = after.find(char::is_whitespace).unwrap_or(after.len());
        let Some(at) = after[..word].rfind('@') else { continue };
        let (credentials, host) = after.split_at(at);
        rest = host;
        match credentials.split_once(':') {
            Some((user, _)) => shown.extend([user, ":", MASK]),
            None => shown.push_str(credentials),
        }
    }
    shown.push_str(rest);
    mask_parameters(&shown)
}

/// Masks `password=...` (and `sslpassword=...`) in a URL's query.
fn mask_parameters(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("password=") {
        let (before, after) = rest.split_at(start + "password=".len());
        shown.push_str(before);
        shown.push_str(MASK);
        let end = after.find(|c: char| c == '&' || c.is_whitespace()).unwrap_or(after.len());
        rest = &after[end..];
    }
    shown.push_str(rest);
    shown
}
