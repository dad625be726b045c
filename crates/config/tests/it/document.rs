//! The configuration as something that is changed and saved: what a change makes of files of every form.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use pgweir_config::reference::{Kind, SETTINGS, Table, default_text};
use pgweir_config::{
    Document, Edit, EditError, FileError, ListenAddress, Origin, Overrides, Section, SettingRow,
    SettingSource, from_upstreams, parse,
};
use proptest::prelude::*;
use tempfile::TempDir;

/// A file with a text, and the document that it is.
struct Case {
    _folder: TempDir,
    path: PathBuf,
    document: Document,
}

impl Case {
    fn of(text: &str) -> Case {
        Case::with(text, Overrides::default())
    }

    fn with(text: &str, overrides: Overrides) -> Case {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pgweir.toml");
        fs::write(&path, text).expect("written");
        let document = Document::load(Origin::File(path.clone()), overrides)
            .unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        Case {
            _folder: folder,
            path,
            document,
        }
    }

    fn on_disk(&self) -> String {
        fs::read_to_string(&self.path).expect("a text")
    }
}

fn set(section: Section, key: &str, value: &str) -> Edit {
    Edit::Set {
        section,
        key: key.to_owned(),
        value: Some(value.to_owned()),
    }
}

fn unset(section: Section, key: &str) -> Edit {
    Edit::Set {
        section,
        key: key.to_owned(),
        value: None,
    }
}

fn insert(section: Section, values: &[(&str, &str)]) -> Edit {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Edit::Insert {
        section,
        values: values.iter().map(own).collect(),
    }
}

fn server() -> Section {
    Section::Single(Table::Server)
}

fn cluster() -> Section {
    Section::Cluster("main".to_owned())
}

fn breaker() -> Section {
    Section::Breaker("main".to_owned())
}

fn backend(name: &str) -> Section {
    Section::Backend("main".to_owned(), name.to_owned())
}

fn database(name: &str) -> Section {
    Section::Database(name.to_owned())
}

fn user(name: &str) -> Section {
    Section::User(name.to_owned())
}

#[track_caller]
fn check(before: &str, edits: &[Edit], after: &str) {
    let case = Case::of(before);
    let edited = match case.document.edited(edits) {
        Ok(edited) => edited,
        Err(error) => panic!("{error}\n{before}\n{edits:?}"),
    };
    assert_eq!(edited.text(), after, "{edits:?}");
    assert_eq!(case.document.text(), before, "the old one stays");
    // And back by the way of a file.
    let again = Case::of(after);
    assert_eq!(again.document.config(), edited.config());
}

/// What a file needs besides what a case is about, in lines that no case touches.
const TRUST: &str = "auth.method = 'trust'\n";
const BACKENDS: &str = "[clusters.main]\nbackends = [{ host = 'pg1' }]\n";

fn with(text: &str) -> String {
    format!("{TRUST}{BACKENDS}{text}")
}

#[test]
fn a_value_is_replaced_where_it_stands() {
    for (before, edit, after) in [
        (
            "[server]\n# Many.\nmax_clients   =  5  # or so\nworkers = 1\n",
            set(server(), "max_clients", "20"),
            "[server]\n# Many.\nmax_clients   =  20  # or so\nworkers = 1\n",
        ),
        (
            "[server]\nlisten = [\n  'a:1', # one\n]\n# end",
            set(server(), "listen", "b:2, [::1]:3"),
            "[server]\nlisten = [\"b:2\", \"[::1]:3\"]\n# end",
        ),
        (
            "[server]\nconnect_timeout = '5s'\r\n# dos\r\n",
            set(server(), "connect_timeout", "500ms"),
            "[server]\nconnect_timeout = '500ms'\r\n# dos\r\n",
        ),
        (
            "[databases.\"a b\"]\nsplitting = \"off\"\n",
            set(database("a b"), "splitting", "on"),
            "[databases.\"a b\"]\nsplitting = \"on\"\n",
        ),
    ] {
        check(&with(before), &[edit], &with(after));
    }
    let whole = |text: &str| format!("{TRUST}{text}");
    for (before, edit, after) in [
        (
            "server.max_clients = 5 # dotted\nclusters.main.backends = [{ host = 'a', weight = 1 }]\n",
            set(server(), "max_clients", "6"),
            "server.max_clients = 6 # dotted\nclusters.main.backends = [{ host = 'a', weight = 1 }]\n",
        ),
        (
            "clusters.main.backends = [{ host = 'a', weight = 1 }, { host = 'b', port = 7, weight = 1 }] # both\n",
            set(backend("b:7"), "weight", "0"),
            "clusters.main.backends = [{ host = 'a', weight = 1 }, { host = 'b', port = 7, weight = 0 }] # both\n",
        ),
        (
            "[[clusters.main.backends]]\nhost = 'a'\n[[clusters.main.backends]]\nname = 'b'\nhost = 'c'\nweight = 3",
            set(backend("b"), "weight", "0"),
            "[[clusters.main.backends]]\nhost = 'a'\n[[clusters.main.backends]]\nname = 'b'\nhost = 'c'\nweight = 0",
        ),
        (
            "clusters = { main = { backends = [{ host = 'a' }], breaker = { failures = 3 } } }\n",
            set(breaker(), "failures", "4"),
            "clusters = { main = { backends = [{ host = 'a' }], breaker = { failures = 4 } } }\n",
        ),
    ] {
        check(&whole(before), &[edit], &whole(after));
    }
}

#[test]
fn a_setting_that_is_not_given_yet_is_put_where_its_table_is() {
    for (before, edit, after) in [
        (
            "[server]\nworkers = 1 # few\n# max_clients = 5\n\n[http]\nlisten = 'off'\n",
            set(server(), "max_clients", "20"),
            "[server]\nworkers = 1 # few\nmax_clients = 20\n# max_clients = 5\n\n[http]\nlisten = 'off'\n",
        ),
        (
            "[server]\n  workers = 1",
            set(server(), "max_clients", "20"),
            "[server]\n  workers = 1\n  max_clients = 20\n",
        ),
        (
            "[server] # empty\n[http]\n",
            set(server(), "zone", "a"),
            "[server] # empty\nzone = \"a\"\n[http]\n",
        ),
        (
            "[http]\n# The end.\n",
            set(server(), "zone", "a"),
            "[http]\n# The end.\n\n[server]\nzone = \"a\"\n",
        ),
        (
            "[http]",
            set(database("*"), "pool_size", "5"),
            "[http]\n\n[databases.\"*\"]\npool_size = 5\n",
        ),
        (
            "max_lag = '1s'\n# balance = 'random'\n\n# Here.\n[http]\n",
            set(breaker(), "failures", "7"),
            "max_lag = '1s'\n# balance = 'random'\n\n[clusters.main.breaker]\nfailures = 7\n\n# Here.\n[http]\n",
        ),
        (
            "[server]\r\nworkers = 1\r\n",
            set(server(), "zone", "a"),
            "[server]\r\nworkers = 1\r\nzone = \"a\"\n",
        ),
        (
            "[databases.app]\n",
            set(database("app"), "primary_only_functions", "f, app.g"),
            "[databases.app]\nprimary_only_functions = [\"f\", \"app.g\"]\n",
        ),
        (
            "[[rules]]\nmatch = {}\naction.route = 'primary'\n",
            set(Section::RuleMatch(1), "user", "app"),
            "[[rules]]\nmatch = { user = \"app\" }\naction.route = 'primary'\n",
        ),
        (
            "[[rules]]\nmatch = {}\naction.route = 'primary'\n",
            set(Section::RuleAction(1), "max_lag", "3s"),
            "[[rules]]\nmatch = {}\naction.route = 'primary'\naction.max_lag = \"3s\"\n",
        ),
        (
            "[[rules]]\n[rules.match]\n# all\n[rules.action]\nroute = 'primary'\n",
            set(Section::RuleMatch(1), "kind", "select"),
            "[[rules]]\n[rules.match]\nkind = \"select\"\n# all\n[rules.action]\nroute = 'primary'\n",
        ),
        (
            "[[rules]]\nmatch = {}\naction.route = 'primary'\n",
            set(Section::Rule(1), "name", "one"),
            "[[rules]]\nmatch = {}\naction.route = 'primary'\nname = \"one\"\n",
        ),
    ] {
        check(&with(before), &[edit], &with(after));
    }
}

#[test]
fn tables_of_every_form_take_another_setting() {
    let whole = |text: &str| format!("{TRUST}{text}");
    for (before, edit, after) in [
        (
            "server.workers = 1\nclusters.main.backends = [{ host = 'a' }]\n",
            set(server(), "max_clients", "6"),
            "server.workers = 1\nserver.max_clients = 6\nclusters.main.backends = [{ host = 'a' }]\n",
        ),
        (
            "server = { workers = 1 }\nclusters.main.backends = [{ host = 'a' }]\n",
            set(server(), "max_clients", "6"),
            "server = { workers = 1, max_clients = 6 }\nclusters.main.backends = [{ host = 'a' }]\n",
        ),
        (
            "clusters.main.backends = [{ host = 'a' }]\n",
            set(cluster(), "lag_poll", "1s"),
            "clusters.main.backends = [{ host = 'a' }]\nclusters.main.lag_poll = \"1s\"\n",
        ),
        (
            "clusters.main.backends = [{ host = 'a' }]\n",
            set(breaker(), "failures", "2"),
            "clusters.main.backends = [{ host = 'a' }]\n\n[clusters.main.breaker]\nfailures = 2\n",
        ),
        (
            "clusters.main.breaker.failures = 2\nclusters.main.backends = [{ host = 'a' }]\n",
            set(breaker(), "open_for", "2s"),
            "clusters.main.breaker.failures = 2\nclusters.main.breaker.open_for = \"2s\"\nclusters.main.backends = [{ host = 'a' }]\n",
        ),
        (
            "clusters = { main = { backends = [{ host = 'a' }] } }\n",
            set(breaker(), "failures", "2"),
            "clusters = { main = { backends = [{ host = 'a' }], breaker = { failures = 2 } } }\n",
        ),
        (
            "clusters = { main = { backends = [{ host = 'a' }], breaker.failures = 2 } }\n",
            set(breaker(), "open_for", "2s"),
            "clusters = { main = { backends = [{ host = 'a' }], breaker.failures = 2, breaker.open_for = \"2s\" } }\n",
        ),
        (
            "[[clusters.main.backends]]\nhost = 'a' # the first\n\n[http]\n",
            set(backend("a:5432"), "weight", "0"),
            "[[clusters.main.backends]]\nhost = 'a' # the first\nweight = 0\n\n[http]\n",
        ),
        (
            "[[clusters.main.backends]]\nhost = 'a'\n",
            set(cluster(), "lag_poll", "1s"),
            "[[clusters.main.backends]]\nhost = 'a'\n\n[clusters.main]\nlag_poll = \"1s\"\n",
        ),
        (
            "clusters.main.backends = [\n  { host = 'a' }, # the first\n  { host = 'b' },\n]\n",
            set(backend("a:5432"), "weight", "0"),
            "clusters.main.backends = [\n  { host = 'a', weight = 0 }, # the first\n  { host = 'b' },\n]\n",
        ),
        (
            "clusters.main.backends = [{ host = 'a' }]\nrules = [{ match = {}, action.route = 'auto' }]\n",
            set(Section::RuleAction(1), "timeout", "1s"),
            "clusters.main.backends = [{ host = 'a' }]\nrules = [{ match = {}, action.route = 'auto', action.timeout = \"1s\" }]\n",
        ),
    ] {
        check(&whole(before), &[edit], &whole(after));
    }
}

#[test]
fn a_setting_that_is_taken_out_leaves_the_lines_around_it() {
    for (before, edit, after) in [
        (
            "[server]\n# Many.\nmax_clients = 5\n# Few.\nworkers = 1\n",
            unset(server(), "max_clients"),
            "[server]\n# Many.\n# Few.\nworkers = 1\n",
        ),
        (
            "[server]\nlisten = [\n  'a:1',\n]\nworkers = 1",
            unset(server(), "listen"),
            "[server]\nworkers = 1",
        ),
        (
            "[server]\nworkers = 1",
            unset(server(), "workers"),
            "[server]\n",
        ),
        ("[server]\n", unset(server(), "workers"), "[server]\n"),
        ("", unset(server(), "workers"), ""),
        (
            "[[rules]]\nmatch = { user = 'a', kind = 'select' , database = 'x' }\naction.route = 'auto'\n",
            unset(Section::RuleMatch(1), "kind"),
            "[[rules]]\nmatch = { user = 'a' , database = 'x' }\naction.route = 'auto'\n",
        ),
        (
            "[[rules]]\nmatch = { user = 'a', kind = 'select' }\naction.route = 'auto'\n",
            unset(Section::RuleMatch(1), "user"),
            "[[rules]]\nmatch = { kind = 'select' }\naction.route = 'auto'\n",
        ),
        (
            "[[rules]]\nmatch = { user = 'a' }\naction.route = 'auto'\n",
            unset(Section::RuleMatch(1), "user"),
            "[[rules]]\nmatch = {}\naction.route = 'auto'\n",
        ),
        (
            "[[rules]]\nmatch.user = 'a'\nmatch.kind = 'select'\naction.route = 'auto'\n",
            unset(Section::RuleMatch(1), "user"),
            "[[rules]]\nmatch.kind = 'select'\naction.route = 'auto'\n",
        ),
    ] {
        check(&with(before), &[edit], &with(after));
    }
}

#[test]
fn users_and_rules_come_and_go() {
    let fresh = || insert(user("new"), &[("name", "new"), ("password", "a'b\"c")]);
    let rule = |number| {
        insert(
            Section::Rule(number),
            &[
                ("name", "slow"),
                ("match.user", "a"),
                ("action.timeout", "5s"),
                ("action.route", "replica"),
            ],
        )
    };
    let slow = "[[rules]]\nname = \"slow\"\nmatch = { user = \"a\" }\naction = { timeout = \"5s\", route = \"replica\" }\n";
    for (before, edit, after) in [
        (
            "[http]\n".to_owned(),
            fresh(),
            "[http]\n\n[[users]]\nname = \"new\"\npassword = \"\"\"a'b\"c\"\"\"\n".to_owned(),
        ),
        (
            "# The logins.\n[[users]]\nname = 'a'\n\n[[users]]\nname = 'b'\n# password = 'x'\n\n# Web.\n[http]\n".to_owned(),
            fresh(),
            "# The logins.\n[[users]]\nname = 'a'\n\n[[users]]\nname = 'b'\n# password = 'x'\n\n[[users]]\nname = \"new\"\npassword = \"\"\"a'b\"c\"\"\"\n\n# Web.\n[http]\n".to_owned(),
        ),
        (
            "# The first.\n[[users]]\nname = 'a'\n\n# The second.\n[[users]]\nname = 'b'\n\n# Web.\n[http]\n".to_owned(),
            Edit::Delete { section: user("b") },
            "# The first.\n[[users]]\nname = 'a'\n\n# Web.\n[http]\n".to_owned(),
        ),
        (
            "# All logins.\n\n# The first.\n[[users]]\nname = 'a'\n[[users]]\nname = 'b'\n".to_owned(),
            Edit::Delete { section: user("a") },
            "# All logins.\n\n[[users]]\nname = 'b'\n".to_owned(),
        ),
        (
            "[[users]]\nname = 'a'".to_owned(),
            rule(usize::MAX),
            format!("[[users]]\nname = 'a'\n\n{slow}"),
        ),
        (
            "[[users]]\nname = 'a'\n# One.\n[[rules]]\n[rules.match]\n[rules.action]\nroute = 'auto'\n# rest\n".to_owned(),
            rule(1),
            format!("[[users]]\nname = 'a'\n{slow}\n# One.\n[[rules]]\n[rules.match]\n[rules.action]\nroute = 'auto'\n# rest\n"),
        ),
        (
            "[[users]]\nname = 'a'\n[[rules]]\n[rules.match]\n[http]\n[rules.action]\nroute = 'auto'\n[log]\n".to_owned(),
            Edit::Delete { section: Section::Rule(1) },
            "[[users]]\nname = 'a'\n[http]\n[log]\n".to_owned(),
        ),
    ] {
        check(&with(&before), &[edit], &with(&after));
    }
}

#[test]
fn users_and_rules_within_a_list_come_and_go() {
    let top = |users: &str| format!("users = {users}\n{TRUST}{BACKENDS}");
    let fresh = || insert(user("new"), &[("password", "x")]);
    let delete = |name: &str| Edit::Delete {
        section: user(name),
    };
    for (before, edit, after) in [
        ("[]", fresh(), r#"[{ name = "new", password = "x" }]"#),
        (
            "[{ name = 'a' }]",
            fresh(),
            r#"[{ name = 'a' }, { name = "new", password = "x" }]"#,
        ),
        (
            "[\n  { name = 'a' }, # one\n]",
            fresh(),
            "[\n  { name = 'a' }, # one\n  { name = \"new\", password = \"x\" },\n]",
        ),
        (
            "[\n  { name = 'a' } # one\n]",
            fresh(),
            "[\n  { name = 'a' }, # one\n  { name = \"new\", password = \"x\" }\n]",
        ),
        (
            "[\n  { name = 'a' }, # one\n  # Two.\n  { name = 'b' }, # two\n  { name = 'c' }\n]",
            delete("b"),
            "[\n  { name = 'a' }, # one\n  { name = 'c' }\n]",
        ),
        (
            "[{ name = 'a' }, { name = 'b' }, { name = 'c' }]",
            delete("a"),
            "[{ name = 'b' }, { name = 'c' }]",
        ),
        (
            "[ { name = 'a' }, { name = 'b' }, { name = 'c' } ]",
            delete("b"),
            "[ { name = 'a' }, { name = 'c' } ]",
        ),
        ("[{ name = 'a' }]", delete("a"), "[]"),
    ] {
        check(&top(before), &[edit], &top(after));
    }
    let rules = |rules: &str| format!("rules = [{rules}]\n{TRUST}{BACKENDS}");
    check(
        &rules("{ match = {}, action.route = 'auto' }"),
        &[insert(Section::Rule(1), &[("action.block", "no")])],
        &rules(
            "{ match = {}, action = { block = \"no\" } }, { match = {}, action.route = 'auto' }",
        ),
    );
}

#[test]
fn several_changes_are_one_and_mean_the_configuration_before_them() {
    let users = "[[users]]\nname = 'a'\n[[users]]\nname = 'b'\n[[users]]\nname = 'c'\n";
    check(
        &with(users),
        &[
            Edit::Delete { section: user("a") },
            set(user("b"), "name", "c"),
            set(user("c"), "name", "b"),
            set(user("c"), "server_user", "x"),
            insert(user("a"), &[("server_user", "y")]),
        ],
        &with(
            "[[users]]\nname = 'c'\n[[users]]\nname = 'b'\nserver_user = \"x\"\n\n[[users]]\nname = \"a\"\nserver_user = \"y\"\n",
        ),
    );
    let rules = |numbers: &[u32]| -> String {
        let one = |number| {
            format!("[[rules]]\nname = 'r{number}'\nmatch = {{}}\naction.route = 'auto'\n")
        };
        numbers.iter().map(one).collect()
    };
    check(
        &with(&rules(&[1, 2, 3, 4])),
        &[1, 3].map(|number| Edit::Delete {
            section: Section::Rule(number),
        }),
        &with(&rules(&[2, 4])),
    );
}

#[test]
fn a_password_takes_the_place_of_its_file_and_the_other_way_round() {
    let users = "[[users]]\nname = 'a'\npassword = 'x'\n";
    let case = Case::of(&with(users));
    fs::write(case.path.with_file_name("secret"), "filed").unwrap();
    let edited = case
        .document
        .edited(&[set(user("a"), "password_file", "secret")])
        .unwrap();
    let expected = with("[[users]]\nname = 'a'\npassword_file = \"secret\"\n");
    assert_eq!(edited.text(), expected);
    let password = edited.config().users[0].password.as_ref().unwrap();
    assert_eq!(password.expose(), "filed");
    let back = edited.edited(&[set(user("a"), "password", "y")]).unwrap();
    assert_eq!(
        back.text(),
        with("[[users]]\nname = 'a'\npassword = \"y\"\n")
    );
    // Both together are refused as they are in the file.
    let both = [
        set(user("a"), "password", "y"),
        set(user("a"), "password_file", "secret"),
    ];
    let error = case.document.edited(&both).unwrap_err().to_string();
    assert_eq!(
        error,
        "[[users]] password: given together with password_file; keep one"
    );
}

#[test]
fn a_user_without_a_password_has_none_in_a_file_either() {
    let users = "[[users]]\nname = 'a'\npassword_file = 'secret'\n";
    let case = Case::of(&with(""));
    fs::write(case.path.with_file_name("secret"), "filed").unwrap();
    fs::write(&case.path, with(users)).unwrap();
    let document = case.document.reread().unwrap();
    assert!(document.config().users[0].password.is_some());
    let edit = Edit::Set {
        section: user("a"),
        key: "password".to_owned(),
        value: None,
    };
    let edited = document.edited(&[edit]).unwrap();
    assert_eq!(edited.config().users[0].password, None);
    assert_eq!(edited.text(), with("[[users]]\nname = 'a'\n"));
}

#[test]
fn many_changes_at_once_come_out_as_one_after_the_other() {
    let rule = |number: usize| {
        format!(
            "# of {number}\n[[rules]]\nname = 'r{number}' # mine\nmatch = {{}}\n[rules.action]\nroute = 'primary'\n\n"
        )
    };
    let text: String = (1..=12).map(rule).collect();
    let case = Case::of(&with(&text));
    let renamed = |number| {
        set(
            Section::Rule(number),
            "name",
            &format!("a longer name {number}"),
        )
    };
    let deleted = |number| Edit::Delete {
        section: Section::Rule(number),
    };
    // From the last on, so that the numbers of the others hold.
    let sets: Vec<_> = (1..=12).rev().map(renamed).collect();
    let deletes: Vec<_> = [12, 11, 8, 4, 3, 1].into_iter().map(deleted).collect();
    let edits = [sets, deletes].concat();
    let at_once = case.document.edited(&edits).unwrap();
    let mut in_turn = case.document.clone();
    for edit in &edits {
        in_turn = in_turn.edited(std::slice::from_ref(edit)).unwrap();
    }
    assert_eq!(at_once.text(), in_turn.text());
    let names = at_once.config().rules.iter().map(|rule| &*rule.name);
    let left = [2, 5, 6, 7, 9, 10].map(|number| format!("a longer name {number}"));
    assert_eq!(names.collect::<Vec<_>>(), left);
    // Of two values for one setting the last holds.
    let twice = [set(Section::Rule(1), "name", "b"), renamed(1)];
    let edited = case.document.edited(&twice).unwrap();
    assert_eq!(&*edited.config().rules[0].name, "a longer name 1");
}

/// Makes changes that are refused, and compares what is said.
#[track_caller]
fn check_refusals(cases: &[(&[Edit], &str, Option<&str>)]) {
    let text = format!(
        "{BACKENDS}[databases.app]\npool_size = 5\n[[users]]\nname = 'app'\npassword = 'x'\n"
    );
    let case = Case::of(&text);
    for (edits, said, nearest) in cases {
        let error = match case.document.edited(edits) {
            Ok(edited) => panic!("{edits:?}\n{}", edited.text()),
            Err(error) => error,
        };
        assert_eq!(error.to_string(), *said);
        assert_eq!(error.nearest(), *nearest, "{said}");
    }
    assert!(!case.document.is_edited());
}

#[test]
fn what_is_wrong_changes_nothing_and_is_said() {
    check_refusals(&[
        (
            &[set(server(), "max_client", "5")],
            "server has no setting max_client; did you mean max_clients?",
            Some("max_clients"),
        ),
        (
            &[set(database("ap"), "pool_size", "5")],
            "there is no databases.ap; did you mean app?",
            Some("app"),
        ),
        (
            &[set(backend("pg1"), "weight", "5")],
            "there is no clusters.main.backends.pg1",
            None,
        ),
        (
            &[
                set(database("app"), "pool_size", "6"),
                set(cluster(), "max_lag", "5 parsecs"),
            ],
            "[clusters.main] max_lag: \"5 parsecs\" is not a duration or a size, as in \"5s\" or \"16MB\"",
            None,
        ),
        (
            &[set(database("app"), "pool_size", "many")],
            "[databases.app] pool_size: expected an integer, found a text",
            None,
        ),
        (
            &[set(database("app"), "consistency", "sesion")],
            "[databases.app] consistency: \"sesion\" is none of session, eventual, strong; did you mean session?",
            Some("session"),
        ),
        (
            &[set(database("app"), "pool_min", "6")],
            "[databases.app] pool_min: 6 is above pool_size, which is 5",
            None,
        ),
    ]);
}

#[test]
fn what_is_not_one_value_or_no_entry_is_refused() {
    check_refusals(&[
        (
            &[set(cluster(), "backends", "a")],
            "clusters.main.backends is not one value; the settings in it are changed one by one",
            None,
        ),
        (
            &[set(user("app"), "password", "***")],
            "users.app.password: *** stands for a secret that is not shown, and is none itself",
            None,
        ),
        (
            &[Edit::Delete {
                section: database("app"),
            }],
            "databases.app is neither a user nor a rule; others are added and taken out in the file",
            None,
        ),
        (
            &[Edit::Delete {
                section: user("app"),
            }],
            "no [[users]]: with method scram-sha-256 nobody can log in",
            None,
        ),
        (
            &[insert(user("app"), &[("password", "y")])],
            "[[users]] name: app is there twice",
            None,
        ),
        (
            &[insert(Section::Rule(0), &[("match.user", "app")])],
            "[[rules]] action: says nothing; known are route, max_lag, consistency, timeout, block",
            None,
        ),
        (
            &[insert(Section::Rule(0), &[("action.rout", "auto")])],
            "rules.0.action has no setting rout; did you mean route?",
            Some("route"),
        ),
        (
            &[insert(Section::Rule(0), &[("mach.user", "app")])],
            "rules.0 has no setting mach.user",
            None,
        ),
        (
            &[set(Section::RuleMatch(1), "user", "app")],
            "there is no rules.1.match",
            None,
        ),
    ]);
}

#[test]
fn what_the_command_line_says_stands_above_and_is_not_saved() {
    let overrides = Overrides {
        listen: Some(ListenAddress::Tcp("h".to_owned(), 7)),
        workers: Some(3),
        log_level: Some("debug".into()),
    };
    let mut case = Case::with(&with("[server]\nworkers = 9\n"), overrides);
    let config = case.document.config();
    assert_eq!((config.server.workers, &*config.log.level), (3, "debug"));
    let refused = case.document.edited(&[set(server(), "workers", "4")]);
    let expected = EditError::Overridden {
        section: server(),
        key: "workers".to_owned(),
    };
    assert_eq!(refused.unwrap_err(), expected);
    case.document = case.document.edited(&[set(server(), "zone", "a")]).unwrap();
    assert_eq!(case.document.config().server.workers, 3);
    case.document.save().unwrap();
    assert_eq!(
        case.on_disk(),
        with("[server]\nworkers = 9\nzone = \"a\"\n")
    );
    let rows = case.document.rows(case.document.config());
    let row = row(&rows, "server", "workers");
    assert_eq!(
        (row.value.as_deref(), row.source),
        (Some("3"), SettingSource::CommandLine)
    );
    // Nor is it a difference from the file.
    let running = case.document.config();
    assert_eq!(case.document.diff_with_file(running).unwrap(), []);
}

#[test]
fn urls_make_the_text_that_they_mean() {
    for urls in [
        vec!["postgres://pg1"],
        vec!["postgres://app:s%22e'c%5Cret%20%25@pg1,[::1]:7,pg3:8/sh%20op"],
        vec!["postgres://a@h1", "postgres:///?host=/tmp&port=7"],
    ] {
        let urls: Vec<_> = urls.into_iter().map(str::to_owned).collect();
        let origin = Origin::Upstreams(urls.clone());
        let mut document = Document::load(origin, Overrides::default()).unwrap();
        let expected = from_upstreams(&urls, None).unwrap();
        assert_eq!(**document.config(), expected, "{}", document.text());
        assert!(!format!("{document:?}").contains("s\"e"));
        assert!(matches!(document.save(), Err(FileError::NoFile)));
        assert!(matches!(document.reread(), Err(FileError::NoFile)));
        let running = &expected;
        let diff = document.diff_with_file(running);
        assert!(matches!(diff, Err(FileError::NoFile)));
        let rows = document.rows(running);
        let row = row(&rows, "clusters.main", "backends");
        assert_eq!(row.source, SettingSource::CommandLine);
    }
}

#[test]
fn a_save_writes_the_file_whole_with_its_rights_and_only_what_was_changed() {
    let mut case = Case::of(&with("# a comment\n[server]\nworkers = 1\n"));
    fs::set_permissions(&case.path, fs::Permissions::from_mode(0o640)).unwrap();
    let link = case.path.with_file_name("link.toml");
    symlink(&case.path, &link).unwrap();
    let mut linked = Document::load(Origin::File(link.clone()), Overrides::default()).unwrap();
    linked = linked.edited(&[set(server(), "workers", "2")]).unwrap();
    assert!(linked.is_edited());
    linked.save().unwrap();
    assert!(!linked.is_edited());
    assert_eq!(case.on_disk(), with("# a comment\n[server]\nworkers = 2\n"));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = fs::metadata(&case.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    let names = fs::read_dir(case.path.parent().unwrap()).unwrap();
    assert_eq!(names.count(), 2, "nothing is left beside it");
    // The other has read what was there before.
    case.document = case
        .document
        .edited(&[set(server(), "workers", "3")])
        .unwrap();
    let refused = case.document.save().unwrap_err();
    assert!(matches!(refused, FileError::ChangedMeanwhile { .. }));
    assert!(refused.to_string().contains("has been changed since"));
    assert_eq!(case.on_disk(), with("# a comment\n[server]\nworkers = 2\n"));
    // A reload takes over what is there, and what was not saved is gone.
    let mut reread = case.document.reread().unwrap();
    assert_eq!(reread.config().server.workers, 2);
    assert!(!reread.is_edited());
    reread.save().unwrap();
    fs::remove_file(&case.path).unwrap();
    assert!(matches!(reread.save(), Err(FileError::Io { .. })));
}

#[test]
fn the_difference_from_the_file_is_what_is_unsaved_unread_or_waits_for_a_restart() {
    let case = Case::of(&with("[server]\nworkers = 1\nmax_clients = 5\n"));
    let running = case.document.config().clone();
    assert_eq!(case.document.diff_with_file(&running).unwrap(), []);
    let edited = case
        .document
        .edited(&[
            set(server(), "workers", "2"),
            set(server(), "max_clients", "6"),
        ])
        .unwrap();
    let running = pgweir_config::take_over(&running, edited.config());
    fs::write(
        &case.path,
        with("[server]\nworkers = 1\nmax_clients = 5\nmax_queue = 7\n"),
    )
    .unwrap();
    let lines: Vec<_> = edited
        .diff_with_file(&running)
        .unwrap()
        .into_iter()
        .map(|change| {
            let side = |value: Option<String>| value.unwrap_or_default();
            format!(
                "{}: {} -> {} {}",
                change.key,
                side(change.old),
                side(change.new),
                change.reloadable
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "server.max_clients: 5 -> 6 true",
            "server.max_queue: 7 -> 100000 true",
            "server.workers: 1 -> 2 false",
        ]
    );
    fs::write(&case.path, "nonsense").unwrap();
    let refused = edited.diff_with_file(&running);
    assert!(matches!(refused, Err(FileError::Invalid(_))));
}

fn row<'r>(rows: &'r [SettingRow], path: &str, name: &str) -> &'r SettingRow {
    let mut found = rows
        .iter()
        .filter(|row| row.path == path && row.name == name);
    let row = found.next().unwrap_or_else(|| panic!("no {path}.{name}"));
    assert!(found.next().is_none(), "{path}.{name} is there twice");
    row
}

#[test]
fn every_setting_is_a_row() {
    let rule = "[[rules]]\nmatch = {}\naction.route = 'auto'\n";
    let case = Case::of(&format!("{}{rule}", default_text()));
    let rows = case.document.rows(case.document.config());
    let shown: HashSet<_> = rows
        .iter()
        .map(|row| (row.section.table(), row.name))
        .collect();
    for setting in SETTINGS {
        assert!(shown.contains(&(setting.table, setting.key)), "{setting:?}");
    }
    for row in &rows {
        assert!(!row.needs_restart, "{row:?}");
        assert_eq!(row.running, None, "{row:?}");
        assert!(!row.about.is_empty() && !row.takes.is_empty(), "{row:?}");
        if matches!(row.name, "password") {
            assert!(row.value.as_deref().is_none_or(|value| value == "***"));
        }
    }
}

/// Tables and settings, and what is shown of them.
const ROWS: &[(&str, &str, &str)] = &[
    ("server", "workers", "2 (console) fixed, runs 0"),
    ("server", "max_clients", "10000 (console) changeable"),
    ("server", "connect_timeout", "5s (default) changeable"),
    ("server", "listen", "127.0.0.1:6432 (default) fixed"),
    ("server", "zone", "- (default) changeable"),
    ("auth", "method", "trust (file) changeable"),
    ("clusters.main", "backends", "a:5432 (file) fixed"),
    ("clusters.main", "breaker", "- (default) fixed"),
    ("clusters.main", "password", "- (default) changeable"),
    ("clusters.main", "password_file", "secret (file) changeable"),
    (
        "clusters.main.backends.a:5432",
        "weight",
        "0 (console) changeable",
    ),
    ("clusters.main.backends.a:5432", "host", "a (file) fixed"),
    (
        "clusters.main.backends.a:5432",
        "name",
        "a:5432 (default) fixed",
    ),
    (
        "clusters.main.breaker",
        "failures",
        "5 (default) changeable",
    ),
    ("databases.*", "pool_size", "20 (default) changeable"),
    (
        "databases.*",
        "replica_safe_functions",
        " (default) changeable",
    ),
    ("users.app", "password", "*** (file) changeable"),
    ("rules.1", "name", "1 (default) changeable"),
    ("rules.1.action", "block", "no (console) changeable"),
    ("rules.1", "action", "block = \"no\" (console) fixed"),
    ("rules.2", "name", "one (file) changeable"),
    ("rules.2.match", "user", "app (file) changeable"),
    ("rules.2.match", "regex", "- (default) changeable"),
    ("log", "level", "info (default) changeable"),
];

#[test]
fn a_row_says_what_holds_where_it_comes_from_and_what_runs() {
    let text = "server.max_clients = 5\nauth.method = 'trust'\n[clusters.main]\nbackends = [{ host = 'a', weight = 7 }]\n\
        password_file = 'secret'\n[[users]]\nname = 'app'\npassword = 'hidden'\n[[rules]]\nname = 'one'\n\
        match = { user = 'app' }\naction.route = 'auto'\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pgweir.toml");
    fs::write(&path, text).unwrap();
    fs::write(folder.path().join("secret"), "filed").unwrap();
    let document = Document::load(Origin::File(path), Overrides::default()).unwrap();
    let running = document.config().clone();
    let document = document
        .edited(&[
            set(server(), "workers", "2"),
            set(backend("a:5432"), "weight", "0"),
            unset(server(), "max_clients"),
            insert(Section::Rule(1), &[("action.block", "no")]),
        ])
        .unwrap();
    let running = pgweir_config::take_over(&running, document.config());
    let rows = document.rows(&running);
    let said = |path: &str, name: &str| {
        let row = row(&rows, path, name);
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        format!(
            "{} ({}) {}{}",
            text(&row.value),
            row.source.name(),
            if row.is_changeable {
                "changeable"
            } else {
                "fixed"
            },
            if row.needs_restart {
                format!(", runs {}", text(&row.running))
            } else {
                String::new()
            }
        )
    };
    for (path, name, expected) in ROWS {
        assert_eq!(said(path, name), *expected, "{path}.{name}");
    }
    assert_eq!(row(&rows, "server", "connect_timeout").default, Some("5s"));
    assert!(!format!("{rows:?}").contains("hidden"));
}

/// Files of every form that say about the same; every comment is one that no change may touch.
const FORMS: &[&str] = &[
    "# top\n[server]\nworkers = 1 #keep 1\n# keep 2\n\n[clusters.main] # keep 3\nbackends = [{ host = 'a' }, { host = 'b' }]\n\
     # keep 4\n\n[auth]\nmethod = 'trust'\n\n[[users]]\nname = 'u1'\n\n[[users]]\nname = 'u2'\n# keep 5\n\n[[rules]]\nmatch = {}\naction = { route = 'auto' }\n# end",
    "# top\nserver.workers = 1 #keep 1\nauth.method = 'trust'\n# keep 2\nclusters.main.backends = [\n  # keep 3\n  { host = 'a' },\n  { host = 'b' },\n]\n\
     # keep 4\nusers = [{ name = 'u1' }, { name = 'u2' }] # keep 5\nrules = [\n  { match = {}, action.route = 'auto' },\n]\n# end\n",
    "# top\r\n[auth]\r\nmethod = 'trust' #keep 1\r\n\r\n[[clusters.main.backends]] # keep 2\r\nhost = 'a'\r\n# keep 3\r\n[[clusters.main.backends]]\r\nhost = 'b'\r\n\r\n\
     [[rules]]\r\n[rules.match]\r\n[rules.action]\r\nroute = 'auto'\r\n\r\n[[users]]\r\nname = 'u1'\r\n# keep 4\r\n\r\n[server]\r\nworkers = 1\r\n# keep 5\r\n\r\n[[users]]\r\nname = 'u2'\r\n# end",
];

fn any_edit() -> impl Strategy<Value = Edit> {
    let backends = prop_oneof![Just("a:5432"), Just("b:5432")];
    let maybe = |value: BoxedStrategy<String>| proptest::option::of(value);
    let number = (1..1000_u32).prop_map(|number| number.to_string()).boxed();
    let lag = (1..99_u32).prop_map(|number| format!("{number}ms")).boxed();
    let set = |section: BoxedStrategy<Section>, key: &'static str, value: BoxedStrategy<String>| {
        (section, maybe(value)).prop_map(move |(section, value)| Edit::Set {
            section,
            key: key.to_owned(),
            value,
        })
    };
    let of = |section: Section| Just(section).boxed();
    prop_oneof![
        set(of(server()), "workers", number.clone()),
        set(of(server()), "max_clients", number.clone()),
        set(of(server()), "zone", "[ -~]{1,9}".boxed()),
        set(of(cluster()), "max_lag", lag.clone()),
        set(of(breaker()), "failures", number.clone()),
        set(of(breaker()), "open_for", lag.clone()),
        set(backends.prop_map(backend).boxed(), "weight", number.clone()),
        set(of(database("*")), "pool_size", number.clone()),
        set(
            of(Section::Single(Table::Log)),
            "slow_statements",
            lag.clone()
        ),
        set(
            "u[1-4]".prop_map(|name| user(&name)).boxed(),
            "server_user",
            "[ -~]{1,9}".boxed()
        ),
        set(
            (1..4_usize).prop_map(Section::RuleMatch).boxed(),
            "application",
            "[ -~]{1,9}".boxed()
        ),
        set(
            (1..4_usize).prop_map(Section::RuleAction).boxed(),
            "max_lag",
            lag
        ),
        ("u[1-4]").prop_map(|name| insert(user(&name), &[("server_user", "x")])),
        ("u[1-4]").prop_map(|name| Edit::Delete {
            section: user(&name)
        }),
        (0..4_usize).prop_map(|number| insert(
            Section::Rule(number),
            &[("match.tables", "a, b.c"), ("action.route", "primary")]
        )),
        (1..4_usize).prop_map(|number| Edit::Delete {
            section: Section::Rule(number)
        }),
    ]
}

/// Returns what a change is to have made, as the console would read it back.
fn is_done(edit: &Edit, document: &Document) -> bool {
    let rows = document.rows(document.config());
    let found = |section: &Section| rows.iter().any(|row| row.section == *section);
    match edit {
        Edit::Set {
            section,
            key,
            value: Some(value),
        } => rows.iter().any(|row| {
            row.section == *section && row.name == key && row.value.as_ref() == Some(value)
        }),
        Edit::Set {
            section,
            key,
            value: None,
        } => rows.iter().any(|row| {
            let is_default = row.value.as_deref() == row.default;
            row.section == *section && row.name == key && is_default
        }),
        Edit::Insert { section, .. } => matches!(section, Section::Rule(_)) || found(section),
        Edit::Delete { section } => matches!(section, Section::Rule(_)) || !found(section),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn whatever_is_changed_every_comment_stays_and_the_file_says_what_was_meant(
        form in 0..FORMS.len(),
        edits in proptest::collection::vec(any_edit(), 1..12),
    ) {
        let case = Case::of(FORMS[form]);
        let mut document = case.document.clone();
        for edit in &edits {
            let Ok(edited) = document.edited(std::slice::from_ref(edit)) else {
                continue;
            };
            prop_assert!(is_done(edit, &edited), "{edit:?}\n{}\n{}", document.text(), edited.text());
            document = edited;
        }
        let config = parse(document.text(), "f").unwrap();
        prop_assert_eq!(&config, &**document.config());
        // The one behind a value, `#keep 1`, goes with its line.
        for comment in ["# top", "# keep 2", "# keep 3", "# keep 4", "# keep 5", "# end"] {
            prop_assert!(document.text().contains(comment), "{comment}\n{}", document.text());
        }
    }

    #[test]
    fn a_value_that_is_set_to_what_is_shown_changes_nothing(form in 0..FORMS.len()) {
        let case = Case::of(FORMS[form]);
        for row in case.document.rows(case.document.config()) {
            let is_value = !matches!(row.name, "backends" | "match" | "action" | "breaker");
            if let Some(value) = row.value.filter(|_| is_value) {
                let edited = case.document.edited(&[set(row.section.clone(), row.name, &value)]);
                let edited = edited.unwrap_or_else(|error| panic!("{error}"));
                prop_assert_eq!(edited.config(), case.document.config(), "{}.{}", row.path, row.name);
            }
        }
    }
}

/// The kinds of values whose lists could be taken apart wrongly.
#[test]
fn lists_are_shown_as_they_are_set() {
    let text = with(
        "[admin]\nusers = ['a,b', ' c', '[x']\n[databases.app]\nprimary_only_functions = ['F', '\"F\"', 'a.\"b c\"', '\"x,y\"']\n\
         [[rules]]\nmatch.tables = ['\"A\".b', 'c']\naction.route = 'auto'\n",
    );
    let case = Case::of(&text);
    let rows = case.document.rows(case.document.config());
    let lists = SETTINGS
        .iter()
        .filter(|setting| matches!(setting.kind, Kind::Names | Kind::Functions | Kind::Tables));
    let mut count = 0;
    for setting in lists {
        for row in rows
            .iter()
            .filter(|row| row.section.table() == setting.table && row.name == setting.key)
        {
            if let Some(value) = &row.value {
                let edit = set(row.section.clone(), row.name, value);
                let edited = case.document.edited(&[edit]).unwrap();
                assert_eq!(edited.config(), case.document.config(), "{value}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 5);
    assert_eq!(
        row(&rows, "rules.1.match", "tables").value.as_deref(),
        Some("\"A\".b, c")
    );
}
