//! Any failure that a client is told of, with its SQLSTATE: the one place where the codes of the interface are given.
//!
//! Messages begin with `pgweir:`. They never carry addresses, other sessions' statements or file names.

use std::time::Duration;

use pgweir_backend::ConnectError;
use pgweir_model::{Reason, Sqlstate};
use pgweir_route::RouteError;
use pgweir_session::Violation;
use pgweir_wire::backend::{ErrorBuilder, Severity};

/// Who caused a failure: the level at which it is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The client: it is told, and nobody else.
    Client,
    /// A server, or its absence.
    Server,
}

/// A failure as the client sees it.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) sqlstate: Sqlstate,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// The connection is closed after it.
    pub(crate) is_fatal: bool,
    pub(crate) blame: Blame,
}

impl Fault {
    fn new(sqlstate: Sqlstate, message: impl Into<String>) -> Self {
        Fault {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            is_fatal: false,
            blame: Blame::Client,
        }
    }

    fn by_server(mut self) -> Self {
        self.blame = Blame::Server;
        self
    }

    /// The same, closing the connection.
    pub(crate) fn fatal(mut self) -> Self {
        self.is_fatal = true;
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The client broke the protocol.
    pub(crate) fn protocol(violation: &Violation) -> Self {
        let sqlstate = match violation {
            Violation::TooLarge { .. } => Sqlstate::PROGRAM_LIMIT_EXCEEDED,
            Violation::PipelineTooDeep { .. } => Sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
            Violation::Decode(_)
            | Violation::UnknownTag { .. }
            | Violation::UnownedReply { .. } => Sqlstate::PROTOCOL_VIOLATION,
        };
        Fault::new(sqlstate, violation.to_string()).fatal()
    }

    /// A startup packet or authentication message that is none.
    pub(crate) fn bad_startup(what: impl Into<String>) -> Self {
        Fault::new(Sqlstate::PROTOCOL_VIOLATION, what).fatal()
    }

    /// Somebody asks for the console who is no operator.
    pub(crate) fn no_operator(user: &str) -> Self {
        Fault::new(
            Sqlstate::INSUFFICIENT_PRIVILEGE,
            format!("user \"{user}\" may not use the console"),
        )
        .hint("It is for those in admin.users and admin.viewers of the configuration.")
        .fatal()
    }

    /// The server broke the protocol.
    pub(crate) fn server_violation() -> Self {
        Fault::new(
            Sqlstate::PROTOCOL_VIOLATION,
            "the server sent a message that nobody asked for",
        )
        .detail("The connection to it was closed, so that no reply can reach the wrong client.")
        .by_server()
        .fatal()
    }

    /// The server went away in mid-statement.
    pub(crate) fn server_lost(may_have_written: bool) -> Self {
        let fault = Fault::new(
            Sqlstate::CONNECTION_FAILURE,
            "the connection to the server was lost",
        );
        let fault = if may_have_written {
            fault
                .detail("The outcome of the statement is unknown: it may have been committed.")
                .hint("Check whether the change is there before repeating it.")
        } else {
            fault
                .detail("The statement did not write.")
                .hint("It can be repeated.")
        };
        fault.by_server().fatal()
    }

    /// The startup parameters that the primary took were refused by this server.
    pub(crate) fn parameters_refused() -> Self {
        Fault::new(
            Sqlstate::INVALID_PARAMETER_VALUE,
            "the server refused the session's parameters",
        )
        .detail("The server's own message came before this one.")
        .by_server()
        .fatal()
    }

    /// No server in time.
    pub(crate) fn query_wait_timeout(waited: Duration) -> Self {
        Fault::new(
            Sqlstate::QUERY_CANCELED,
            format!(
                "no server connection became free within query_wait_timeout ({} ms)",
                waited.as_millis()
            ),
        )
        .hint("Raise pool_size, or look for transactions that hold their connection for long.")
    }

    /// The operator has let nobody have a server connection for so long.
    pub(crate) fn held_back(waited: Duration) -> Self {
        let waited = waited.as_millis();
        Fault::new(
            Sqlstate::QUERY_CANCELED,
            format!("the database is paused, for longer than query_wait_timeout ({waited} ms)"),
        )
        .hint("The operator lets it go on with RESUME.")
    }

    /// The operator lets no new clients in.
    pub(crate) fn disabled(database: &str) -> Self {
        Fault::new(
            Sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("database \"{database}\" is not currently accepting connections"),
        )
        .hint("The operator lets clients in again with ENABLE.")
        .fatal()
    }

    /// No replica for a read in time, where the primary takes none.
    pub(crate) fn no_replica(waited: Duration, reason: Reason) -> Self {
        let waited = waited.as_millis();
        let message = format!(
            "no replica could take the read within query_wait_timeout ({waited} ms): {reason}"
        );
        Fault::new(Sqlstate::QUERY_CANCELED, message)
            .hint("With primary_reads = \"fallback\" the primary would take it.")
    }

    /// Too many wait already.
    pub(crate) fn queue_full(limit: usize) -> Self {
        Fault::new(
            Sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
            format!("{limit} clients wait for a server connection already (max_queue)"),
        )
    }

    /// The client's own CancelRequest came while it waited.
    pub(crate) fn canceled_while_waiting() -> Self {
        Fault::new(
            Sqlstate::QUERY_CANCELED,
            "canceling statement due to user request",
        )
    }

    /// Shutting down.
    pub(crate) fn shutting_down() -> Self {
        Fault::new(Sqlstate::CANNOT_CONNECT_NOW, "the proxy is shutting down").fatal()
    }

    /// Told to a client whose session ends with the proxy.
    pub(crate) fn terminated() -> Self {
        Fault::new(
            Sqlstate::ADMIN_SHUTDOWN,
            "terminating connection due to administrator command",
        )
        .fatal()
    }

    /// A rule allows what the server runs no longer.
    pub(crate) fn statement_timeout(allowed: Duration) -> Self {
        let detail = format!(
            "A rule of the proxy's configuration allows it {} ms.",
            allowed.as_millis()
        );
        Fault::new(
            Sqlstate::QUERY_CANCELED,
            "canceling statement due to statement timeout",
        )
        .detail(detail)
    }

    /// Told to a client that has left its transaction alone for longer than `idle_in_transaction_timeout`.
    pub(crate) fn idle_in_transaction() -> Self {
        Fault::new(
            Sqlstate::IDLE_IN_TRANSACTION_TIMEOUT,
            "terminating connection due to idle-in-transaction timeout",
        )
        .fatal()
    }

    /// Told to a client that has done nothing for longer than `client_idle_timeout`.
    pub(crate) fn idle() -> Self {
        Fault::new(
            Sqlstate::IDLE_SESSION_TIMEOUT,
            "terminating connection due to idle-session timeout",
        )
        .fatal()
    }

    /// More clients than `max_clients`.
    pub(crate) fn too_many_operators(limit: usize) -> Self {
        Fault::new(
            Sqlstate::TOO_MANY_CONNECTIONS,
            format!("the console has {limit} clients already"),
        )
        .fatal()
    }

    /// One client more than `max_clients`.
    pub(crate) fn too_many_clients(limit: u32) -> Self {
        Fault::new(
            Sqlstate::TOO_MANY_CONNECTIONS,
            format!("sorry, too many clients already (max_clients = {limit})"),
        )
        .fatal()
    }

    /// Wrong password, or a user that does not exist: the client cannot tell which.
    pub(crate) fn password(user: &str) -> Self {
        Fault::new(
            Sqlstate::INVALID_PASSWORD,
            format!("password authentication failed for user \"{user}\""),
        )
        .fatal()
    }

    /// A user that is not configured, where nothing is asked of users.
    pub(crate) fn unknown_user(user: &str) -> Self {
        Fault::new(
            Sqlstate::INVALID_AUTHORIZATION,
            format!("user \"{user}\" is not configured"),
        )
        .hint("Add it to [[users]].")
        .fatal()
    }

    /// A database that is not configured.
    pub(crate) fn unknown_database(name: &str, nearest: Option<&str>) -> Self {
        let fault = Fault::new(
            Sqlstate::INVALID_CATALOG_NAME,
            format!("database \"{name}\" does not exist"),
        );
        match nearest {
            Some(nearest) => fault
                .hint(format!("Perhaps you meant \"{nearest}\"."))
                .fatal(),
            None => fault.fatal(),
        }
    }

    /// A startup parameter that cannot be passed on.
    pub(crate) fn bad_parameter(name: &str) -> Self {
        Fault::new(
            Sqlstate::UNDEFINED_OBJECT,
            format!("unrecognized configuration parameter \"{name}\""),
        )
        .fatal()
    }

    /// No primary.
    pub(crate) fn no_primary() -> Self {
        Fault::from_route(&RouteError::NoPrimary)
    }

    /// The router refused.
    pub(crate) fn from_route(error: &RouteError) -> Self {
        let mut fault = Fault::new(error.sqlstate(), error.to_string());
        fault.detail = error.detail();
        fault.hint = error.hint();
        fault
    }

    /// A server connection could not be opened.
    pub(crate) fn from_connect(error: &ConnectError) -> Self {
        match error {
            ConnectError::Refused {
                sqlstate, message, ..
            } => Fault::new(
                Sqlstate(*sqlstate),
                format!("the server refused the connection: {message}"),
            )
            .by_server(),
            ConnectError::Auth(error) => Fault::new(
                Sqlstate::INVALID_AUTHORIZATION,
                format!("cannot log in to the server: {error}"),
            )
            .hint("The user needs a clear-text password, or server_password, in [[users]].")
            .by_server(),
            ConnectError::Net(_)
            | ConnectError::Decode(_)
            | ConnectError::Encode(_)
            | ConnectError::Unexpected { .. }
            | ConnectError::Timeout => {
                Fault::new(Sqlstate::CANNOT_CONNECT_NOW, "the server cannot be reached").by_server()
            }
        }
    }

    /// The server's own verdict on a startup parameter.
    pub(crate) fn from_parameters(error: &ConnectError) -> Self {
        match error {
            ConnectError::Refused {
                sqlstate, message, ..
            } => Fault::new(Sqlstate(*sqlstate), message.clone()),
            ConnectError::Auth(_)
            | ConnectError::Net(_)
            | ConnectError::Decode(_)
            | ConnectError::Encode(_)
            | ConnectError::Unexpected { .. }
            | ConnectError::Timeout => Fault::from_connect(error),
        }
    }

    /// A version of the protocol that is not spoken.
    pub(crate) fn not_supported(what: &str) -> Self {
        Fault::new(Sqlstate::FEATURE_NOT_SUPPORTED, what).fatal()
    }

    /// Transactions over several batches under statement pooling.
    pub(crate) fn no_transactions() -> Self {
        Fault::new(
            Sqlstate::FEATURE_NOT_SUPPORTED,
            "transaction blocks are not allowed in statement pooling mode",
        )
        .fatal()
    }

    /// State that would outlive a READ ONLY transaction on a replica.
    pub(crate) fn state_on_replica() -> Self {
        Fault::new(
            Sqlstate::FEATURE_NOT_SUPPORTED,
            "session state other than SET cannot be made in a READ ONLY transaction that runs on a replica",
        )
        .hint("Set pgweir.route to primary before the transaction.")
    }

    /// Only ROLLBACK is heard after an error in a transaction.
    pub(crate) fn transaction_is_aborted() -> Self {
        Fault::new(
            Sqlstate(*b"25P02"),
            "current transaction is aborted, commands ignored until end of transaction block",
        )
    }

    /// A batch of statements for the proxy and others.
    pub(crate) fn mixed_batch() -> Self {
        Fault::new(
            Sqlstate::FEATURE_NOT_SUPPORTED,
            "a text or batch cannot hold both pgweir's own statements and others",
        )
        .hint("Send SET, RESET and SHOW of pgweir.*, and EXPLAIN ROUTE, on their own.")
    }

    /// A setting of ours that does not exist.
    pub(crate) fn unknown_setting(name: &str, known: &str) -> Self {
        Fault::new(
            Sqlstate::UNDEFINED_OBJECT,
            format!("unrecognized setting \"{name}\""),
        )
        .hint(format!("Known are {known}."))
    }

    /// A setting's value that does not fit.
    pub(crate) fn bad_value(name: &str, value: &str, valid: &str) -> Self {
        Fault::new(
            Sqlstate::INVALID_PARAMETER_VALUE,
            format!("invalid value for \"{name}\": \"{value}\""),
        )
        .hint(format!("Valid are {valid}."))
    }

    /// A setting that can only be shown.
    pub(crate) fn read_only_setting(name: &str) -> Self {
        Fault::new(
            Sqlstate::CANT_CHANGE_RUNTIME_PARAM,
            format!("parameter \"{name}\" cannot be changed"),
        )
    }

    /// A position that the session asks for is not known in time.
    pub(crate) fn no_position() -> Self {
        Fault::new(
            Sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the primary's position after the session's last write is not known yet",
        )
        .hint("The primary does not answer the monitor; try again.")
        .by_server()
    }

    /// Appends the ErrorResponse.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let severity = if self.is_fatal {
            Severity::Fatal
        } else {
            Severity::Error
        };
        let message = format!("pgweir: {}", self.message);
        let mut builder = ErrorBuilder::new(severity, self.sqlstate.0, &message);
        if let Some(detail) = &self.detail {
            builder = builder.detail(detail);
        }
        if let Some(hint) = &self.hint {
            builder = builder.hint(hint);
        }
        builder.encode(out);
    }
}
