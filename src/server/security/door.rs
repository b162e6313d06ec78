//! The door: which keys a running server wants, and whether a request has one.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::keys::{self, Key, KeyError, Keyring, Scope};
use crate::server::call::Call;
use crate::server::problem::{Kind, Problem};
use crate::server::routes::Access;

/// Bytes of a key that is worth looking at.
const KEY_BYTES_MAX: usize = 1024;

/// When keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRule {
    /// When there are any, from everybody, this machine's programs included: whoever makes a key means it, and what a
    /// proxy passes on comes from this machine too.
    WhenMade,
    /// Always; without keys nobody gets in.
    Always,
    /// Never.
    Never,
}

type State = Option<(SystemTime, u64, u64)>;

/// Looks at keys.
#[derive(Debug)]
pub(super) struct Door {
    rule: KeyRule,
    keyring: Keyring,
    /// What was in the file when it was in that state.
    known: RwLock<(State, Arc<Vec<Key>>)>,
}

impl Door {
    /// A door with the keys of a file.
    ///
    /// # Errors
    /// When keys count and the file cannot be read.
    pub(super) fn new(rule: KeyRule, keyring: Keyring) -> Result<Self, KeyError> {
        let state = keyring.state();
        let keys = if rule == KeyRule::Never { Vec::new() } else { keyring.keys()? };
        Ok(Self { rule, keyring, known: RwLock::new((state, Arc::new(keys))) })
    }

    /// The keys as they are now: a file that was changed is read again.
    fn keys(&self) -> Result<Arc<Vec<Key>>, KeyError> {
        let state = self.keyring.state();
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if known.0 == state {
                return Ok(Arc::clone(&known.1));
            }
        }
        let keys = Arc::new(self.keyring.keys()?);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *known = (state, Arc::clone(&keys));
        Ok(keys)
    }

    /// Lets a request in or says why not; notes whose key it has.
    pub(super) fn check(&self, headers: &HeaderMap, call: &Call) -> Result<(), Problem> {
        if self.rule == KeyRule::Never || call.access == Access::Open {
            return Ok(());
        }
        // What cannot be read lets nobody in.
        let keys = self.keys().map_err(|error| {
            Problem::new(Kind::Internal, format!("the server cannot read its keys: {error}"))
        })?;
        if keys.is_empty() && self.rule == KeyRule::WhenMade {
            return Ok(());
        }
        let text = key_of(headers).ok_or_else(|| {
            unauthorized("this server wants a key", "send Authorization: Bearer KEY")
        })?;
        let key = keys::find(&keys, text).ok_or_else(|| {
            unauthorized("this key is not known here", "nfl keys add NAME makes one")
        })?;
        call.came_with(key.name.clone(), key.scope >= Scope::Manage);
        if call.access == Access::Manage { call.must_manage() } else { Ok(()) }
    }
}

fn unauthorized(message: &str, hint: &str) -> Problem {
    Problem { hint: Some(hint.to_owned()), ..Problem::new(Kind::Unauthorized, message) }
}

/// The key in a request: `Authorization: Bearer`, else `x-api-key` as Anthropic's clients send it.
fn key_of(headers: &HeaderMap) -> Option<&str> {
    let bearer = || {
        let (scheme, text) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| text.trim())
    };
    let text = bearer().or_else(|| headers.get("x-api-key")?.to_str().ok())?;
    (text.len() <= KEY_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::body;

    fn check(door: &Door, access: Access, header: Option<(&'static str, &str)>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().unwrap());
        }
        let call = Call::new("1".to_owned(), "GET", "/", access, body::refusal);
        door.check(&headers, &call).map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    #[test]
    fn keys_count_from_the_moment_they_are_made() {
        let home = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(home.path());
        let door = |rule| Door::new(rule, keyring.clone()).unwrap();
        let (when_made, always, never) =
            (door(KeyRule::WhenMade), door(KeyRule::Always), door(KeyRule::Never));
        assert_eq!(check(&when_made, Access::Manage, None), 200);
        assert_eq!(check(&always, Access::Infer, None), 401);
        let infer = keyring.add("a", Scope::Infer).unwrap();
        let manage = keyring.add("b", Scope::Manage).unwrap();
        for door in [&when_made, &always] {
            for (access, header, status) in [
                (Access::Open, None, 200),
                (Access::Infer, None, 401),
                (Access::Infer, Some(("authorization", format!("Bearer {infer}"))), 200),
                (Access::Infer, Some(("authorization", format!("bearer {infer}"))), 200),
                (Access::Infer, Some(("x-api-key", infer.clone())), 200),
                (Access::Infer, Some(("x-api-key", manage.clone())), 200),
                (Access::Infer, Some(("authorization", format!("Basic {infer}"))), 401),
                (Access::Infer, Some(("authorization", infer.clone())), 401),
                (Access::Infer, Some(("x-api-key", format!("{infer}x"))), 401),
                (Access::Infer, Some(("x-api-key", "x".repeat(5000))), 401),
                (Access::Manage, Some(("x-api-key", infer.clone())), 403),
                (Access::Manage, Some(("x-api-key", manage.clone())), 200),
            ] {
                let header = header.as_ref().map(|(name, value)| (*name, value.as_str()));
                assert_eq!(check(door, access, header), status, "{access:?} {header:?}");
            }
        }
        assert_eq!(check(&never, Access::Manage, None), 200);
        keyring.remove("a").unwrap();
        assert_eq!(check(&always, Access::Infer, Some(("x-api-key", &infer))), 401);
        std::fs::write(keyring.path(), "broken").unwrap();
        assert_eq!(check(&when_made, Access::Infer, Some(("x-api-key", &manage))), 500);
        std::fs::remove_file(keyring.path()).unwrap();
        assert_eq!(check(&when_made, Access::Manage, None), 200);
        assert_eq!(check(&always, Access::Manage, Some(("x-api-key", &manage))), 401);
    }
}
