//! What stands in for a user who does not exist, so that guessing names learns nothing.
//!
//! The salt that an unknown user is shown must be the same each time, as a stored one would be: it comes from the name
//! and a key that the process draws once. See `src/backend/libpq/auth-scram.c mock_scram_secret` (REL_18).

use std::fmt;

use crate::scram::{self, DEFAULT_ITERATIONS};
use crate::secret::Key;
use crate::{ScramVerifier, Secret};

/// The key that salts are made from: 32 random bytes, drawn once per process.
#[derive(Clone)]
pub struct MockKey(Key);

impl MockKey {
    /// Wraps random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        MockKey(Key::new(random))
    }

    /// Returns the salt of a user: 16 bytes, the same for the life of the key.
    pub fn salt(&self, user: &str) -> [u8; 16] {
        let hash = scram::hmac(self.0.bytes(), &[b"salt", user.as_bytes()]);
        let mut salt = [0; 16];
        salt.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        salt
    }

    /// Returns the verifier of a clear-text password, with the same salt that the user would have if unknown.
    ///
    /// It takes a millisecond or more: off the worker threads, once per user.
    pub fn verifier(&self, user: &str, password: &Secret) -> ScramVerifier {
        ScramVerifier::derive(password.expose(), &self.salt(user), DEFAULT_ITERATIONS)
    }

    /// Returns a verifier that no password fits.
    pub(crate) fn unmatchable(&self, user: &str) -> ScramVerifier {
        let key = |label: &[u8]| Key::new(scram::hmac(self.0.bytes(), &[label, user.as_bytes()]));
        ScramVerifier::from_parts(
            self.salt(user).to_vec(),
            DEFAULT_ITERATIONS,
            key(b"stored"),
            key(b"server"),
        )
    }
}

impl fmt::Debug for MockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MockKey(..)")
    }
}
