//! Sessions that share servers, as the proxy relays them, without sockets: bytes lie in buffers, and whoever holds the
//! buffers decides when how many of them move on.

use pgweir_session::client::{Marks, Portion, ScanMode, is_read};
use pgweir_session::server::Ledger;
use pgweir_session::{
    ClientSession, ReplyEvent, Scan, ServerSession, StatementId, Tables, Violation,
};
use pgweir_wire::{Gather, TransactionStatus};

use crate::model::Model;
use crate::rig::bytes_of;

/// A server connection and the server behind it.
pub(crate) struct Backend {
    pub(crate) model: Model,
    pub(crate) session: ServerSession,
    /// Bytes on their way to the server, and from it.
    pub(crate) to: Vec<u8>,
    pub(crate) from: Vec<u8>,
    /// The part of a reply that waits for its rest.
    carry: Vec<u8>,
    statement_limit: usize,
    is_leased: bool,
}

impl Backend {
    pub(crate) fn new(statement_limit: usize, is_replica: bool) -> Backend {
        let mut model = Model::new(&[]);
        model.is_replica = is_replica;
        Backend {
            model,
            session: ServerSession::new(Vec::new(), statement_limit),
            to: Vec::new(),
            from: Vec::new(),
            carry: Vec::new(),
            statement_limit,
            is_leased: false,
        }
    }

    /// The server takes up to `count` bytes and replies.
    pub(crate) fn serve(&mut self, count: usize) {
        let count = count.min(self.to.len());
        let bytes: Vec<u8> = self.to.drain(..count).collect();
        let replies = self.model.feed(&bytes);
        self.from.extend(replies);
    }

    /// What the session believes of the server must be so: otherwise statements would be missing or exist twice.
    pub(crate) fn check(&mut self) {
        let names = self.model.statements.keys();
        // That of no client's.
        let names: Vec<_> = names.filter(|name| *name != b"pgweir_taken").collect();
        assert_eq!(
            self.session.statements.len(),
            names.len(),
            "statements known and there"
        );
        for name in names {
            let name = String::from_utf8(name.clone()).unwrap();
            let number = name
                .strip_prefix("pgweir_1_")
                .expect("a name of ours")
                .parse::<u64>()
                .unwrap();
            assert!(
                self.session.statements.touch(StatementId(1 << 48 | number)),
                "{name} is there and not known"
            );
        }
        if self.session.unnamed.is_some() {
            assert!(
                self.model.unnamed.is_some(),
                "there is no unnamed statement"
            );
        }
    }

    /// Makes it clean for another session, as the proxy does aside; opens another where that cannot be done.
    fn reset(&mut self) {
        if self.session.reset_sql().is_none() {
            *self = Backend::new(self.statement_limit, self.model.is_replica);
            return;
        }
        if self.session.status != TransactionStatus::Idle {
            self.model.run("ROLLBACK");
            self.session.status = TransactionStatus::Idle;
        }
        if let Some(sql) = self.session.reset_sql().filter(|sql| !sql.is_empty()) {
            self.model.run(sql);
            self.session.reset_done();
        }
        assert!(self.session.is_clean());
    }
}

/// The server connection that a session has.
struct Held {
    server: usize,
    stage: Stage,
    is_pinned: bool,
}

/// How far a session has come with a server connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fresh,
    Used,
}

/// A client's session and its buffers.
pub(crate) struct Session {
    pub(crate) client: ClientSession,
    /// What the client has sent and the session has not taken.
    pub(crate) input: Vec<u8>,
    /// What the client has been given.
    pub(crate) got: Vec<u8>,
    held: Option<Held>,
    parked: Option<(Portion, usize)>,
    /// It waits for replies before it looks at more input.
    is_blocked: bool,
    is_oversize: bool,
    /// The batch that a replica may refuse.
    replay_batch: Vec<u8>,
    replay: Replay,
}

/// What becomes of the batch that a replica may refuse.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replay {
    None,
    /// It has been refused; the replica still talks.
    Refused,
    /// It stands in front of the input, for the primary.
    Due,
}

/// What became of a portion.
enum Act {
    Done,
    /// It waits for replies, or for a server.
    Park,
    NoServer,
    /// It waits likewise and is looked at anew.
    Rescan,
}

impl Session {
    pub(crate) fn new(client: ClientSession) -> Session {
        Session {
            client,
            input: Vec::new(),
            got: Vec::new(),
            held: None,
            parked: None,
            is_blocked: false,
            is_oversize: false,
            replay_batch: Vec::new(),
            replay: Replay::None,
        }
    }

    /// Returns what it is at, for a person to read.
    pub(crate) fn describe(&self, servers: &[Backend]) -> String {
        let server = self
            .server()
            .map(|server| (server, servers[server].to.len(), servers[server].from.len()));
        format!(
            "server (to it, from it) {server:?}, blocked {}, parked {:?}, settled {}, in mid batch {}, {} bytes of input",
            self.is_blocked,
            self.parked,
            self.client.is_settled(),
            self.client.is_in_mid_batch(),
            self.input.len()
        )
    }

    /// Returns the server that it has.
    pub(crate) fn server(&self) -> Option<usize> {
        self.held.as_ref().map(|held| held.server)
    }

    /// Acts on as much of the input as can be acted on now. `choice` picks among the free servers.
    pub(crate) fn process(&mut self, servers: &mut [Backend], tables: &mut Tables, choice: usize) {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while !self.is_blocked && !self.client.is_pipeline_full() {
            let rest = &input[at..];
            let (portion, len) = match self.parked.take() {
                Some(parked) => parked,
                None if rest.is_empty() => break,
                None => match self.client.scan(rest, self.mode(servers), tables).unwrap() {
                    Scan::Ready { portion, len } => (portion, len),
                    Scan::Incomplete => break,
                    Scan::Oversize if self.on_oversize(servers, choice) => continue,
                    Scan::Oversize => break,
                },
            };
            match self.act(rest, portion, len, servers, (tables.epoch, choice)) {
                Act::Done => at += len,
                Act::Park => {
                    self.parked = Some((portion, len));
                    self.is_blocked = true;
                }
                Act::NoServer => {
                    self.parked = Some((portion, len));
                    break;
                }
                Act::Rescan => {
                    self.client.drop_batch();
                    self.is_blocked = true;
                }
            }
        }
        self.input = input[at..].to_vec();
        if self.client.is_settled()
            && self
                .held
                .as_ref()
                .is_some_and(|held| held.stage == Stage::Used)
        {
            self.release_if_over(servers);
        }
    }

    fn mode(&self, servers: &[Backend]) -> ScanMode {
        let Some(held) = &self.held else {
            return ScanMode::Whole;
        };
        let server = &servers[held.server].session;
        let is_settled_there = self.client.is_in_mid_batch()
            || self.is_oversize
            || held.is_pinned
            || server.is_copy_in()
            || (self.client.is_settled() && server.status != TransactionStatus::Idle);
        if is_settled_there {
            ScanMode::Stream
        } else {
            ScanMode::Whole
        }
    }

    /// Returns whether it can go on at once.
    fn on_oversize(&mut self, servers: &mut [Backend], choice: usize) -> bool {
        self.client.drop_batch();
        match self.server() {
            Some(server) if !servers[server].model.is_replica => {}
            Some(_) => {
                self.is_blocked = true;
                return false;
            }
            None if !self.acquire(servers, false, choice) => return false,
            None => {}
        }
        self.is_oversize = true;
        true
    }

    fn act(
        &mut self,
        rest: &[u8],
        portion: Portion,
        len: usize,
        servers: &mut [Backend],
        (epoch, choice): (u64, usize),
    ) -> Act {
        match portion {
            Portion::Terminate => panic!("no script terminates"),
            Portion::Ignored if self.held.is_none() => {
                self.client.skip_ignored(rest, len).unwrap();
                return Act::Done;
            }
            Portion::Ignored | Portion::Batch | Portion::Flushed | Portion::Piece => {}
        }
        let facts = self.client.facts();
        assert_eq!(
            facts.local_statements, 0,
            "no script asks the proxy for anything"
        );
        if self.client.must_wait() && !self.is_copy_in(servers) {
            return Act::Rescan;
        }
        // What is to be replayed comes first.
        if self.replay == Replay::Refused {
            return Act::Park;
        }
        if self.held.is_none() {
            if !facts.marks.has(Marks::NEEDS_SERVER) {
                let mut gather = Gather::new();
                self.client
                    .answer_locally(rest, len, TransactionStatus::Idle, &mut gather)
                    .unwrap();
                self.got.extend(bytes_of(&gather, rest));
                return Act::Done;
            }
            let is_read = facts
                .deciding
                .as_ref()
                .is_some_and(|plan| is_read(plan.classified.reason))
                && [Marks::WRITES, Marks::UNREAD, Marks::UNKNOWN_STATEMENT]
                    .iter()
                    .all(|mark| !facts.marks.has(*mark));
            let is_replay = self.replay == Replay::Due;
            if !self.acquire(servers, is_read && !is_replay, choice) {
                return Act::NoServer;
            }
            self.replay = Replay::None;
        } else if portion != Portion::Ignored && !self.may_ride_along(servers) {
            return Act::Park;
        }
        if self.must_prepare(servers) {
            self.prepare(servers, epoch);
        }
        self.send(rest, portion, len, servers);
        Act::Done
    }

    fn must_prepare(&self, servers: &[Backend]) -> bool {
        let Some(held) = &self.held else { return false };
        let server = &servers[held.server].session;
        match held.stage {
            Stage::Fresh => true,
            Stage::Used => {
                self.client.state.lacks()
                    && server.status != TransactionStatus::Failed
                    && self.client.is_settled()
                    && !self.client.is_in_mid_batch()
            }
        }
    }

    /// Sends what the server lacks.
    fn prepare(&mut self, servers: &mut [Backend], epoch: u64) {
        let Some(held) = &mut self.held else { return };
        let server = &mut servers[held.server];
        let mut gather = Gather::new();
        if held.stage == Stage::Used {
            self.client.restore(&mut server.session, &mut gather);
        } else {
            self.client
                .begin_lease(&mut server.session, epoch, b"", &mut gather);
        }
        server.to.extend(bytes_of(&gather, &[]));
    }

    fn is_copy_in(&self, servers: &[Backend]) -> bool {
        self.server()
            .is_some_and(|server| servers[server].session.is_copy_in())
    }

    fn may_ride_along(&self, servers: &[Backend]) -> bool {
        let Some(held) = &self.held else { return false };
        self.client.is_settled()
            || self.client.is_in_mid_batch()
            || held.is_pinned
            || !servers[held.server].model.is_replica
    }

    /// Takes a free server, a replica only for a read.
    fn acquire(&mut self, servers: &mut [Backend], is_read: bool, choice: usize) -> bool {
        let count = servers.len();
        let is_free = |server: &Backend| !server.is_leased && (is_read || !server.model.is_replica);
        let Some(found) = (0..count)
            .map(|i| (choice + i) % count)
            .find(|i| is_free(&servers[*i]))
        else {
            return false;
        };
        servers[found].is_leased = true;
        self.held = Some(Held {
            server: found,
            stage: Stage::Fresh,
            is_pinned: false,
        });
        true
    }

    fn send(&mut self, rest: &[u8], portion: Portion, len: usize, servers: &mut [Backend]) {
        self.is_oversize = false;
        let Some(held) = &mut self.held else { return };
        let server = &mut servers[held.server];
        let facts = self.client.facts();
        if facts.marks.has(Marks::SUSPECT) {
            server.session.mark(Ledger::Suspect);
        }
        if let Some(reason) = facts.pin {
            server.session.mark_pin(reason);
            held.is_pinned = true;
        }
        self.client.set_owns_server(held.is_pinned);
        let mut gather = Gather::new();
        let is_first = held.stage != Stage::Used;
        held.stage = Stage::Used;
        let may_replay = is_first && portion == Portion::Batch && server.model.is_replica;
        if may_replay {
            self.replay_batch = rest[..len].to_vec();
        }
        self.client
            .forward(rest, len, &mut server.session, &mut gather)
            .unwrap();
        if may_replay {
            self.client.watch(pgweir_session::Watch::Read);
        }
        server.to.extend(bytes_of(&gather, rest));
        // Behind a piece as well: replies of ours that wait for the server's, while that waits for more, would fill the
        // pipeline.
        if self.client.is_settled() && portion != Portion::Batch {
            gather.clear();
            self.client.emit_due_fakes(&mut gather);
            self.got.extend(bytes_of(&gather, &[]));
        }
    }

    /// Takes up to `count` bytes from the server that it has.
    pub(crate) fn receive(
        &mut self,
        servers: &mut [Backend],
        count: usize,
    ) -> Result<(), Violation> {
        let Some(held) = &self.held else {
            return Ok(());
        };
        let server = &mut servers[held.server];
        let count = count.min(server.from.len());
        let mut input = std::mem::take(&mut server.carry);
        input.extend(server.from.drain(..count));
        let mut rest = input.as_slice();
        loop {
            let mut gather = Gather::new();
            let received = self
                .client
                .receive(rest, &mut server.session, &mut gather)?;
            self.got.extend(bytes_of(&gather, rest));
            rest = &rest[received.consumed..];
            if received.event == ReplyEvent::None {
                break;
            }
            self.replay = Replay::Refused;
            self.client.abandon_replies(&mut server.session);
        }
        server.carry = rest.to_vec();
        assert!(self.client.front_failure().is_none());
        if self.client.is_settled() {
            self.is_blocked = false;
            self.release_if_over(servers);
        } else if self.client.are_whole_batches_answered() || self.is_copy_in(servers) {
            self.is_blocked = false;
        }
        Ok(())
    }

    fn release_if_over(&mut self, servers: &mut [Backend]) {
        let Some(held) = &self.held else { return };
        let server = &mut servers[held.server];
        let is_quiet =
            server.session.is_between_messages() && server.to.is_empty() && server.carry.is_empty();
        if self.client.is_in_mid_batch()
            || server.session.status != TransactionStatus::Idle
            || !is_quiet
            || held.stage != Stage::Used
        {
            return;
        }
        assert!(
            server.from.is_empty(),
            "a settled server has nothing to say"
        );
        server.check();
        if held.is_pinned {
            return;
        }
        self.let_go(servers);
        if self.replay == Replay::Refused {
            self.replay = Replay::Due;
            let mut batch = std::mem::take(&mut self.replay_batch);
            batch.extend_from_slice(&self.input);
            self.input = batch;
            self.parked = None;
            self.is_blocked = false;
            self.client.drop_batch();
        }
    }

    /// Gives its server back; what it has left there is removed.
    pub(crate) fn let_go(&mut self, servers: &mut [Backend]) {
        let Some(held) = self.held.take() else { return };
        assert!(self.client.is_settled() && !self.client.is_in_mid_batch());
        let server = &mut servers[held.server];
        server.reset();
        server.check();
        server.is_leased = false;
    }
}
