//! PostgreSQL's MD5 method: `"md5" + md5(md5(password + user) + salt)`, each MD5 as 32 hexadecimal digits.
//!
//! The inner hash is what a server stores, so it alone is enough to log in.
//! See <https://www.postgresql.org/docs/current/auth-password.html>.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// Returns MD5 of password and user: what a server stores.
pub(crate) fn stored(password: &[u8], user: &str) -> [u8; 16] {
    Md5::new()
        .chain_update(password)
        .chain_update(user.as_bytes())
        .finalize()
        .into()
}

/// Returns the 35 bytes that answer a challenge: `md5` and 32 digits.
pub(crate) fn response(stored: &[u8; 16], salt: [u8; 4]) -> Vec<u8> {
    let outer = Md5::new()
        .chain_update(hex(stored))
        .chain_update(salt)
        .finalize()
        .into();
    let mut response = b"md5".to_vec();
    response.extend_from_slice(&hex(&outer));
    response
}

/// Compares in constant time.
pub(crate) fn matches(left: &[u8; 16], right: &[u8; 16]) -> bool {
    left.ct_eq(right).into()
}

fn hex(hash: &[u8; 16]) -> Vec<u8> {
    let digit = |nibble: u8| {
        if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + (nibble - 10)
        }
    };
    hash.iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Returns the 16 bytes of 32 lower-case hexadecimal digits.
///
/// Upper-case digits are no hash to PostgreSQL either (`src/backend/libpq/crypt.c get_password_type`, REL_18).
pub(crate) fn from_hex(digits: &[u8]) -> Option<[u8; 16]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    let mut hash = [0; 16];
    if pairs.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::md5_hash;

    use super::*;

    #[test]
    fn answers_as_a_known_exchange_did() {
        let answer = response(&stored(b"password", "md5_user"), [0x2a, 0x3d, 0x8f, 0xe0]);
        assert_eq!(answer, b"md562af4dd09bbb41884907a838a3233294");
    }

    #[test]
    fn answers_as_postgres_protocol_does() {
        for (user, password, salt) in [
            ("", "", [0; 4]),
            ("app", "secret", [1, 2, 3, 255]),
            ("jörg", "ü", [9; 4]),
        ] {
            let expected = md5_hash(user.as_bytes(), password.as_bytes(), salt);
            assert_eq!(
                response(&stored(password.as_bytes(), user), salt),
                expected.into_bytes()
            );
        }
    }

    #[test]
    fn reads_back_its_digits_and_nothing_else() {
        let hash = stored(b"secret", "app");
        assert_eq!(from_hex(&hex(&hash)), Some(hash));
        assert_eq!(from_hex(b"62af4dd09bbb41884907a838a323329"), None);
        assert_eq!(from_hex(b"62af4dd09bbb41884907a838a32332940"), None);
        assert_eq!(from_hex(b"62AF4dd09bbb41884907a838a3233294"), None);
    }
}
