//! One client session and one server connection without sockets.

use std::sync::Arc;

use pgweir_session::StatementTable;
use pgweir_session::client::{Portion, ScanMode};
use pgweir_session::{
    ClientSession, Limits, ParameterSet, Received, ReplyEvent, Scan, ServerSession, Tables,
    Violation,
};
use pgweir_sql::plan::PlanTable;
use pgweir_wire::{Gather, TransactionStatus};

use crate::notation::{client_bytes, server_bytes, show_client, show_server};

/// Limits that no test reaches by chance.
pub(crate) const LIMITS: Limits = Limits {
    max_message: 1 << 20,
    route_buffer: 64 * 1024,
    pipeline: 1000,
};

/// Makes the tables of worker 1.
pub(crate) fn tables() -> Tables {
    Tables {
        plans: PlanTable::new(100),
        statements: StatementTable::new(1, 1000, 1 << 20),
        epoch: 0,
    }
}

/// Makes a set of run-time parameters.
pub(crate) fn parameters(entries: &[(&str, &str)]) -> Arc<ParameterSet> {
    let entries = entries
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Arc::new(ParameterSet::from_pairs(entries))
}

/// A client, a server, and what they share.
pub(crate) struct Rig {
    pub(crate) client: ClientSession,
    pub(crate) server: ServerSession,
    pub(crate) tables: Tables,
}

/// What a server is asked behind the last statement of a switch of parameters.
pub(crate) const GUARDED: &str =
    "PREPARE pgweir_guard AS SELECT 1) | Describe(S pgweir_guard) | Close(S pgweir_guard)";

/// What a server says to a switch of parameters that succeeds.
pub(crate) const SWITCHED: &str = "Row(CET) | Complete(SELECT 1) | Complete(PREPARE) | Ready(I) | \
                                   ParameterDescription | RowDescription(c) | CloseComplete";

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig::with(LIMITS, 100)
    }

    pub(crate) fn with(limits: Limits, statement_limit: usize) -> Rig {
        Rig {
            client: ClientSession::new(limits, parameters(&[]), 1),
            server: ServerSession::new(Vec::new(), statement_limit),
            tables: tables(),
        }
    }

    /// Makes another client the session at hand; what is returned is the one before.
    pub(crate) fn next_client(&mut self) -> ClientSession {
        std::mem::replace(
            &mut self.client,
            ClientSession::new(LIMITS, parameters(&[]), 1),
        )
    }

    /// The session begins to use the server; returns what goes in front of its first batch.
    pub(crate) fn lease(&mut self, epoch: u64) -> String {
        let mut gather = Gather::new();
        self.tables.epoch = epoch;
        self.client
            .begin_lease(&mut self.server, epoch, b"", &mut gather);
        show_client(&bytes_of(&gather, &[]))
    }

    pub(crate) fn scan(&mut self, text: &str, mode: ScanMode) -> Result<Scan, Violation> {
        self.client
            .scan(&client_bytes(text), mode, &mut self.tables)
    }

    /// The client sends whole batches; returns what the server gets.
    pub(crate) fn send(&mut self, text: &str) -> String {
        show_client(&self.send_bytes(&client_bytes(text), ScanMode::Whole).1)
    }

    /// The client sends messages to the server that it has.
    pub(crate) fn stream(&mut self, text: &str) -> String {
        show_client(&self.send_bytes(&client_bytes(text), ScanMode::Stream).1)
    }

    /// Passes on all that can be; returns how much of the input that was, and what the server gets.
    pub(crate) fn send_bytes(&mut self, input: &[u8], mode: ScanMode) -> (usize, Vec<u8>) {
        let mut to_server = Vec::new();
        let mut at = 0;
        while let Scan::Ready { portion, len } = self
            .client
            .scan(&input[at..], mode, &mut self.tables)
            .unwrap()
        {
            assert_ne!(portion, Portion::Terminate);
            let mut gather = Gather::new();
            self.client
                .forward(&input[at..], len, &mut self.server, &mut gather)
                .unwrap();
            to_server.extend(bytes_of(&gather, &input[at..]));
            at += len;
        }
        (at, to_server)
    }

    /// The client sends a batch that the proxy answers; returns the answer.
    pub(crate) fn answer(&mut self, text: &str) -> String {
        let input = client_bytes(text);
        let scan = self
            .client
            .scan(&input, ScanMode::Whole, &mut self.tables)
            .unwrap();
        assert_eq!(
            scan,
            Scan::Ready {
                portion: Portion::Batch,
                len: input.len()
            }
        );
        let mut gather = Gather::new();
        self.client
            .answer_locally(&input, input.len(), TransactionStatus::Idle, &mut gather)
            .unwrap();
        show_server(&bytes_of(&gather, &input))
    }

    /// Hands in a server's bytes.
    pub(crate) fn receive(&mut self, input: &[u8]) -> Result<(Received, Vec<u8>), Violation> {
        let mut gather = Gather::new();
        let received = self.client.receive(input, &mut self.server, &mut gather)?;
        Ok((received, bytes_of(&gather, input)))
    }

    /// The server replies; returns what the client gets.
    pub(crate) fn reply(&mut self, text: &str) -> String {
        let input = server_bytes(text);
        let (received, out) = self.receive(&input).unwrap();
        assert_eq!(
            received,
            Received {
                consumed: input.len(),
                event: ReplyEvent::None
            }
        );
        show_server(&out)
    }

    /// The server replies, and the client gets just that.
    pub(crate) fn passes(&mut self, text: &str) {
        assert_eq!(self.reply(text), text);
    }

    /// The server replies in a way that breaks the protocol.
    pub(crate) fn violates(&mut self, text: &str) -> Violation {
        self.receive(&server_bytes(text)).unwrap_err()
    }

    /// Prepares statements by name, as a session does that is then settled.
    pub(crate) fn prepare(&mut self, name: &str, sql: &str) {
        self.send(&format!("Parse({name},{sql}) | Sync"));
        self.reply("ParseComplete | Ready(I)");
        assert!(self.client.is_settled());
    }
}

/// Returns what a gather stands for.
pub(crate) fn bytes_of(gather: &Gather, input: &[u8]) -> Vec<u8> {
    let bytes = gather.slices(input).collect::<Vec<_>>().concat();
    assert_eq!(bytes.len(), gather.len());
    bytes
}
