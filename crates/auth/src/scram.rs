//! SCRAM-SHA-256: keys, verifiers, proofs and signatures. RFC 5802, RFC 7677.
//!
//! See <https://www.postgresql.org/docs/current/sasl-authentication.html#SASL-SCRAM-SHA-256>.

pub(crate) mod message;

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::secret::Key;

/// The name of the mechanism.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Rounds of a verifier that we derive: copied, the default of PostgreSQL's `scram_iterations`.
pub const DEFAULT_ITERATIONS: u32 = 4096;

/// Rounds that a server may ask of us. Chosen: more than anyone recommends for new passwords still passes, and a false
/// server cannot hold a thread for longer than about a second.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// Random bytes of a nonce that we make. Copied: PostgreSQL's `SCRAM_RAW_NONCE_LEN`.
pub(crate) const NONCE_BYTES: usize = 18;

/// What a password becomes with one salt and round count: enough to log in as a client.
///
/// One server's verifier of a user has one salt, so keys are worth remembering: deriving them takes a millisecond or more.
#[derive(Clone)]
pub struct ScramKeys {
    salt: Vec<u8>,
    iterations: u32,
    client_key: Key,
    server_key: Key,
}

impl ScramKeys {
    /// Derives the keys of a password. It takes a millisecond or more (proportional to `iterations`, at least 1).
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted = Key::new(salted_password(&prepare(password), salt, iterations));
        ScramKeys {
            salt: salt.to_vec(),
            iterations,
            client_key: Key::new(hmac(salted.bytes(), &[b"Client Key"])),
            server_key: Key::new(hmac(salted.bytes(), &[b"Server Key"])),
        }
    }

    /// Returns whether these are the keys for that salt and round count.
    pub fn fit(&self, salt: &[u8], iterations: u32) -> bool {
        self.salt == salt && self.iterations == iterations
    }

    /// Returns what a server stores of them.
    pub fn verifier(&self) -> ScramVerifier {
        let stored_key = Key::new(sha256(self.client_key.bytes()));
        ScramVerifier::from_parts(
            self.salt.clone(),
            self.iterations,
            stored_key,
            self.server_key.clone(),
        )
    }

    /// Returns the keys of a client that proved itself against a verifier.
    pub(crate) fn recovered(verifier: &ScramVerifier, client_key: Key) -> Self {
        ScramKeys {
            salt: verifier.salt.clone(),
            iterations: verifier.iterations,
            client_key,
            server_key: verifier.server_key.clone(),
        }
    }

    /// Returns the ClientProof of an exchange.
    pub(crate) fn proof(&self, auth_message: &[u8]) -> [u8; 32] {
        let stored_key = Key::new(sha256(self.client_key.bytes()));
        xor(
            *self.client_key.bytes(),
            &hmac(stored_key.bytes(), &[auth_message]),
        )
    }

    /// Returns the ServerSignature that a true server answers with.
    pub(crate) fn server_signature(&self, auth_message: &[u8]) -> Key {
        Key::new(hmac(self.server_key.bytes(), &[auth_message]))
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKeys(..)")
    }
}

/// What a server stores of a password: enough to check a client's proof, not enough to log in.
#[derive(Clone)]
pub struct ScramVerifier {
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Key,
    server_key: Key,
}

impl ScramVerifier {
    /// Derives the verifier of a password. It takes a millisecond or more (proportional to `iterations`, at least 1).
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        ScramKeys::derive(password, salt, iterations).verifier()
    }

    pub(crate) fn from_parts(
        salt: Vec<u8>,
        iterations: u32,
        stored_key: Key,
        server_key: Key,
    ) -> Self {
        ScramVerifier {
            salt,
            iterations,
            stored_key,
            server_key,
        }
    }

    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as in `pg_authid.rolpassword`.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(MECHANISM)?.strip_prefix('$')?;
        let (rounds, keys) = rest.split_once('$')?;
        let (iterations, salt) = rounds.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| Some(Key::new(STANDARD.decode(text).ok()?.try_into().ok()?));
        Some(ScramVerifier {
            salt: STANDARD.decode(salt).ok()?,
            iterations: iterations.parse().ok().filter(|rounds| *rounds > 0)?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// Returns the text that [`ScramVerifier::parse`] reads. It is a secret: who has it can pose as the server.
    pub fn to_text(&self) -> String {
        format!(
            "{MECHANISM}${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key.bytes()),
            STANDARD.encode(self.server_key.bytes()),
        )
    }

    /// Returns the salt.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// Returns the rounds of PBKDF2, at least 1.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Returns whether the keys are those of the password that this was derived from.
    pub(crate) fn matches(&self, keys: &ScramKeys) -> bool {
        // Both are compared whatever the first says: the time tells nothing.
        self.stored_key.matches(&sha256(keys.client_key.bytes()))
            & self.server_key.matches(keys.server_key.bytes())
    }

    /// Returns the ClientKey that a proof reveals, if the proof is right.
    pub(crate) fn client_key(&self, auth_message: &[u8], proof: [u8; 32]) -> Option<Key> {
        let client_key = Key::new(xor(proof, &hmac(self.stored_key.bytes(), &[auth_message])));
        self.stored_key
            .matches(&sha256(client_key.bytes()))
            .then_some(client_key)
    }

    /// Returns the ServerSignature of an exchange.
    pub(crate) fn server_signature(&self, auth_message: &[u8]) -> [u8; 32] {
        hmac(self.server_key.bytes(), &[auth_message])
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramVerifier(..)")
    }
}

/// Returns HMAC-SHA-256 of the concatenated parts.
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Returns a nonce: base64 of the first 18 bytes, so no comma can be in it.
pub(crate) fn nonce(entropy: &[u8; 32]) -> String {
    STANDARD.encode(
        entropy
            .first_chunk::<NONCE_BYTES>()
            .unwrap_or(&[0; NONCE_BYTES]),
    )
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn xor(mut left: [u8; 32], right: &[u8; 32]) -> [u8; 32] {
    left.iter_mut()
        .zip(right)
        .for_each(|(left, right)| *left ^= right);
    left
}

/// Returns `Hi(password, salt, iterations)`: PBKDF2 with HMAC-SHA-256, one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    // The keyed state is copied each round: hashing the password anew would double the work.
    let keyed = keyed(password);
    let round = |input: &[&[u8]]| -> [u8; 32] {
        let mut mac = keyed.clone();
        input.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    };
    let mut block = round(&[salt, &[0, 0, 0, 1]]);
    let mut salted = block;
    for _ in 1..iterations {
        block = round(&[&block]);
        salted = xor(salted, &block);
    }
    salted
}

/// Prepares a password by SASLprep (RFC 4013); what cannot be prepared is used as it is.
///
/// PostgreSQL does so because it demands neither UTF-8 nor permitted characters of a password
/// (`src/backend/libpq/auth-scram.c pg_be_scram_build_secret`, REL_18); a result that would be empty counts as not
/// preparable (`src/common/saslprep.c pg_saslprep`).
fn prepare(password: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(password) else {
        return Cow::Borrowed(password);
    };
    match stringprep::saslprep(text) {
        Ok(prepared) if !prepared.is_empty() => Cow::Owned(prepared.into_owned().into_bytes()),
        _ => Cow::Borrowed(password),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3.
    const AUTH_MESSAGE: &str = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
        r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
        c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    #[test]
    fn proves_and_signs_as_rfc_7677_does() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = ScramKeys::derive(b"pencil", &salt, 4096);
        let proof = keys.proof(AUTH_MESSAGE.as_bytes());
        assert_eq!(
            STANDARD.encode(proof),
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let signature = keys.server_signature(AUTH_MESSAGE.as_bytes());
        assert_eq!(
            STANDARD.encode(signature.bytes()),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );

        let verifier = keys.verifier();
        assert!(
            verifier
                .client_key(AUTH_MESSAGE.as_bytes(), proof)
                .is_some()
        );
        assert_eq!(
            &verifier.server_signature(AUTH_MESSAGE.as_bytes()),
            signature.bytes()
        );
    }

    #[test]
    fn a_right_proof_reveals_keys_that_log_in() {
        let keys = ScramKeys::derive(b"secret", b"salt", 2);
        let verifier = keys.verifier();
        let client_key = verifier.client_key(b"first", keys.proof(b"first")).unwrap();
        let recovered = ScramKeys::recovered(&verifier, client_key);
        assert_eq!(recovered.proof(b"second"), keys.proof(b"second"));
        assert!(
            recovered.fit(b"salt", 2) && !recovered.fit(b"salt", 3) && !recovered.fit(b"pepper", 2)
        );
    }

    #[test]
    fn a_proof_with_any_bit_flipped_is_refused() {
        let keys = ScramKeys::derive(b"secret", b"salt", 1);
        for bit in 0..256 {
            let mut proof = keys.proof(b"message");
            proof[bit / 8] ^= 1 << (bit % 8);
            assert!(
                keys.verifier().client_key(b"message", proof).is_none(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn reads_back_a_verifier() {
        let verifier = ScramVerifier::derive(b"secret", b"0123456789abcdef", 4096);
        let text = verifier.to_text();
        assert_eq!(ScramVerifier::parse(&text).unwrap().to_text(), text);
    }

    #[test]
    fn refuses_what_is_no_verifier() {
        let good = ScramVerifier::derive(b"secret", b"salt", 4096).to_text();
        let bad = [
            good.replace("4096", "0"),
            good.replace("4096", "-1"),
            good.replace("4096", "99999999999"),
            good.replace("SCRAM-SHA-256", "SCRAM-SHA-1"),
            good.replace(':', ";"),
            format!("{good}AA"),
            good.chars().take(60).collect(),
        ];
        for text in bad {
            assert!(ScramVerifier::parse(&text).is_none(), "{text}");
        }
    }

    #[test]
    fn prepares_as_postgresql_does() {
        let prepared =
            |text: &str| String::from_utf8(prepare(text.as_bytes()).into_owned()).unwrap();
        assert_eq!(prepared("I\u{AD}X"), "IX", "soft hyphen maps to nothing");
        assert_eq!(prepared("\u{2168}"), "IX", "compatibility normalisation");
        assert_eq!(prepared("a\u{A0}b"), "a b", "non-ASCII space");
        assert_eq!(prepared("\u{7}"), "\u{7}", "prohibited: used as it is");
        assert_eq!(
            prepared("\u{627}1"),
            "\u{627}1",
            "bidirectional rule broken: used as it is"
        );
        assert_eq!(prepared("\u{AD}"), "\u{AD}", "nothing left: used as it is");
        assert_eq!(
            &*prepare(b"\xFF\xFE"),
            b"\xFF\xFE",
            "not UTF-8: used as it is"
        );
    }

    #[test]
    fn debug_hides_keys() {
        let keys = ScramKeys::derive(b"secret", b"salt", 1);
        assert_eq!(
            format!("{keys:?} {:?}", keys.verifier()),
            "ScramKeys(..) ScramVerifier(..)"
        );
    }
}
