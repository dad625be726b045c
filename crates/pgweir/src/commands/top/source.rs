//! Asks the console for a picture every second, on a thread of its own, so that a slow network does not stall the keyboard.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::board::View;

/// How long an answer of the console may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A table as the console answered it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// The names of its columns.
    pub(super) columns: Vec<String>,
    /// Its rows; NULL is an empty text.
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns the place of a column.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|known| known == name)
    }
}

/// What was asked for at one moment.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// When it was asked for.
    pub(super) asked_at: Instant,
    /// A table per view, in the order of [`View::ALL`].
    pub(super) tables: Vec<Table>,
}

/// The asking thread.
pub(super) struct Source {
    config: Config,
    interval: Duration,
    pictures: SyncSender<Result<Picture, String>>,
}

impl Source {
    /// Starts asking; it ends when the receiver is dropped.
    pub(super) fn start(
        config: Config,
        interval: Duration,
    ) -> Result<Receiver<Result<Picture, String>>, std::io::Error> {
        // One picture in store: an old one is of no use.
        let (pictures, receiver) = sync_channel(1);
        let source = Source {
            config,
            interval,
            pictures,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("pgweir-top".to_owned())
            .spawn(move || runtime.block_on(source.ask_for_ever()))?;
        Ok(receiver)
    }

    /// Asks, and connects again where the connection was lost.
    async fn ask_for_ever(self) {
        loop {
            let error = match self.ask_on_a_connection().await {
                Ok(()) => return,
                Err(error) => error,
            };
            if self.pictures.send(Err(error)).is_err() {
                return;
            }
            tokio::time::sleep(self.interval.max(Duration::from_secs(1))).await;
        }
    }

    /// Asks on one connection; `Ok` where nobody listens any more.
    async fn ask_on_a_connection(&self) -> Result<(), String> {
        let connecting = tokio::time::timeout(ANSWER_WITHIN, self.config.connect(NoTls)).await;
        let (client, connection) = connecting
            .map_err(|_| "the console does not answer".to_owned())?
            .map_err(|error| full(&error))?;
        let driver = tokio::spawn(connection);
        let asked = self.ask_repeatedly(&client).await;
        driver.abort();
        asked
    }

    async fn ask_repeatedly(&self, client: &Client) -> Result<(), String> {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let picture = tokio::time::timeout(ANSWER_WITHIN, picture(client)).await;
            let picture = picture.map_err(|_| "the console does not answer".to_owned())??;
            if self.pictures.send(Ok(picture)).is_err() {
                return Ok(());
            }
        }
    }
}

/// Takes a picture.
async fn picture(client: &Client) -> Result<Picture, String> {
    let asked_at = Instant::now();
    let mut tables = Vec::new();
    for view in View::ALL {
        let messages = client.simple_query(view.sql()).await;
        tables.push(table(&messages.map_err(|error| full(&error))?));
    }
    Ok(Picture { asked_at, tables })
}

fn table(messages: &[SimpleQueryMessage]) -> Table {
    let mut table = Table::default();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                table.columns = columns.iter().map(|c| c.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                let value = |index| row.get(index).unwrap_or_default().to_owned();
                table.rows.push((0..row.len()).map(value).collect());
            }
            _ => {}
        }
    }
    table
}

/// Returns an error with what the server said of it.
fn full(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) if *said.code() == SqlState::UNDEFINED_TABLE => format!(
            "that database is not the console, which admin.database names, by default pgweir: {}",
            said.message()
        ),
        Some(said) => {
            let message = said.message();
            let message = message.strip_prefix("pgweir: ").unwrap_or(message);
            match said.hint() {
                Some(hint) => format!("{message} ({hint})"),
                None => message.to_owned(),
            }
        }
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}
