//! `pgweir check`: whether a configuration is valid, and what it says.

use std::fmt::Write as _;

use pgweir_config::{Config, Database, User};

use crate::args::Check;
use crate::failure::Failure;
use crate::output;

/// Prints a summary, or returns every problem.
pub(crate) fn run(arguments: &Check) -> Result<(), Failure> {
    let config = pgweir_config::load(&arguments.config)?;
    output::say(format!(
        "{}: ok\n{}",
        arguments.config.display(),
        summary(&config).trim_end()
    ));
    Ok(())
}

fn summary(config: &Config) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "listen     {}", joined(config.server.listen.iter()));
    for cluster in &config.clusters {
        let names = joined(cluster.backends.iter().map(|backend| &backend.name));
        let count = cluster.backends.len();
        let _ = writeln!(
            text,
            "cluster    {}: {count} backends: {names}",
            cluster.name
        );
    }
    for database in &config.databases {
        let _ = writeln!(text, "database   {}", describe(database));
    }
    let users = joined(config.users.iter().map(|User { name, .. }| name));
    let users = if users.is_empty() {
        "anyone".to_owned()
    } else {
        users
    };
    let _ = writeln!(text, "users      {users} (method {})", config.auth.method);
    text
}

fn describe(database: &Database) -> String {
    let Database {
        name,
        cluster,
        pool_mode,
        pool_size,
        splitting,
        consistency,
        ..
    } = database;
    let pool = format!("{pool_mode} pooling of {pool_size} connections per user and backend");
    format!("{name}: cluster {cluster}, {pool}, splitting {splitting}, consistency {consistency}")
}

fn joined<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn the_summary_names_what_is_there() {
        let text = "auth.method = 'md5'\n\
            [clusters.main]\nbackends = [{ name = 'pg1', host = 'h1' }, { host = 'h2' }]\n\
            [databases.app]\npool_mode = 'session'\n\
            [[users]]\nname = 'app'\npassword = 'hunter2'\n";
        assert_eq!(
            summary(&pgweir_config::parse(text, "f").unwrap()),
            "listen     127.0.0.1:6432\n\
             cluster    main: 2 backends: pg1, h2:5432\n\
             database   app: cluster main, session pooling of 20 connections per user and backend, splitting on, consistency session\n\
             users      app (method md5)\n"
        );
    }
}
