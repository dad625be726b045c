//! By which name the page is asked for.
//!
//! ## Why
//! A page of somebody else, open in a browser that reaches this address, may have its own name point here (DNS rebinding), and
//! then reads the answers as its own. The browser says by which name it asks: one that others may own is refused.
//!
//! ## Limits
//! A name without a dot belongs to the network that looks it up, so that it is believed. A name behind which a reverse proxy
//! stands must be the one of `http.listen`, or the reverse proxy must send another.

use std::net::IpAddr;

/// Returns whether nobody outside can have made this name point here. `listen` is the host of `http.listen`.
pub(super) fn is_ours(host: &str, listen: Option<&str>) -> bool {
    let name = without_port(host);
    let is_address = name.parse::<IpAddr>().is_ok();
    is_address || !name.contains('.') || listen.is_some_and(|own| own.eq_ignore_ascii_case(name))
}

/// Returns the name of a Host field, without the brackets of an IPv6 address.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_others_may_own_is_not_ours() {
        let cases = [
            ("127.0.0.1", true),
            ("127.0.0.1:9090", true),
            ("[::1]:9090", true),
            ("[::1]", true),
            ("localhost:9090", true),
            ("pgweir", true),
            ("PGWEIR.example.org:9090", true),
            ("pgweir.example.org", true),
            ("evil.example.org:9090", false),
            ("127.0.0.1.evil.example.org", false),
            ("1.2.3.4.5", false),
            ("evil.", false),
        ];
        for (host, expected) in cases {
            assert_eq!(
                is_ours(host, Some("pgweir.example.org")),
                expected,
                "{host}"
            );
        }
        assert!(!is_ours("pgweir.example.org", None));
    }
}
