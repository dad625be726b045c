//! What a client heard for a step, and the comparison of two such answers.

use std::{collections::BTreeMap, fmt::Write as _};

use pgweir_testkit::{Client, ClientError, Message};
use pgweir_wire::{
    TransactionStatus,
    backend::{self, field, tag},
};

/// The answer to a step as text, message by message, and the reported parameters at each ReadyForQuery.
#[derive(Debug, Default)]
pub(super) struct Heard {
    lines: Vec<String>,
    parameters: Vec<BTreeMap<String, String>>,
    /// Why it ended early.
    end: Option<String>,
}

impl Heard {
    /// Reads up to so many ReadyForQuery.
    pub(super) fn hear(client: &mut Client, ready_count: usize) -> Self {
        let mut heard = Self::default();
        while heard.parameters.len() < ready_count {
            match client.read() {
                Ok(message) => heard.note(&message, client),
                Err(error) => {
                    heard.end = Some(ending(&error));
                    return heard;
                }
            }
        }
        heard
    }

    fn note(&mut self, message: &Message, client: &Client) {
        match message.tag {
            // When a server reports a change is its own affair; what the client knows once the answer is complete is not.
            tag::PARAMETER_STATUS => {}
            tag::READY_FOR_QUERY => {
                self.lines.push(comparable(message));
                self.parameters.push(client.parameters().clone());
            }
            tag::ERROR_RESPONSE | tag::NOTICE_RESPONSE => self.lines.push(report(message)),
            _ => self.lines.push(comparable(message)),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// PostgreSQL refused to run a prepared statement since its result has other types by now. A proxy may prepare it anew.
    pub(super) fn is_refusal_to_replan(&self) -> bool {
        self.lines
            .iter()
            .any(|line| line.contains("cached plan must not change result type"))
    }

    pub(super) fn is_free_of_errors(&self) -> bool {
        self.end.is_none()
            && !self
                .lines
                .iter()
                .any(|line| line.starts_with("ErrorResponse"))
    }

    /// Returns the differences, `-` before what PostgreSQL says, `+` before what the proxy says.
    pub(super) fn difference(&self, proxy: &Self) -> Option<String> {
        let mut text = String::new();
        if self.lines != proxy.lines || self.end != proxy.end {
            for n in 0..self.lines.len().max(proxy.lines.len()) {
                let (left, right) = (self.lines.get(n), proxy.lines.get(n));
                if left == right {
                    let _infallible = writeln!(text, "  {}", left.map_or("", String::as_str));
                } else {
                    left.iter()
                        .for_each(|line| text.push_str(&format!("- {line}\n")));
                    right
                        .iter()
                        .for_each(|line| text.push_str(&format!("+ {line}\n")));
                }
            }
            self.end
                .iter()
                .for_each(|end| text.push_str(&format!("- {end}\n")));
            proxy
                .end
                .iter()
                .for_each(|end| text.push_str(&format!("+ {end}\n")));
        }
        for (n, (left, right)) in self.parameters.iter().zip(&proxy.parameters).enumerate() {
            differing_parameters(left, right).for_each(|(name, left, right)| {
                let of = |value: Option<&String>| {
                    value.map_or("(not reported)".to_owned(), |value| format!("{value:?}"))
                };
                text.push_str(&format!(
                    "at ReadyForQuery {n}, {name}:\n- {}\n+ {}\n",
                    of(left),
                    of(right)
                ));
            });
        }
        (!text.is_empty()).then_some(text)
    }
}

type Values<'a> = (&'a String, Option<&'a String>, Option<&'a String>);

pub(super) fn differing_parameters<'a>(
    left: &'a BTreeMap<String, String>,
    right: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = Values<'a>> {
    let only_right = right.keys().filter(|name| !left.contains_key(*name));
    left.keys()
        .chain(only_right)
        .map(|name| (name, left.get(name), right.get(name)))
        .filter(|(_, left, right)| left != right)
}

/// Prints an error or a notice with all that a client may look at; not the source line, which is the server's own affair.
/// Returns what must be the same: of a schema for temporary objects not its number, which is the server process's.
fn comparable(message: &Message) -> String {
    let text = message.comparable();
    let mut parts = text.split("pg_temp_");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "pg_temp_" + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

fn report(message: &Message) -> String {
    let mut text = message.name().to_owned();
    let fields = match message.decode() {
        Ok(backend::Message::ErrorResponse(error)) => error.fields,
        Ok(backend::Message::NoticeResponse(notice)) => notice.fields,
        _ => return message.to_string(),
    };
    for (code, value) in fields {
        if ![field::FILE, field::LINE, field::ROUTINE].contains(&code) {
            let _infallible = write!(
                text,
                " {}={:?}",
                char::from(code),
                String::from_utf8_lossy(value)
            );
        }
    }
    text
}

fn ending(error: &ClientError) -> String {
    match error {
        ClientError::Closed(_) | ClientError::Io { .. } => "the connection ended".to_owned(),
        ClientError::Deadline(_) => "nothing more came".to_owned(),
        other => other.to_string(),
    }
}

/// Returns whether the session is in no transaction.
pub(super) fn is_idle(client: &Client) -> bool {
    client.status() == TransactionStatus::Idle
}
