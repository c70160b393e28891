//! Who has signed in: in memory, so that a console that is started again asks again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::serve::access::{Role, random};
use crate::serve::assets::hex;

/// A shift and a bit.
const LASTS: Duration = Duration::from_secs(12 * 60 * 60);
/// More at once are not the people of one fleet; the oldest goes.
const MOST: usize = 1000;

/// By the digest of the cookie: what is compared is nothing that anybody can approach letter by letter.
#[derive(Default)]
pub(super) struct Logins(Mutex<HashMap<[u8; 32], Login>>);

struct Login {
    name: String,
    role: Role,
    began: Instant,
}

impl Logins {
    /// The cookie of somebody who has just signed in.
    pub(super) fn begin(&self, name: String, role: Role) -> String {
        let cookie = hex(&random());
        let began = Instant::now();
        let mut all = self.all();
        all.retain(|_, login| login.began.elapsed() < LASTS);
        if all.len() >= MOST
            && let Some(oldest) = all.iter().min_by_key(|(_, login)| login.began).map(|(key, _)| *key)
        {
            all.remove(&oldest);
        }
        all.insert(key(&cookie), Login { name, role, began });
        cookie
    }

    pub(super) fn find(&self, cookie: &str) -> Option<(String, Role)> {
        let all = self.all();
        let login = all.get(&key(cookie)).filter(|login| login.began.elapsed() < LASTS)?;
        Some((login.name.clone(), login.role))
    }

    pub(super) fn end(&self, cookie: &str) {
        self.all().remove(&key(cookie));
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Login>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(cookie: &str) -> [u8; 32] {
    Sha256::digest(cookie).into()
}
