//! One client of the console, from the end of its login to the end of its connection.

use std::sync::Arc;
use std::time::Duration;

use pgweir_wire::backend::{Authentication, BackendKeyData, Severity};
use pgweir_wire::frontend::Message;
use pgweir_wire::{DecodeError, Deframer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::answer::refusal;
use super::desk::Desk;
use super::functions::Caller;
use super::machine::{Flow, Machine, put_error};
use super::parameters::Parameters;
use super::run::{Runner, STATEMENT_LIMIT, Stream};
use crate::control::{Control, Refusal};

/// The largest message: a statement, with room for its parameters.
const MESSAGE_LIMIT: usize = 2 * STATEMENT_LIMIT;

/// How much is written before it is sent, in bytes.
const OUTPUT: usize = 64 << 10;

/// How long a client may leave what is sent to it unread. Chosen: longer than a network stalls, and no console is held for ever
/// by one that is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Who is logged in to the console.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its role.
    pub user: Arc<str>,
    /// Whether it stands in `admin.users`; else it may only look.
    pub may_change: bool,
    /// The console's database, as the client named it.
    pub database: Arc<str>,
    /// The parameters of its startup packet, `user` and `database` left out.
    pub parameters: Vec<(String, String)>,
    /// The process ID that a CancelRequest names.
    pub process_id: u32,
    /// The secret that it brings: 4 bytes, or up to 256 in protocol 3.2.
    pub secret: Vec<u8>,
    /// Grows with each CancelRequest that brought the secret.
    pub cancel: watch::Receiver<u64>,
    /// What it shares with all other sessions of the console: one for the proxy.
    pub desk: Arc<Desk>,
}

/// Serves a client whose login has succeeded, up to the end of its connection. It writes everything from AuthenticationOk on:
/// parameters, BackendKeyData, ReadyForQuery.
///
/// To be run on a current-thread runtime, with its clock and I/O enabled, on a thread of its own: a statement is understood
/// and computed on a thread for blocking work, a command here.
///
/// # Cancel safety
/// May be dropped at any time: a statement that runs is interrupted.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    session: Session,
    control: Arc<dyn Control>,
) {
    let mut connection = Connection {
        stream,
        input: Deframer::new(MESSAGE_LIMIT),
        out: Vec::new(),
    };
    // Whatever ends a connection, there is nobody left to tell.
    if let Err(Gone) = converse(&mut connection, session, control).await {
        tracing::debug!("the client of the console is gone");
    }
}

/// The client has closed its connection, or does not read any more.
#[derive(Debug)]
struct Gone;

impl From<std::io::Error> for Gone {
    fn from(_: std::io::Error) -> Gone {
        Gone
    }
}

struct Connection<S> {
    stream: S,
    input: Deframer,
    out: Vec<u8>,
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    session: Session,
    control: Arc<dyn Control>,
) -> Result<(), Gone> {
    Authentication::Ok.encode(&mut connection.out);
    let caller = Caller {
        user: Arc::clone(&session.user),
        database: Arc::clone(&session.database),
        process_id: session.process_id,
    };
    let parameters = Parameters::new(&session.user, &session.parameters);
    let runner = Runner::new(
        caller,
        session.may_change,
        parameters,
        control,
        session.desk,
        session.cancel,
    );
    let mut machine = match runner {
        Ok(runner) => Machine::new(runner),
        Err(refused) => return connection.end(&refused).await,
    };
    machine.greet(&mut connection.out);
    BackendKeyData {
        process_id: session.process_id,
        secret: &session.secret,
    }
    .encode(&mut connection.out);
    machine.ready(&mut connection.out);
    connection.flush().await?;
    loop {
        let frame = match connection.input.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                connection.flush().await?;
                connection.read().await?;
                continue;
            }
            Err(error) => return connection.end(&malformed(&error)).await,
        };
        let message = match Message::decode(frame.as_frame()) {
            Ok(message) => message,
            Err(error) => return connection.end(&malformed(&error)).await,
        };
        match connection.attend(&mut machine, message).await? {
            Flow::More if connection.out.len() < OUTPUT => {}
            Flow::More | Flow::Flush => connection.flush().await?,
            Flow::End => return connection.flush().await,
            Flow::Stream(stream, asker) => {
                let lines = connection.stream(&mut machine, stream).await?;
                machine.stream_ended(lines, asker, &mut connection.out);
                connection.flush().await?;
            }
        }
    }
}

fn malformed(error: &DecodeError) -> Refusal {
    let state = match error {
        DecodeError::TooLarge { .. } => b"54000",
        _ => b"08P01",
    };
    refusal(state, error.to_string())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn flush(&mut self) -> Result<(), Gone> {
        if self.out.is_empty() {
            return Ok(());
        }
        let Connection { stream, out, .. } = self;
        // Each part has its time: a large answer may take long, a client that has stopped reading may not.
        for part in out.chunks(OUTPUT) {
            let written = tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(part));
            written.await.map_err(|_| Gone)??;
        }
        let flushed = tokio::time::timeout(WRITE_TIMEOUT, stream.flush());
        flushed.await.map_err(|_| Gone)??;
        self.out.clear();
        // What one large answer took is not kept for the next.
        self.out.shrink_to(OUTPUT);
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Gone> {
        let read = self.stream.read_buf(self.input.buffer_mut()).await?;
        if read == 0 { Err(Gone) } else { Ok(()) }
    }

    /// Ends the conversation with an error.
    async fn end(&mut self, refused: &Refusal) -> Result<(), Gone> {
        put_error(Severity::Fatal, refused, &mut self.out);
        self.flush().await
    }

    /// Has a message dealt with, and hears meanwhile whether the client is still there.
    async fn attend(&mut self, machine: &mut Machine, message: Message<'_>) -> Result<Flow, Gone> {
        let Connection { stream, input, out } = self;
        let work = machine.take(message, out);
        tokio::pin!(work);
        loop {
            let has_room = input.pending() < MESSAGE_LIMIT;
            tokio::select! {
                biased;
                flow = &mut work => return Ok(flow),
                read = stream.read_buf(input.buffer_mut()), if has_room => {
                    if read? == 0 {
                        return Err(Gone);
                    }
                }
            }
        }
    }

    /// Sends lines as they come and returns how many: up to their limit, their time, the end of who is traced, or a request to cancel.
    async fn stream(&mut self, machine: &mut Machine, mut stream: Stream) -> Result<u64, Gone> {
        let end = stream.duration.map(|duration| Instant::now() + duration);
        let limit = stream.limit.unwrap_or(u64::MAX);
        let mut count = 0;
        self.flush().await?;
        while count < limit {
            let timer = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let has_room = self.input.pending() < MESSAGE_LIMIT;
            tokio::select! {
                line = stream.lines.recv() => match line {
                    Some(line) => Machine::line(&line, &mut self.out),
                    None => break,
                },
                () = machine.runner.cancelled() => break,
                () = timer => break,
                read = self.stream.read_buf(self.input.buffer_mut()), if has_room => {
                    if read? == 0 {
                        return Err(Gone);
                    }
                    continue;
                }
            }
            count += 1;
            self.flush().await?;
        }
        Ok(count)
    }
}
