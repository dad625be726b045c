//! `pgweir top`: the running proxy in a terminal, second by second.
//!
//! It is a client of the console like any other: what it shows is what `SELECT` from the console's tables shows, over a normal
//! connection, so it works wherever psql does.

mod board;
mod screen;
mod source;

use std::io::IsTerminal as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use self::board::{Board, View};
use self::source::{Picture, Source};
use crate::args::Top;
use crate::failure::Failure;
use crate::output;

/// How long the keyboard is waited for before the screen is looked at again. Chosen: below what a person notices.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// What the URL should be like.
const EXPECTED: &str = "what is wanted is like postgres://admin:secret@localhost:6432/pgweir";

/// How long the first picture may take.
const FIRST_WITHIN: Duration = Duration::from_secs(15);

/// Shows the proxy until the user has seen enough.
pub(crate) fn run(arguments: &Top) -> Result<(), Failure> {
    let config: Config = (arguments.url.parse())
        .map_err(|error: tokio_postgres::Error| Failure::Console(format!("{error}: {EXPECTED}")))?;
    let interval = Duration::from_secs_f64(arguments.interval.clamp(0.1, 3600.0));
    let mut board = Board::new(place_of(&config), interval);
    let pictures = Source::start(config, interval).map_err(Failure::io("start a thread"))?;
    let first = match pictures.recv_timeout(FIRST_WITHIN) {
        Ok(Ok(picture)) => picture,
        Ok(Err(error)) => return Err(Failure::Console(error)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            return Err(Failure::Console("the console does not answer".to_owned()));
        }
    };
    board.take(first);
    if arguments.once || !std::io::stdout().is_terminal() {
        // Rates need two pictures.
        if let Ok(Ok(second)) = pictures.recv_timeout(FIRST_WITHIN + interval) {
            board.take(second);
        }
        output::say(screen::plain(&mut board));
        return Ok(());
    }
    let terminal = ratatui::try_init().map_err(Failure::io("take over the terminal"))?;
    let shown = show(terminal, &mut board, &pictures);
    ratatui::restore();
    shown
}

/// Returns where the console is: hosts, ports, database. Nothing else of a connection string is for a screen.
fn place_of(config: &Config) -> String {
    let ports = config.get_ports();
    let host = |(index, host): (usize, &Host)| {
        let name = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        // One port holds for all hosts.
        let port = ports.get(index).or_else(|| ports.first());
        port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"))
    };
    let hosts: Vec<_> = config.get_hosts().iter().enumerate().map(host).collect();
    let database = config.get_dbname().map(|name| format!("/{name}"));
    format!("{}{}", hosts.join(","), database.unwrap_or_default())
}

/// Draws, and follows the keyboard.
fn show(
    mut terminal: DefaultTerminal,
    board: &mut Board,
    pictures: &Receiver<Result<Picture, String>>,
) -> Result<(), Failure> {
    loop {
        match pictures.try_recv() {
            Ok(Ok(picture)) => board.take(picture),
            Ok(Err(error)) => board.lose(error),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => board.lose("the console has gone".to_owned()),
        }
        (terminal.draw(|frame| screen::draw(frame, board)))
            .map_err(Failure::io("draw on the terminal"))?;
        if !event::poll(KEY_WAIT).map_err(Failure::io("read the keyboard"))? {
            continue;
        }
        let event = event::read().map_err(Failure::io("read the keyboard"))?;
        if let Event::Key(key) = event
            && key.kind != KeyEventKind::Release
            && !on_key(board, key)
        {
            return Ok(());
        }
    }
}

/// Follows a key; returns whether to go on.
fn on_key(board: &mut Board, key: KeyEvent) -> bool {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return false;
    }
    if board.is_filtering() {
        match key.code {
            KeyCode::Enter => board.end_filter(),
            KeyCode::Esc => board.clear_filter(),
            KeyCode::Backspace => board.shorten_filter(),
            KeyCode::Char(letter) => board.lengthen_filter(letter),
            _ => {}
        }
        return true;
    }
    match key.code {
        KeyCode::Char('q') => return false,
        KeyCode::Esc => board.clear_filter(),
        KeyCode::Char('/') => board.begin_filter(),
        KeyCode::Char('?' | 'h') => board.toggle_help(),
        KeyCode::Char(' ') => board.toggle_pause(),
        KeyCode::Char('r') => board.reverse(),
        KeyCode::Right | KeyCode::Char('s' | '>') => board.sort_by_next(1),
        KeyCode::Left | KeyCode::Char('<') => board.sort_by_next(-1),
        KeyCode::Down | KeyCode::Char('j') => board.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => board.scroll(-1),
        KeyCode::PageDown => board.scroll(20),
        KeyCode::PageUp => board.scroll(-20),
        KeyCode::Tab => board.turn(1),
        KeyCode::BackTab => board.turn(-1),
        KeyCode::Char(digit) => {
            let number = digit
                .to_digit(10)
                .and_then(|digit| usize::try_from(digit).ok());
            let view = number.and_then(|number| View::ALL.get(number.checked_sub(1)?));
            if let Some(view) = view {
                board.look_at(*view);
            }
        }
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(board: &mut Board, keys: &str) -> bool {
        keys.chars().all(|key| {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{1b}' => KeyCode::Esc,
                other => KeyCode::Char(other),
            };
            on_key(board, KeyEvent::new(code, KeyModifiers::NONE))
        })
    }

    #[test]
    fn neither_a_password_nor_a_user_is_in_the_header_however_they_are_given() {
        for (url, place) in [
            ("postgres://admin:secret@db:6432/pgweir", "db:6432/pgweir"),
            (
                "postgres://db:6432/pgweir?user=admin&password=secret",
                "db:6432/pgweir",
            ),
            (
                "postgres://admin:se%40cret@[::1]:6432,h2:6433/pgweir",
                "::1:6432,h2:6433/pgweir",
            ),
            (
                "host=db port=6432 user=admin password=secret dbname=pgweir",
                "db:6432/pgweir",
            ),
            (
                "host=a,b port=6432 password='se @cret' dbname=p",
                "a:6432,b:6432/p",
            ),
            ("host=/run/pgweir user=admin", "/run/pgweir"),
        ] {
            assert_eq!(place_of(&url.parse().unwrap()), place, "{url}");
        }
    }

    #[test]
    fn a_letter_in_a_filter_is_no_command() {
        let mut board = Board::new("localhost/pgweir".to_owned(), Duration::from_secs(1));
        assert!(press(&mut board, "/quiet\n"));
        assert_eq!(board.filter(), "quiet");
        assert!(press(&mut board, "\u{1b}"));
        assert_eq!(board.filter(), "");
        assert!(!press(&mut board, "q"));
    }

    #[test]
    fn digits_and_tab_turn_to_other_views() {
        let mut board = Board::new("localhost/pgweir".to_owned(), Duration::from_secs(1));
        press(&mut board, "3");
        assert_eq!(board.view(), View::ALL[2]);
        press(&mut board, "\t");
        assert_eq!(board.view(), View::ALL[3]);
        press(&mut board, "9");
        assert_eq!(board.view(), View::ALL[3]);
    }

    #[test]
    fn control_c_ends_it_also_in_a_filter() {
        let mut board = Board::new("localhost/pgweir".to_owned(), Duration::from_secs(1));
        press(&mut board, "/");
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(!on_key(&mut board, key));
    }
}
