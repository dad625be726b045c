//! Changes by SQL: the edits that they become, all or none.

use std::sync::Arc;

use pgweir_config::{Edit, Section};

use super::Talk;
use crate::control::Refusal;
use crate::testing::{Asked, Recorder};

fn set(section: Section, key: &str, value: Option<&str>) -> Edit {
    Edit::Set {
        section,
        key: key.to_owned(),
        value: value.map(str::to_owned),
    }
}

fn backend(name: &str) -> Section {
    Section::Backend("main".to_owned(), name.to_owned())
}

fn pairs(values: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = values
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}

async fn edits_of(sql: &str, done: &str) -> Vec<Edit> {
    let control = Arc::new(Recorder::default());
    let mut talk = Talk::as_user("admin", true, Arc::clone(&control)).await;
    let answer = talk.query(sql).await;
    assert!(
        answer.contains(&format!("Done {done}")),
        "{sql}: {answer:?}"
    );
    match control.done().as_slice() {
        [Asked::Change(edits)] => edits.clone(),
        [] => Vec::new(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_update_becomes_edits_of_what_is_another_than_before() {
    assert_eq!(
        edits_of(
            "UPDATE backends SET weight = 0 WHERE name = 'pg2'",
            "UPDATE 1"
        )
        .await,
        [set(backend("pg2"), "weight", Some("0"))]
    );
    assert_eq!(
        edits_of(
            "update backends b set weight = b.weight + 1, zone = null",
            "UPDATE 2"
        )
        .await,
        [
            set(backend("pg1"), "weight", Some("101")),
            set(backend("pg2"), "weight", Some("101")),
            set(backend("pg2"), "zone", None),
        ]
    );
    assert_eq!(
        edits_of("update backends set weight = weight", "UPDATE 2").await,
        []
    );
    assert_eq!(
        edits_of("update backends set weight = 3 where false", "UPDATE 0").await,
        []
    );
    assert_eq!(
        edits_of(
            "UPDATE settings SET value = '500ms' WHERE name = 'max_lag'",
            "UPDATE 1"
        )
        .await,
        [set(
            Section::Cluster("main".to_owned()),
            "max_lag",
            Some("500ms")
        )]
    );
    assert_eq!(
        edits_of(
            "update databases set pool_size = 9, splitting = 'off'",
            "UPDATE 1"
        )
        .await,
        [
            set(Section::Database("app".to_owned()), "pool_size", Some("9")),
            set(
                Section::Database("app".to_owned()),
                "splitting",
                Some("off")
            ),
        ]
    );
    assert_eq!(
        edits_of(
            "update users set password = 'new' where name = 'app'",
            "UPDATE 1"
        )
        .await,
        [set(
            Section::User("app".to_owned()),
            "password",
            Some("new")
        )]
    );
}

#[tokio::test]
async fn rules_are_changed_taken_out_and_added() {
    assert_eq!(
        edits_of(
            "update rules set user = 'x', max_lag = null, name = 'y' where position = 1",
            "UPDATE 1"
        )
        .await,
        [
            set(Section::Rule(1), "name", Some("y")),
            set(Section::RuleMatch(1), "user", Some("x")),
            set(Section::RuleAction(1), "max_lag", None),
        ]
    );
    assert_eq!(
        edits_of("delete from rules", "DELETE 2").await,
        [
            Edit::Delete {
                section: Section::Rule(2)
            },
            Edit::Delete {
                section: Section::Rule(1)
            },
        ]
    );
    assert_eq!(
        edits_of(
            "insert into rules (user, route) values ('a', 'primary'), ('b', 'replica')",
            "INSERT 0 2"
        )
        .await,
        [
            Edit::Insert {
                section: Section::Rule(3),
                values: pairs(&[("match.user", "a"), ("action.route", "primary")]),
            },
            Edit::Insert {
                section: Section::Rule(3),
                values: pairs(&[("match.user", "b"), ("action.route", "replica")]),
            },
        ]
    );
    assert_eq!(
        edits_of(
            "insert into rules (position, kind, block) values (1, 'ddl', 'no')",
            "INSERT 0 1"
        )
        .await,
        [Edit::Insert {
            section: Section::Rule(1),
            values: pairs(&[("match.kind", "ddl"), ("action.block", "no")]),
        }]
    );
}

#[tokio::test]
async fn users_come_and_go() {
    assert_eq!(
        edits_of(
            "insert into users (name, password) values ('new', 'secret')",
            "INSERT 0 1"
        )
        .await,
        [Edit::Insert {
            section: Section::User("new".to_owned()),
            values: pairs(&[("name", "new"), ("password", "secret")]),
        }]
    );
    assert_eq!(
        edits_of("delete from users where name = 'viewer'", "DELETE 1").await,
        [Edit::Delete {
            section: Section::User("viewer".to_owned())
        }]
    );
}

#[tokio::test]
async fn returning_returns_what_was_changed() {
    let mut talk = Talk::admin().await;
    let answer = talk
        .query("update backends set weight = 7 where name = 'pg2' returning name, weight")
        .await;
    assert_eq!(
        answer,
        [
            "Columns name:text weight:int4",
            "Row pg2|7",
            "Done UPDATE 1",
            "Ready idle"
        ]
    );
}

#[tokio::test]
async fn what_cannot_be_changed_is_named() {
    let control = Arc::new(Recorder::default());
    let mut talk = Talk::as_user("admin", true, Arc::clone(&control)).await;
    for (sql, state, words) in [
        (
            "update backends set host = 'x'",
            "0A000",
            "column \"host\" of \"backends\" cannot be changed",
        ),
        ("update backends set host = 'x'", "0A000", "weight, zone"),
        ("update settings set name = 'x'", "0A000", "\"name\""),
        (
            "update clients set state = 'x'",
            "0A000",
            "\"clients\" cannot be changed",
        ),
        (
            "delete from backends",
            "0A000",
            "neither added nor taken out",
        ),
        (
            "insert into backends (name) values ('x')",
            "0A000",
            "neither added nor taken out",
        ),
        (
            "insert into users (name, clients) values ('x', 5)",
            "0A000",
            "\"clients\"",
        ),
        (
            "insert into users (password) values ('x')",
            "23502",
            "\"name\"",
        ),
        (
            "insert into rules (position, block) values (9, 'x')",
            "22003",
            "from 1 to 3",
        ),
        (
            "update pg_catalog.pg_class set relname = 'x'",
            "0A000",
            "pg_class",
        ),
        ("update backends set wieght = 1", "42703", "weight"),
    ] {
        let error = talk.error(sql).await;
        assert!(
            error.contains(state) && error.contains(words),
            "{sql}: {error}"
        );
    }
    assert_eq!(control.done(), []);
}

#[tokio::test]
async fn a_change_behind_with_is_refused_also_where_only_sqlite_can_read_it() {
    let control = Arc::new(Recorder::default());
    let mut talk = Talk::as_user("admin", true, Arc::clone(&control)).await;
    for change in [
        "update backends set weight = 0",
        "update or ignore backends set weight = 0",
        "update backends set weight = 0 where name glob 'pg*'",
        "delete from rules where name glob '*'",
        "insert or ignore into rules (block) values ('no')",
        "replace into rules (block) values ('no')",
    ] {
        let error = talk.error(&format!("with w as (select 1) {change}")).await;
        assert!(error.contains("0A000"), "{change}: {error}");
    }
    assert_eq!(control.done(), []);
}

#[tokio::test]
async fn a_refusal_is_the_error_and_nothing_is_returned() {
    let control = Arc::new(Recorder {
        refuses: Some(Refusal {
            sqlstate: *b"22023",
            message: "max_lag: not a duration".to_owned(),
            detail: None,
            hint: Some("As in 5s.".to_owned()),
        }),
        ..Recorder::default()
    });
    let mut talk = Talk::as_user("admin", true, control).await;
    let answer = talk
        .query("update settings set value = 'soon' where name = 'max_lag' returning name")
        .await;
    assert_eq!(
        answer,
        [
            "Error 22023 pgweir: max_lag: not a duration As in 5s.",
            "Ready idle"
        ]
    );
}
