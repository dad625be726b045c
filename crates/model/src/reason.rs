//! Why a statement went where it went, and why a session holds its server: closed sets with stable names.
//!
//! The snake_case names are part of the interface: the same words stand in the console, the metrics' labels and the logs.

use std::fmt;

macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value, in order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// Returns the stable snake_case name.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named! {
    /// The reason of a routing decision.
    Reason {
        /// A read that both readings vouch for.
        Read = "read",
        /// A read that the tokens vouch for and the tree reading could not parse.
        ReadByTokens = "read_by_tokens",
        /// A transaction that was opened READ ONLY.
        ReadOnlyTransaction = "read_only_transaction",
        /// It writes, changes the schema, or is a utility that is not read-only.
        Write = "write",
        /// It locks rows.
        RowLock = "row_lock",
        /// It calls a function that may write.
        VolatileFunction = "volatile_function",
        /// It reads something that only the primary can answer.
        PrimaryOnly = "primary_only",
        /// It reads an unlogged table, which a standby cannot.
        UnloggedTable = "unlogged_table",
        /// Neither reading can vouch that it is a read.
        Unparsed = "unparsed",
        /// It opens a transaction that may write.
        Transaction = "transaction",
        /// Inside a transaction that has a server.
        InTransaction = "in_transaction",
        /// The session is pinned to a server connection.
        Pinned = "pinned",
        /// The pool mode gives the session one server connection for its life.
        SessionPooling = "session_pooling",
        /// A hint comment said so.
        Hint = "hint",
        /// The session's `pgweir.route` said so.
        SessionSetting = "session_setting",
        /// A rule of the configuration said so.
        Rule = "rule",
        /// `splitting` is off for the database.
        SplittingOff = "splitting_off",
        /// `splitting` is `observe` for the database.
        Observed = "observed",
        /// No replica is configured or known.
        NoReplica = "no_replica",
        /// No replica is healthy.
        ReplicaDown = "replica_down",
        /// Every healthy replica is over `max_lag`.
        ReplicaLag = "replica_lag",
        /// No replica has replayed what this session wrote.
        NotReplayed = "not_replayed",
        /// The batch was sent in part by a Flush: what follows is not known, and must run on the same server.
        OpenBatch = "open_batch",
        /// The batch was larger than `route_buffer`.
        Oversize = "oversize",
        /// A shape that failed on a replica with an error that only recovery raises.
        Learned = "learned",
        /// The replay on the primary after such an error.
        Rerouted = "rerouted",
        /// A fastpath function call.
        FunctionCall = "function_call",
        /// It signals a server process that serves another client.
        Signal = "signal",
        /// Answered by the proxy itself.
        Local = "local",
    }
}

named! {
    /// Why a session stays on its server connection beyond what its pool mode asks for.
    PinReason {
        /// `SET`, `RESET` or `set_config(..., false)`.
        Setting = "setting",
        /// A temporary table.
        TempTable = "temp_table",
        /// `LISTEN`.
        Listen = "listen",
        /// A cursor `WITH HOLD`.
        HoldCursor = "hold_cursor",
        /// A session-level advisory lock.
        AdvisoryLock = "advisory_lock",
        /// SQL-level `PREPARE`.
        SqlPrepare = "sql_prepare",
        /// `LOAD`.
        Load = "load",
        /// `setseed`.
        SetSeed = "setseed",
        /// Sequence state of the session: `currval`, `lastval`.
        Sequence = "sequence",
        /// A statement too large to be read, which may have done any of these.
        Unread = "unread",
    }
}

impl PinReason {
    /// Returns whether the state survives `DISCARD ALL`, so that the server connection is closed with the session.
    pub fn survives_discard(self) -> bool {
        matches!(
            self,
            PinReason::SetSeed | PinReason::Load | PinReason::Unread
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_snake_case() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        assert!(
            names
                .iter()
                .all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
