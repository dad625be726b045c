//! Whole exchanges: who gets in, who does not, and what the messages look like.

use pgweir_auth::{
    AuthError, ClientExchange, Credentials, Method, MockKey, Proof, Request, ScramVerifier, Secret,
    ServerExchange, ServerStep, Step, StoredPassword,
};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

const MOCK: [u8; 32] = [42; 32];

/// Returns an AuthenticationRequest as its code and payload, as the wire has it.
pub(crate) fn encoded(request: &Request) -> (i32, Vec<u8>) {
    match request {
        Request::CleartextPassword => (3, Vec::new()),
        Request::Md5 { salt } => (5, salt.to_vec()),
        Request::Sasl { mechanisms } => {
            let names = mechanisms
                .iter()
                .flat_map(|name| [name.as_bytes(), b"\0"].concat());
            (10, names.chain([0]).collect())
        }
        Request::SaslContinue(data) => (11, data.clone()),
        Request::SaslFinal(data) => (12, data.clone()),
    }
}

pub(crate) fn start(
    method: Method,
    user: &str,
    stored: Option<&StoredPassword>,
) -> (ClientExchange, Option<Request>) {
    ClientExchange::start(method, user, stored, &[7; 32], &MockKey::new(MOCK))
}

/// What a login ended as: the codes that the client saw, and the outcome on either side.
#[derive(Debug)]
struct Login {
    codes: Vec<i32>,
    result: Result<Proof, AuthError>,
    client: ServerExchange,
}

/// Runs one of our halves against the other.
fn login(method: Method, stored: Option<&StoredPassword>, credentials: Credentials) -> Login {
    let mut client = ServerExchange::new("app", credentials, &[9; 32]);
    let (mut server, mut request) = start(method, "app", stored);
    let mut codes = Vec::new();
    let result = loop {
        let Some(asked) = request else {
            break Ok(Proof::Nothing);
        };
        let (code, payload) = encoded(&asked);
        codes.push(code);
        let reply = match client.on_request(code, &payload) {
            Ok(ServerStep::Reply(reply)) => reply,
            Ok(other) => panic!("no reply to {asked:?}: {other:?}"),
            Err(error) => break Err(error),
        };
        match server.on_response(&reply) {
            Ok(Step::Continue(next, asked)) => (server, request) = (next, Some(asked)),
            Ok(Step::Done {
                final_request,
                proof,
            }) => {
                if let Some(last) = final_request {
                    let (code, payload) = encoded(&last);
                    codes.push(code);
                    assert_eq!(client.on_request(code, &payload), Ok(ServerStep::Wait));
                }
                assert_eq!(client.on_request(0, &[]), Ok(ServerStep::Done));
                break Ok(proof);
            }
            Err(error) => break Err(error),
        }
    };
    Login {
        codes,
        result,
        client,
    }
}

fn plain(password: &str) -> StoredPassword {
    StoredPassword::Plain(Secret::new(password))
}

fn scram(password: &str) -> StoredPassword {
    StoredPassword::Scram(ScramVerifier::derive(
        password.as_bytes(),
        b"0123456789abcdef",
        4096,
    ))
}

/// Returns what PostgreSQL stores for `app` with password `secret` under `password_encryption = md5`.
fn md5() -> StoredPassword {
    StoredPassword::parse("md56a422f785c9e20873908ce25d1736ae2")
}

fn with_password(password: &str) -> Credentials {
    Credentials::password(Secret::new(password))
}

#[test]
fn every_method_accepts_the_password_in_every_form_that_postgresql_accepts() {
    let cases: &[(Method, StoredPassword, &[i32])] = &[
        (Method::Password, plain("secret"), &[3]),
        (Method::Password, scram("secret"), &[3]),
        (Method::Password, md5(), &[3]),
        (Method::Md5, plain("secret"), &[5]),
        (Method::Md5, md5(), &[5]),
        (Method::Md5, scram("secret"), &[10, 11, 12]),
        (Method::ScramSha256, plain("secret"), &[10, 11, 12]),
        (Method::ScramSha256, scram("secret"), &[10, 11, 12]),
    ];
    for (method, stored, codes) in cases {
        let right = login(*method, Some(stored), with_password("secret"));
        assert!(
            right.result.is_ok(),
            "{method:?} {stored:?}: {:?}",
            right.result
        );
        assert_eq!(right.codes, *codes, "{method:?} {stored:?}");

        let wrong = login(*method, Some(stored), with_password("Secret"));
        assert!(
            matches!(wrong.result, Err(AuthError::Rejected)),
            "{method:?} {stored:?}: {:?}",
            wrong.result
        );
    }
}

#[test]
fn an_md5_hash_cannot_pass_scram() {
    let login = login(Method::ScramSha256, Some(&md5()), with_password("secret"));
    assert!(matches!(login.result, Err(AuthError::Rejected)));
    assert_eq!(login.codes, [10, 11]);
}

#[test]
fn trust_asks_nothing_and_takes_no_response() {
    let (exchange, request) = start(Method::Trust, "app", None);
    assert_eq!(request, None);
    assert!(matches!(
        exchange.on_response(b"secret\0"),
        Err(AuthError::OutOfOrder)
    ));
}

#[test]
fn an_unknown_user_sees_the_same_messages_as_one_with_a_wrong_password() {
    for method in [Method::Password, Method::Md5, Method::ScramSha256] {
        let known = login(method, Some(&plain("secret")), with_password("wrong"));
        let unknown = login(method, None, with_password("wrong"));
        assert_eq!(known.codes, unknown.codes, "{method:?}");
        assert!(
            matches!(unknown.result, Err(AuthError::Rejected)),
            "{method:?}: {:?}",
            unknown.result
        );
    }
}

/// Returns the server-first-message that a user is shown.
fn shown(user: &str, stored: Option<&StoredPassword>) -> String {
    let (exchange, _) = start(Method::ScramSha256, user, stored);
    let body = [b"SCRAM-SHA-256\0\0\0\0\x0c".as_slice(), b"n,,n=,r=abcd"].concat();
    match exchange.on_response(&body) {
        Ok(Step::Continue(_, Request::SaslContinue(data))) => {
            String::from_utf8(data).expect("SCRAM messages are ASCII")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_salt_of_an_unknown_user_is_that_of_a_known_one_and_never_changes() {
    assert_eq!(shown("app", None), shown("app", None));
    assert_eq!(shown("app", None), shown("app", Some(&plain("secret"))));
    assert_ne!(shown("app", None), shown("other", None));
}

#[test]
fn an_empty_password_never_counts() {
    let (exchange, _) = start(Method::Password, "app", Some(&plain("")));
    assert!(matches!(
        exchange.on_response(b"\0"),
        Err(AuthError::Rejected)
    ));
}

#[test]
fn postgres_protocols_client_logs_in_to_us() {
    for (binding, password, accepted) in [
        (ChannelBinding::unsupported(), "secret", true),
        (ChannelBinding::unrequested(), "secret", true),
        (ChannelBinding::unsupported(), "wrong", false),
    ] {
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let (exchange, _) = start(Method::ScramSha256, "app", Some(&scram("secret")));
        let length = u32::try_from(client.message().len()).unwrap();
        let initial = [
            b"SCRAM-SHA-256\0".as_slice(),
            &length.to_be_bytes(),
            client.message(),
        ]
        .concat();
        let Ok(Step::Continue(exchange, Request::SaslContinue(data))) =
            exchange.on_response(&initial)
        else {
            panic!("no server-first-message");
        };
        client.update(&data).unwrap();
        match exchange.on_response(client.message()) {
            Ok(Step::Done {
                final_request: Some(Request::SaslFinal(data)),
                ..
            }) => {
                assert!(accepted);
                client.finish(&data).expect("our signature is right");
            }
            other => assert!(
                !accepted && matches!(other, Err(AuthError::Rejected)),
                "{other:?}"
            ),
        }
    }
}

#[test]
fn a_client_that_waits_for_a_challenge_gets_an_empty_one() {
    let (exchange, _) = start(Method::ScramSha256, "app", Some(&scram("secret")));
    let Ok(Step::Continue(exchange, request)) =
        exchange.on_response(b"SCRAM-SHA-256\0\xFF\xFF\xFF\xFF")
    else {
        panic!("refused");
    };
    assert_eq!(request, Request::SaslContinue(Vec::new()));
    assert!(matches!(
        exchange.on_response(b"n,,n=,r=abcd"),
        Ok(Step::Continue(..))
    ));
}

#[test]
fn the_keys_of_a_client_log_in_to_a_server_with_the_same_verifier() {
    let stored = scram("secret");
    let Ok(Proof::Scram(keys)) =
        login(Method::ScramSha256, Some(&stored), with_password("secret")).result
    else {
        panic!("no keys");
    };
    let keys = Credentials::default().with_keys(Some(keys));
    assert!(
        login(Method::ScramSha256, Some(&stored), keys.clone())
            .result
            .is_ok()
    );
    // A server with another salt cannot be answered by keys alone.
    let other = StoredPassword::Scram(ScramVerifier::derive(b"secret", b"another salt", 4096));
    let refused = login(Method::ScramSha256, Some(&other), keys);
    assert!(
        matches!(refused.result, Err(AuthError::Credentials { code: 11 })),
        "{:?}",
        refused.result
    );
}

#[test]
fn keys_are_derived_once_per_salt() {
    let first = b"r=CQkJCQkJCQkJCQkJCQkJCQkJCQkJxyz,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096";
    let stored = scram("secret");
    let cold = ServerExchange::new("app", with_password("secret"), &[9; 32]);
    assert!(cold.is_slow(11, first));
    let done = login(Method::ScramSha256, Some(&stored), with_password("secret"));
    let warm = ServerExchange::new(
        "app",
        with_password("secret").with_keys(done.client.keys().cloned()),
        &[9; 32],
    );
    assert!(!warm.is_slow(11, first));
    assert!(warm.is_slow(11, b"r=CQkJCQkJCQkJCQkJCQkJCQkJCQkJxyz,s=AAAA,i=4096"));
    assert!(!warm.is_slow(10, b"SCRAM-SHA-256\0\0"));
}

#[test]
fn stored_forms_answer_what_they_can() {
    let md5_only = Credentials::from_stored(&md5());
    assert!(
        login(Method::Md5, Some(&plain("secret")), md5_only.clone())
            .result
            .is_ok()
    );
    let refused = login(Method::ScramSha256, Some(&plain("secret")), md5_only);
    assert!(matches!(
        refused.result,
        Err(AuthError::Credentials { code: 10 })
    ));
    let nothing = Credentials::from_stored(&scram("secret"));
    let refused = login(Method::Password, Some(&plain("secret")), nothing);
    assert!(matches!(
        refused.result,
        Err(AuthError::Credentials { code: 3 })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_halves_agree_whatever_the_password(
        password in "[^\0]{1,40}", other in "[^\0]{1,40}", iterations in 1..40_u32,
        salt in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let verifier = ScramVerifier::derive(password.as_bytes(), &salt, iterations);
        let parsed = StoredPassword::parse(&verifier.to_text());
        prop_assert!(login(Method::ScramSha256, Some(&parsed), with_password(&password)).result.is_ok());
        prop_assert!(login(Method::Password, Some(&parsed), with_password(&password)).result.is_ok());
        prop_assert!(login(Method::Md5, Some(&plain(&password)), with_password(&password)).result.is_ok());
        if password.is_ascii() && other.is_ascii() && password != other {
            prop_assert!(login(Method::ScramSha256, Some(&parsed), with_password(&other)).result.is_err());
        }
    }
}
