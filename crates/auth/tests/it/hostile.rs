//! Peers that lie, cut short, or speak out of turn: they are refused, and nothing panics.

use pgweir_auth::{
    AuthError, ClientExchange, Credentials, Method, Request, ScramKeys, ScramVerifier, Secret,
    ServerExchange, ServerStep, Step, StoredPassword,
};
use proptest::prelude::*;

use crate::exchange::{encoded, start};

fn stored() -> StoredPassword {
    StoredPassword::Scram(ScramVerifier::derive(b"secret", b"salt", 1))
}

fn us_as_client() -> ServerExchange {
    ServerExchange::new(
        "app",
        Credentials::password(Secret::new("secret")),
        &[9; 32],
    )
}

fn reply(exchange: &mut ServerExchange, request: &Request) -> Vec<u8> {
    let (code, payload) = encoded(request);
    match exchange.on_request(code, &payload) {
        Ok(ServerStep::Reply(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

/// Runs SCRAM up to where the client has made its final message.
fn up_to_client_final() -> (ClientExchange, ServerExchange, Vec<u8>) {
    let mut client = us_as_client();
    let (server, request) = start(Method::ScramSha256, "app", Some(&stored()));
    let initial = reply(&mut client, &request.expect("SCRAM asks"));
    let Ok(Step::Continue(server, request)) = server.on_response(&initial) else {
        panic!("refused");
    };
    let last = reply(&mut client, &request);
    (server, client, last)
}

#[test]
fn any_byte_of_the_final_message_changed_is_refused() {
    let (_, _, good) = up_to_client_final();
    for index in 0..good.len() {
        let (server, _, mut tampered) = up_to_client_final();
        tampered[index] ^= 1;
        let result = server.on_response(&tampered);
        assert!(
            result.is_err(),
            "byte {index} of {:?}: {result:?}",
            String::from_utf8_lossy(&good)
        );
    }
}

#[test]
fn tampering_is_named_for_what_it_is() {
    let tampered = |from: &str, to: &str| {
        let (server, _, message) = up_to_client_final();
        let message = String::from_utf8(message).unwrap();
        assert!(message.contains(from), "{message}");
        server
            .on_response(message.replacen(from, to, 1).as_bytes())
            .unwrap_err()
    };
    assert_eq!(tampered("c=biws", "c=eSws"), AuthError::ChannelBinding);
    assert_eq!(
        tampered("r=C", "r=D"),
        AuthError::Malformed {
            message: "client-final-message",
            what: "nonce"
        }
    );
    assert_eq!(
        tampered(",p=", ",x=1,p="),
        AuthError::Rejected,
        "an extension is part of what is signed"
    );
}

#[test]
fn channel_binding_is_refused() {
    let (server, _) = start(Method::ScramSha256, "app", Some(&stored()));
    let data = b"p=tls-server-end-point,,n=,r=abcd";
    let body = [b"SCRAM-SHA-256\0\0\0\0\x21".as_slice(), data].concat();
    assert!(matches!(
        server.on_response(&body),
        Err(AuthError::ChannelBinding)
    ));
    let (server, _) = start(Method::ScramSha256, "app", Some(&stored()));
    assert!(matches!(
        server.on_response(b"SCRAM-SHA-256-PLUS\0\0\0\0\0"),
        Err(AuthError::Mechanism)
    ));
}

#[test]
fn a_server_that_skips_its_proof_is_refused() {
    let (_, mut client, _) = up_to_client_final();
    assert_eq!(client.on_request(0, &[]), Err(AuthError::ServerSignature));
    assert_eq!(
        client.on_request(0, &[]),
        Err(AuthError::OutOfOrder),
        "an error ends the exchange"
    );

    let mut early = us_as_client();
    early.on_request(10, b"SCRAM-SHA-256\0\0").unwrap();
    assert_eq!(early.on_request(0, &[]), Err(AuthError::ServerSignature));
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    let (_, mut client, _) = up_to_client_final();
    let impostor = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(
        client.on_request(12, impostor),
        Err(AuthError::ServerSignature)
    );
}

#[test]
fn a_server_first_message_that_does_not_carry_on_our_nonce_is_refused() {
    // 18 bytes of 9, as `us_as_client` has them.
    let ours = "CQkJCQkJCQkJCQkJCQkJCQkJ";
    for (nonce, iterations) in [
        ("other", 1),
        (ours, 1),
        (&format!("{ours}x"), 1_000_001),
        ("", 1),
    ] {
        let mut client = us_as_client();
        client.on_request(10, b"SCRAM-SHA-256\0\0").unwrap();
        let message = format!("r={nonce},s=c2FsdA==,i={iterations}");
        let result = client.on_request(11, message.as_bytes());
        assert!(
            matches!(result, Err(AuthError::Malformed { .. })),
            "{message}: {result:?}"
        );
    }
}

#[test]
fn requests_out_of_turn_or_unknown_are_refused() {
    for code in [11, 12] {
        assert_eq!(
            us_as_client().on_request(code, b""),
            Err(AuthError::OutOfOrder)
        );
    }
    for code in [2, 6, 7, 8, 9, 13, -1, i32::MIN] {
        assert_eq!(
            us_as_client().on_request(code, b""),
            Err(AuthError::Unsupported { code })
        );
    }
    let mut asked_twice = us_as_client();
    asked_twice.on_request(3, b"").unwrap();
    assert_eq!(
        asked_twice.on_request(5, &[0; 4]),
        Err(AuthError::OutOfOrder)
    );
    assert_eq!(
        us_as_client().on_request(10, b"SCRAM-SHA-256-PLUS\0\0"),
        Err(AuthError::Mechanism)
    );
    assert_eq!(
        us_as_client().on_request(10, b"\0"),
        Err(malformed("AuthenticationSASL", "list of mechanisms"))
    );
    assert_eq!(
        us_as_client().on_request(5, b"123"),
        Err(malformed("AuthenticationMD5Password", "salt"))
    );
}

fn malformed(message: &'static str, what: &'static str) -> AuthError {
    AuthError::Malformed { message, what }
}

#[test]
fn every_prefix_of_every_response_is_refused() {
    let mut client = us_as_client();
    let (_, request) = start(Method::ScramSha256, "app", Some(&stored()));
    let initial = reply(&mut client, &request.unwrap());
    for end in 0..initial.len() {
        let (server, _) = start(Method::ScramSha256, "app", Some(&stored()));
        assert!(server.on_response(&initial[..end]).is_err(), "{end}");
    }
    let (_, _, last) = up_to_client_final();
    for end in 0..last.len() {
        let (server, _, last) = up_to_client_final();
        assert!(server.on_response(&last[..end]).is_err(), "{end}");
    }
    for method in [Method::Password, Method::Md5] {
        let (server, _) = start(method, "app", Some(&StoredPassword::parse("secret")));
        assert!(server.on_response(b"secret").is_err(), "no zero byte");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_either_half_panic(
        method in 0..3_usize, body in proptest::collection::vec(any::<u8>(), 0..200), text in "[nyp,=acrmisve]{0,60}",
        code in 0..14_i32,
    ) {
        let method = [Method::Password, Method::Md5, Method::ScramSha256][method];
        for body in [body.as_slice(), text.as_bytes()] {
            let (server, _) = start(method, "app", Some(&stored()));
            prop_assert!(server.on_response(body).is_err());
            let (server, _, _) = up_to_client_final();
            prop_assert!(server.on_response(body).is_err());
            let _ = us_as_client().on_request(code, body);
            let (_, mut client, _) = up_to_client_final();
            prop_assert!(client.on_request(code, body).is_err());
            let mut client = us_as_client();
            client.on_request(10, b"SCRAM-SHA-256\0\0").unwrap();
            prop_assert!(client.on_request(code, body).is_err());
        }
        let framed = [b"SCRAM-SHA-256\0".as_slice(), &u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
        let (server, _) = start(method, "app", Some(&stored()));
        let _ = server.on_response(&framed);
    }

    #[test]
    fn no_text_makes_the_reader_of_verifiers_panic(text in "(SCRAM-SHA-256\\$)?[0-9]{0,5}:?[A-Za-z=]{0,20}\\$?[A-Za-z=]{0,44}:?[A-Za-z=]{0,44}") {
        let _ = StoredPassword::parse(&text);
    }

    #[test]
    fn keys_fit_only_their_own_salt(salt in proptest::collection::vec(any::<u8>(), 0..20), other in proptest::collection::vec(any::<u8>(), 0..20)) {
        prop_assert_eq!(ScramKeys::derive(b"x", &salt, 1).fit(&other, 1), salt == other);
    }
}
