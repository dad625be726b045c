//! SQLSTATE codes that pgweir raises or recognises.
//!
//! See <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::fmt;

/// A five-character SQLSTATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sqlstate(pub [u8; 5]);

impl Sqlstate {
    /// `08P01` protocol_violation.
    pub const PROTOCOL_VIOLATION: Sqlstate = Sqlstate(*b"08P01");
    /// `08006` connection_failure.
    pub const CONNECTION_FAILURE: Sqlstate = Sqlstate(*b"08006");
    /// `0A000` feature_not_supported.
    pub const FEATURE_NOT_SUPPORTED: Sqlstate = Sqlstate(*b"0A000");
    /// `22023` invalid_parameter_value.
    pub const INVALID_PARAMETER_VALUE: Sqlstate = Sqlstate(*b"22023");
    /// `25006` read_only_sql_transaction.
    pub const READ_ONLY_SQL_TRANSACTION: Sqlstate = Sqlstate(*b"25006");
    /// `26000` invalid_sql_statement_name.
    pub const INVALID_SQL_STATEMENT_NAME: Sqlstate = Sqlstate(*b"26000");
    /// `25P03` idle_in_transaction_session_timeout.
    pub const IDLE_IN_TRANSACTION_TIMEOUT: Sqlstate = Sqlstate(*b"25P03");
    /// `28000` invalid_authorization_specification.
    pub const INVALID_AUTHORIZATION: Sqlstate = Sqlstate(*b"28000");
    /// `28P01` invalid_password.
    pub const INVALID_PASSWORD: Sqlstate = Sqlstate(*b"28P01");
    /// `3F000` invalid_schema_name.
    pub const INVALID_SCHEMA_NAME: Sqlstate = Sqlstate(*b"3F000");
    /// `40001` serialization_failure.
    pub const SERIALIZATION_FAILURE: Sqlstate = Sqlstate(*b"40001");
    /// `40P01` deadlock_detected.
    pub const DEADLOCK_DETECTED: Sqlstate = Sqlstate(*b"40P01");
    /// `42501` insufficient_privilege.
    pub const INSUFFICIENT_PRIVILEGE: Sqlstate = Sqlstate(*b"42501");
    /// `42703` undefined_column.
    pub const UNDEFINED_COLUMN: Sqlstate = Sqlstate(*b"42703");
    /// `42883` undefined_function.
    pub const UNDEFINED_FUNCTION: Sqlstate = Sqlstate(*b"42883");
    /// `57P02` crash_shutdown.
    pub const CRASH_SHUTDOWN: Sqlstate = Sqlstate(*b"57P02");
    /// `3D000` invalid_catalog_name.
    pub const INVALID_CATALOG_NAME: Sqlstate = Sqlstate(*b"3D000");
    /// `42601` syntax_error.
    pub const SYNTAX_ERROR: Sqlstate = Sqlstate(*b"42601");
    /// `42704` undefined_object.
    pub const UNDEFINED_OBJECT: Sqlstate = Sqlstate(*b"42704");
    /// `42P05` duplicate_prepared_statement.
    pub const DUPLICATE_PREPARED_STATEMENT: Sqlstate = Sqlstate(*b"42P05");
    /// `42P01` undefined_table.
    pub const UNDEFINED_TABLE: Sqlstate = Sqlstate(*b"42P01");
    /// `53300` too_many_connections.
    pub const TOO_MANY_CONNECTIONS: Sqlstate = Sqlstate(*b"53300");
    /// `53400` configuration_limit_exceeded.
    pub const CONFIGURATION_LIMIT_EXCEEDED: Sqlstate = Sqlstate(*b"53400");
    /// `54000` program_limit_exceeded.
    pub const PROGRAM_LIMIT_EXCEEDED: Sqlstate = Sqlstate(*b"54000");
    /// `55P02` cant_change_runtime_param.
    pub const CANT_CHANGE_RUNTIME_PARAM: Sqlstate = Sqlstate(*b"55P02");
    /// `55000` object_not_in_prerequisite_state.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Sqlstate = Sqlstate(*b"55000");
    /// `55006` object_in_use.
    pub const OBJECT_IN_USE: Sqlstate = Sqlstate(*b"55006");
    /// `57014` query_canceled.
    pub const QUERY_CANCELED: Sqlstate = Sqlstate(*b"57014");
    /// `57P01` admin_shutdown.
    pub const ADMIN_SHUTDOWN: Sqlstate = Sqlstate(*b"57P01");
    /// `57P03` cannot_connect_now.
    pub const CANNOT_CONNECT_NOW: Sqlstate = Sqlstate(*b"57P03");
    /// `57P05` idle_session_timeout.
    pub const IDLE_SESSION_TIMEOUT: Sqlstate = Sqlstate(*b"57P05");
    /// `58000` system_error.
    pub const SYSTEM_ERROR: Sqlstate = Sqlstate(*b"58000");
    /// `XX000` internal_error.
    pub const INTERNAL_ERROR: Sqlstate = Sqlstate(*b"XX000");
    /// `01000` warning.
    pub const WARNING: Sqlstate = Sqlstate(*b"01000");

    /// Returns the five bytes as text; anything that is not ASCII is shown as `?????`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("?????")
    }
}

impl fmt::Display for Sqlstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
