//! Upstream URLs to [`Config`]: `postgres://app:secret@pg1:5432,pg2:5432/app`, for a start with no file.
//!
//! One cluster `main` with every host of every URL, whose roles are detected; every database of it under its own name; one
//! user, the URL's, for clients, servers and the control plane. Without a password everyone is trusted, as the servers must.
//! See <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS>.

use std::sync::Arc;

use crate::read::{Wrong, checked_host, checked_password, listen_address, parse, split_port};
use crate::settings::{AuthMethod, Backend, BackendRole, Config, User};
use crate::{ConfigError, ConfigErrors, Secret};

/// The role that is meant where a URL names none. Chosen: the one that every fresh server has.
const DEFAULT_USER: &str = "postgres";

/// PostgreSQL's port.
const DEFAULT_PORT: u16 = 5432;

/// What one URL says.
#[derive(Debug, PartialEq, Eq)]
struct Upstream {
    user: Option<String>,
    password: Option<Secret>,
    hosts: Vec<(String, u16)>,
    database: Option<String>,
}

/// Makes a configuration from upstream URLs; all else is as by default.
///
/// # Errors
/// All problems of the URLs and of `listen`. No password is in them.
///
/// # Examples
/// ```
/// let urls = ["postgres://app:secret@pg1,pg2:5433/shop".to_owned()];
/// let config = pgweir_config::from_upstreams(&urls, None).unwrap();
/// assert_eq!(&*config.clusters[0].backends[1].name, "pg2:5433");
/// ```
pub fn from_upstreams(urls: &[String], listen: Option<&str>) -> Result<Config, ConfigErrors> {
    // The defaults of everything else are those of the smallest file.
    let smallest = "auth.method = 'trust'\n[clusters.main]\nbackends = [{ host = 'localhost' }]\n";
    let mut config = parse(smallest, "--upstream")?;
    let mut problems = Vec::new();
    match listen.map(listen_address) {
        Some(Ok(address)) => config.server.listen = vec![address],
        Some(Err(wrong)) => problems.push(problem("--listen", String::new(), wrong)),
        None => {}
    }
    let upstreams = read_all(urls, &mut problems);
    let hosts = upstreams.iter().flat_map(|upstream| &upstream.hosts);
    let backends = distinct(hosts, &mut problems);
    if !problems.is_empty() {
        return Err(ConfigErrors(problems));
    }
    let text = |pick: fn(&Upstream) -> Option<&String>| {
        upstreams
            .iter()
            .find_map(pick)
            .map(|text| Arc::from(text.as_str()))
    };
    let user: Arc<str> =
        text(|upstream| upstream.user.as_ref()).unwrap_or_else(|| DEFAULT_USER.into());
    let password = upstreams
        .iter()
        .find_map(|upstream| upstream.password.clone());
    if password.is_some() {
        config.auth.method = AuthMethod::ScramSha256;
    }
    for cluster in &mut config.clusters {
        cluster.backends.clone_from(&backends);
        cluster.user = Arc::clone(&user);
        cluster.password.clone_from(&password);
        if let Some(database) = text(|upstream| upstream.database.as_ref()) {
            cluster.database = database;
        }
    }
    // Whoever starts the proxy so may look at it.
    config.admin.users = vec![Arc::clone(&user)];
    config.users = vec![User {
        name: user,
        password,
        server_user: None,
        server_password: None,
    }];
    Ok(config)
}

/// Returns a text that says what [`from_upstreams`] makes of URLs.
pub(crate) fn text_of_upstreams(urls: &[String]) -> Result<String, ConfigErrors> {
    let config = from_upstreams(urls, None)?;
    let quoted = |text: &str| toml_edit::Value::from(text).to_string();
    let given = |key: &str, value: Option<&str>| {
        value.map_or_else(String::new, |value| format!("{key} = {}\n", quoted(value)))
    };
    let mut text = String::new();
    for cluster in &config.clusters {
        text += &format!("[clusters.{}]\nbackends = [\n", cluster.name);
        for backend in &cluster.backends {
            let (host, port) = (quoted(&backend.host), backend.port);
            text += &format!("  {{ host = {host}, port = {port} }},\n");
        }
        text += "]\n";
        text += &given("user", Some(&cluster.user));
        text += &given("password", cluster.password.as_ref().map(Secret::expose));
        text += &given("database", Some(&cluster.database));
    }
    for user in &config.users {
        text += "\n[[users]]\n";
        text += &given("name", Some(&user.name));
        text += &given("password", user.password.as_ref().map(Secret::expose));
    }
    let method = given("method", Some(config.auth.method.name()));
    let admins: toml_edit::Array = (config.admin.users.iter()).map(|user| &**user).collect();
    text += &format!("\n[auth]\n{method}\n[admin]\nusers = {admins}\n");
    Ok(text)
}

fn problem(place: &str, key: String, wrong: Wrong) -> ConfigError {
    let Wrong {
        message,
        suggestion,
    } = wrong;
    ConfigError {
        file: place.into(),
        line: 0,
        column: 0,
        key,
        message,
        suggestion,
    }
}

fn read_all(urls: &[String], problems: &mut Vec<ConfigError>) -> Vec<Upstream> {
    let mut upstreams: Vec<Upstream> = Vec::new();
    if urls.is_empty() {
        problems.push(problem("--upstream", String::new(), Wrong::new("no URL")));
    }
    for (index, url) in urls.iter().enumerate() {
        // The URL itself holds the password, so it is named by its number.
        let key = format!("URL {}", index + 1);
        let read = read_url(url).and_then(|upstream| match upstreams.first() {
            Some(first) if !first.agrees(&upstream) => Err(Wrong::new(
                "user, password or database differ from those of URL 1",
            )),
            _ => Ok(upstream),
        });
        match read {
            Ok(upstream) => upstreams.push(upstream),
            Err(wrong) => problems.push(problem("--upstream", key, wrong)),
        }
    }
    upstreams
}

impl Upstream {
    /// Returns whether another URL can stand beside this one: what it leaves out is as here.
    fn agrees(&self, other: &Upstream) -> bool {
        let same = |left: &Option<String>, right: &Option<String>| right.is_none() || left == right;
        same(&self.user, &other.user)
            && same(&self.database, &other.database)
            && (other.password.is_none() || self.password == other.password)
    }
}

fn distinct<'h>(
    hosts: impl Iterator<Item = &'h (String, u16)>,
    problems: &mut Vec<ConfigError>,
) -> Vec<Backend> {
    let mut backends: Vec<Backend> = Vec::new();
    for (host, port) in hosts {
        let name = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        if backends.iter().any(|backend| *backend.name == *name) {
            problems.push(problem(
                "--upstream",
                String::new(),
                Wrong::new(format!("{name} is there twice")),
            ));
        }
        let host = host.as_str().into();
        backends.push(Backend {
            name: name.into(),
            host,
            port: *port,
            role: BackendRole::Auto,
            weight: 100,
            zone: None,
        });
    }
    backends
}

fn read_url(url: &str) -> Result<Upstream, Wrong> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or_else(|| Wrong::new("expected postgres://user:password@host:port/database"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut upstream = Upstream {
        user: some(decode(user)?),
        password: some(decode(password)?)
            .map(|password| checked_password(&password))
            .transpose()?,
        hosts: Vec::new(),
        database: some(decode(database)?),
    };
    let mut listed = hosts
        .split(',')
        .filter(|host| !host.is_empty())
        .map(|host| {
            let (host, port) = split_port(host)?;
            Ok((
                checked_host(&decode(host)?)?.to_owned(),
                port.unwrap_or(DEFAULT_PORT),
            ))
        });
    upstream.hosts = listed.by_ref().collect::<Result<_, Wrong>>()?;
    read_parameters(query, &mut upstream)?;
    if upstream.hosts.is_empty() {
        return Err(Wrong::new("no host"));
    }
    if upstream.hosts.iter().any(|(_, port)| *port == 0) {
        return Err(Wrong::new("0 is not a port"));
    }
    Ok(upstream)
}

/// Reads what stands behind `?`: hosts and ports as libpq has them, and what changes nothing without TLS.
fn read_parameters(query: &str, upstream: &mut Upstream) -> Result<(), Wrong> {
    let mut ports = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = decode(value)?;
        match name {
            "host" => {
                for host in value.split(',') {
                    upstream
                        .hosts
                        .push((checked_host(host)?.to_owned(), DEFAULT_PORT));
                }
            }
            "port" => {
                for port in value.split(',') {
                    ports.push(
                        port.parse()
                            .map_err(|_| Wrong::new(format!("{port:?} is not a port")))?,
                    );
                }
            }
            "user" => upstream.user = some(value),
            "password" => upstream.password = Some(checked_password(&value)?),
            "dbname" => upstream.database = some(value),
            "sslmode" if matches!(&*value, "disable" | "allow" | "prefer") => {}
            "sslmode" => {
                return Err(Wrong::new(format!(
                    "sslmode={value} is not built in this version"
                )));
            }
            _ => {
                return Err(Wrong::new(format!(
                    "parameter {name} is not known; known are host, port, user, password, dbname, sslmode"
                )));
            }
        }
    }
    match ports.as_slice() {
        [] => {}
        [all] => upstream.hosts.iter_mut().for_each(|(_, port)| *port = *all),
        each if each.len() == upstream.hosts.len() => {
            upstream
                .hosts
                .iter_mut()
                .zip(each)
                .for_each(|((_, port), given)| *port = *given);
        }
        _ => return Err(Wrong::new("as many ports as hosts are needed, or one")),
    }
    Ok(())
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, Wrong> {
    // The text may be a password: it is not in the message.
    let wrong = || {
        Wrong::new("% needs two hexadecimal digits, and all together be UTF-8 without a zero byte")
    };
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'%', high, low, tail @ ..] => {
                bytes.push(digit(*high).ok_or_else(wrong)? << 4 | digit(*low).ok_or_else(wrong)?);
                tail
            }
            [b'%', ..] => return Err(wrong()),
            [byte, tail @ ..] => {
                bytes.push(*byte);
                tail
            }
        };
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(wrong)
}
