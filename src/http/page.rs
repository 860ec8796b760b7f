//! The status page: one file without anything from elsewhere, which asks the API by itself.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page.html");

/// Nothing but what is in the file runs or shows, and it asks nobody but us.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let (_, after) = PAGE.split_once(&format!("<{tag}>"))?;
        let (inside, _) = after.split_once(&format!("</{tag}>"))?;
        Some(STANDARD.encode(Sha256::digest(inside)))
    };
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script")?,
        hash("style")?
    );
    HeaderValue::from_str(&policy).ok()
});

pub(super) async fn page() -> Response {
    let mut response = Html(PAGE).into_response();
    if let Some(policy) = &*POLICY {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_policy_and_nothing_from_elsewhere() {
        let policy = POLICY.as_ref().expect("a policy").to_str().unwrap();
        assert!(policy.matches("sha256-").count() == 2, "{policy}");
        assert_eq!((PAGE.matches("<script>").count(), PAGE.matches("<style>").count()), (1, 1));
        for outside in ["src=\"", "@import", "url(", "//cdn", " style=\"", " onclick", "innerHTML"]
        {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        let addresses = PAGE.matches("http://").count() + PAGE.matches("https://").count();
        // The names of SVG, which nobody asks for.
        assert_eq!(addresses, PAGE.matches("http://www.w3.org/2000/svg").count());
    }
}
