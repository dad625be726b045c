//! Passwords as they are stored: in clear text, as an MD5 hash, or as a SCRAM-SHA-256 verifier.

use std::fmt;

use crate::{ScramVerifier, Secret, md5, scram};

/// A stored password.
#[derive(Clone)]
pub enum StoredPassword {
    /// Clear text.
    Plain(Secret),
    /// MD5 of password and user.
    Md5([u8; 16]),
    /// A SCRAM-SHA-256 verifier.
    Scram(ScramVerifier),
}

impl StoredPassword {
    /// Reads a stored password: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, `md5` and 32 lower-case
    /// hexadecimal digits, and anything else is clear text.
    ///
    /// The rule is PostgreSQL's (`src/backend/libpq/crypt.c get_password_type`, REL_18).
    pub fn parse(text: &str) -> Self {
        if let Some(hash) = text
            .strip_prefix("md5")
            .and_then(|digits| md5::from_hex(digits.as_bytes()))
        {
            return StoredPassword::Md5(hash);
        }
        match ScramVerifier::parse(text) {
            Some(verifier) => StoredPassword::Scram(verifier),
            None => StoredPassword::Plain(Secret::new(text)),
        }
    }

    /// Returns whether `password` is the one. With a verifier it takes a millisecond or more.
    pub(crate) fn matches(&self, user: &str, password: &[u8]) -> bool {
        match self {
            StoredPassword::Plain(stored) => *stored == Secret::new(password),
            StoredPassword::Md5(stored) => md5::matches(stored, &md5::stored(password, user)),
            StoredPassword::Scram(stored) => {
                let keys = scram::ScramKeys::derive(password, stored.salt(), stored.iterations());
                stored.matches(&keys)
            }
        }
    }
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoredPassword::Plain(_) => "Plain(..)",
            StoredPassword::Md5(_) => "Md5(..)",
            StoredPassword::Scram(_) => "Scram(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn tells_the_three_forms_apart() {
        assert!(matches!(
            StoredPassword::parse(VERIFIER),
            StoredPassword::Scram(_)
        ));
        assert!(matches!(
            StoredPassword::parse("md562af4dd09bbb41884907a838a3233294"),
            StoredPassword::Md5(_)
        ));
        for plain in [
            "",
            "secret",
            "md5",
            "md562AF4dd09bbb41884907a838a3233294",
            "SCRAM-SHA-256$",
            "SCRAM-SHA-256$4096:x$y:z",
        ] {
            assert!(
                matches!(StoredPassword::parse(plain), StoredPassword::Plain(_)),
                "{plain}"
            );
        }
    }

    #[test]
    fn verifies_a_password_against_each_form() {
        let md5 = StoredPassword::Md5(md5::stored(b"pencil", "user"));
        for stored in [
            StoredPassword::parse("pencil"),
            md5,
            StoredPassword::parse(VERIFIER),
        ] {
            assert!(stored.matches("user", b"pencil"), "{stored:?}");
            assert!(!stored.matches("user", b"pencils"), "{stored:?}");
            assert!(!stored.matches("user", b""), "{stored:?}");
        }
    }

    #[test]
    fn debug_hides_every_form() {
        for text in ["hunter2", VERIFIER, "md562af4dd09bbb41884907a838a3233294"] {
            assert!(format!("{:?}", StoredPassword::parse(text)).ends_with("(..)"));
        }
    }
}
