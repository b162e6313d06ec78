//! A token or password: it goes into a header of its own host, and nowhere else.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What proves who we are to one host. Its value never appears in messages: `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// A secret for the header `Authorization: Bearer …`; None when it cannot stand in a header.
    pub(crate) fn bearer(token: &str) -> Option<Self> {
        let token = token.trim();
        let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(format!("Bearer {token}")))
    }

    /// A secret for the header `Authorization: Basic …` (RFC 7617).
    pub(crate) fn basic(user: &str, password: &str) -> Self {
        Self(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
    }

    /// The value of the header.
    pub(crate) fn header(&self) -> reqwest::header::HeaderValue {
        let mut value = reqwest::header::HeaderValue::from_str(&self.0).expect("checked when made");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}
