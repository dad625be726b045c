//! Protocol transcripts: what to send and what must come back, in a file.
//!
//! The same file runs against real PostgreSQL, which shows that the file is right, and through the
//! proxy, which must answer the same.
//!
//! ```text
//! # An error skips all messages up to Sync.
//! send
//!   Parse "" "select 1/0"
//!   Bind "" ""
//!   Execute ""
//!   Sync
//! until ReadyForQuery
//!   ParseComplete
//!   ...
//! ```
//!
//! A `send` block holds messages in the notation of [`crate::script`]. An `until` block names the
//! message up to which (the n-th, with a number) is read, or `closed`, and lists all that comes.
//! `UPDATE_EXPECT=1` writes those lists from PostgreSQL's answers. `#` begins a comment.

use std::{fmt::Write as _, fs, path::Path};

use pgweir_wire::backend::tag;

use crate::{
    client::{Client, ClientError},
    message::{Answer, Message},
    script,
    seed::Rng,
};

/// A transcript that was read from a file.
#[derive(Clone, Debug)]
pub struct Transcript {
    lines: Vec<String>,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
enum Block {
    Send(Vec<u8>),
    Until(Until),
}

#[derive(Clone, Debug)]
struct Until {
    end: End,
    /// Lines of the file that hold the expected messages.
    expected: std::ops::Range<usize>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Message { tag: u8, times: usize },
    Closed,
}

impl Transcript {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A sentence with the file, the line and what is wrong there.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("{}:{error}", path.display()))
    }

    /// Reads a text.
    ///
    /// # Errors
    ///
    /// A sentence that begins with the number of the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut blocks = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            parse_line(&mut blocks, index, line)
                .map_err(|error| format!("{}: {error}", index + 1))?;
        }
        Ok(Self { lines, blocks })
    }

    /// Plays the transcript on a session that is ready, and returns the answer to each `until`.
    ///
    /// With `torn`, what is sent arrives in pieces that end anywhere.
    ///
    /// # Errors
    ///
    /// A sentence with the number of the line and what happened in place of the answer.
    pub fn play(
        &self,
        client: &mut Client,
        mut torn: Option<&mut Rng>,
    ) -> Result<Vec<Answer>, String> {
        let mut answers = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            match block {
                Block::Send(bytes) => {
                    let sent = match torn.as_deref_mut() {
                        Some(rng) => client.send_torn(bytes, rng),
                        None => client.send(bytes),
                    };
                    // What the peer closes the connection for may be followed by more, which it does not wait for.
                    let is_closed = |next: &Block| {
                        matches!(
                            next,
                            Block::Until(Until {
                                end: End::Closed,
                                ..
                            })
                        )
                    };
                    if !self.blocks.get(index + 1).is_some_and(is_closed) {
                        sent.map_err(|error| error.to_string())?;
                    }
                }
                Block::Until(until) => answers.push(
                    receive(client, until.end)
                        .map_err(|error| format!("{}: {error}", until.expected.start))?,
                ),
            }
        }
        Ok(answers)
    }

    /// Compares answers with the file's; returns a readable difference.
    ///
    /// # Errors
    ///
    /// The first difference with its line.
    pub fn check(&self, answers: &[Answer]) -> Result<(), String> {
        for (until, answer) in self.untils().zip(answers) {
            let expected: Vec<&str> = self
                .lines
                .get(until.expected.clone())
                .unwrap_or_default()
                .iter()
                .map(|line| line.trim())
                .filter(|line| !is_comment(line))
                .collect();
            let got: Vec<String> = answer.0.iter().map(Message::to_string).collect();
            difference(&expected, &got)
                .map_err(|text| format!("{}: {text}", until.expected.start))?;
        }
        Ok(())
    }

    /// Compares the answers of two servers in all that must not differ; returns a readable difference.
    ///
    /// # Errors
    ///
    /// The first difference with its line.
    pub fn compare(&self, oracle: &[Answer], other: &[Answer]) -> Result<(), String> {
        for (until, (left, right)) in self.untils().zip(oracle.iter().zip(other)) {
            let texts =
                |answer: &Answer| answer.0.iter().map(Message::comparable).collect::<Vec<_>>();
            difference(&texts(left), &texts(right))
                .map_err(|text| format!("{}: {text}", until.expected.start))?;
        }
        Ok(())
    }

    /// Returns the file's text with these answers in place of its own.
    #[must_use]
    pub fn rewritten(&self, answers: &[Answer]) -> String {
        let mut text = String::new();
        let mut copied = 0;
        let copy_to = |text: &mut String, from: &mut usize, to: usize| {
            for line in self.lines.get(*from..to).unwrap_or_default() {
                text.push_str(line);
                text.push('\n');
            }
            *from = to;
        };
        for (until, answer) in self.untils().zip(answers) {
            copy_to(&mut text, &mut copied, until.expected.start);
            for message in &answer.0 {
                let _infallible = writeln!(text, "  {message}");
            }
            copied = until.expected.end;
        }
        copy_to(&mut text, &mut copied, self.lines.len());
        text
    }

    fn untils(&self) -> impl Iterator<Item = &Until> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Until(until) => Some(until),
            Block::Send(_) => None,
        })
    }
}

fn is_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with('#')
}

fn parse_line(blocks: &mut Vec<Block>, index: usize, line: &str) -> Result<(), String> {
    let trimmed = line.trim();
    if is_comment(trimmed) {
        return Ok(());
    }
    if line.starts_with(char::is_whitespace) {
        return match blocks.last_mut() {
            Some(Block::Send(bytes)) => script::encode(trimmed, bytes),
            Some(Block::Until(until)) => {
                until.expected.end = index + 1;
                Ok(())
            }
            None => Err("a block begins with send or until".to_owned()),
        };
    }
    let words: Vec<&str> = trimmed.split_whitespace().collect();
    let end = match words.as_slice() {
        ["send"] => {
            blocks.push(Block::Send(Vec::new()));
            return Ok(());
        }
        ["until", "closed"] => End::Closed,
        ["until", name] => End::Message {
            tag: tag_of(name)?,
            times: 1,
        },
        ["until", name, times] => End::Message {
            tag: tag_of(name)?,
            times: times.parse().map_err(|_| format!("{times} is no number"))?,
        },
        _ => return Err(format!("{trimmed} is neither send nor until")),
    };
    blocks.push(Block::Until(Until {
        end,
        expected: index + 1..index + 1,
    }));
    Ok(())
}

fn tag_of(name: &str) -> Result<u8, String> {
    (0..=u8::MAX)
        .find(|tag| tag::name(*tag) == Some(name))
        .ok_or_else(|| format!("no backend message is named {name}"))
}

fn receive(client: &mut Client, end: End) -> Result<Answer, ClientError> {
    match end {
        End::Closed => client.until_closed(),
        End::Message { tag, times } => {
            let mut all = Vec::new();
            for _ in 0..times {
                all.extend(client.until(tag)?.0);
            }
            Ok(Answer(all))
        }
    }
}

fn difference<L: AsRef<str>, R: AsRef<str>>(expected: &[L], got: &[R]) -> Result<(), String> {
    let same = expected.len() == got.len()
        && expected
            .iter()
            .zip(got)
            .all(|(left, right)| left.as_ref() == right.as_ref());
    if same {
        return Ok(());
    }
    let mut text = String::from("the answers differ");
    for index in 0..expected.len().max(got.len()) {
        let left = expected.get(index).map(AsRef::as_ref);
        let right = got.get(index).map(AsRef::as_ref);
        let _infallible = if left == right {
            write!(text, "\n      {}", left.unwrap_or_default())
        } else {
            write!(
                text,
                "\n    - {}\n    + {}",
                left.unwrap_or("(nothing)"),
                right.unwrap_or("(nothing)")
            )
        };
    }
    Err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Why.\nsend\n  Query \"\"\nuntil ReadyForQuery\n  EmptyQueryResponse\n  ReadyForQuery Idle\n\n# The end.\nsend\n  Terminate\nuntil closed\n";

    fn ready() -> Answer {
        Answer(vec![
            Message {
                tag: tag::EMPTY_QUERY_RESPONSE,
                bytes: b"I\0\0\0\x04".to_vec(),
            },
            Message {
                tag: tag::READY_FOR_QUERY,
                bytes: b"Z\0\0\0\x05I".to_vec(),
            },
        ])
    }

    #[test]
    fn a_file_is_read_checked_and_rewritten_to_itself() {
        let transcript = Transcript::parse(TEXT).unwrap();
        let answers = [ready(), Answer::default()];
        transcript.check(&answers).unwrap();
        transcript.compare(&answers, &answers).unwrap();
        assert_eq!(transcript.rewritten(&answers), TEXT);
    }

    #[test]
    fn a_missing_message_is_a_difference_with_its_line() {
        let transcript = Transcript::parse(TEXT).unwrap();
        let mut short = ready();
        short.0.pop();
        let text = transcript.check(&[short]).unwrap_err();
        assert!(
            text.starts_with("4: ") && text.contains("- ReadyForQuery Idle"),
            "{text}"
        );
    }

    #[test]
    fn a_wrong_line_is_named() {
        assert!(
            Transcript::parse("send\n  Nothing\n")
                .unwrap_err()
                .starts_with("2: ")
        );
        assert!(
            Transcript::parse("until Nothing\n")
                .unwrap_err()
                .starts_with("1: ")
        );
        assert!(
            Transcript::parse("  Sync\n")
                .unwrap_err()
                .starts_with("1: ")
        );
    }
}
