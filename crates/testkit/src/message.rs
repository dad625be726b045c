//! Backend messages as a test sees them: owned, with a name, printable on one line.

use std::fmt::{self, Write as _};

use pgweir_wire::{DecodeError, Frame, backend};

/// A backend message, body without header.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The tag byte, one of [`pgweir_wire::backend::tag`].
    pub tag: u8,
    /// All bytes, with the header.
    pub bytes: Vec<u8>,
}

impl Message {
    /// Returns the body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.frame().body()
    }

    /// Returns the name as the protocol chapter spells it, `?` for an unknown tag.
    #[must_use]
    pub fn name(&self) -> &'static str {
        backend::tag::name(self.tag).unwrap_or("?")
    }

    /// Decodes the message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when it is malformed.
    pub fn decode(&self) -> Result<backend::Message<'_>, DecodeError> {
        backend::Message::decode(self.frame())
    }

    /// Returns the SQLSTATE of an ErrorResponse or NoticeResponse.
    #[must_use]
    pub fn sqlstate(&self) -> Option<String> {
        let code = match self.decode().ok()? {
            backend::Message::ErrorResponse(error) => error.sqlstate(),
            backend::Message::NoticeResponse(notice) => notice.sqlstate(),
            _ => None,
        };
        code.map(|code| String::from_utf8_lossy(&code).into_owned())
    }

    /// Returns the text of a field of an ErrorResponse or NoticeResponse ([`backend::field`] codes).
    #[must_use]
    pub fn error_field(&self, code: u8) -> Option<String> {
        let value = match self.decode().ok()? {
            backend::Message::ErrorResponse(error) => error.field(code),
            backend::Message::NoticeResponse(notice) => notice.field(code),
            _ => None,
        };
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Returns the values of a DataRow as text.
    #[must_use]
    pub fn values(&self) -> Option<Vec<Option<String>>> {
        let backend::Message::DataRow(row) = self.decode().ok()? else {
            return None;
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Some(row.columns.iter().map(|value| value.map(text)).collect())
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            tag: self.tag,
            bytes: &self.bytes,
        }
    }

    /// Prints what a comparison of two servers looks at: everything but what differs by nature
    /// (object ids of tables, process ids) or is the answering program's own (the source line of an
    /// error that a proxy raises in place of the server, the names of its prepared statements).
    #[must_use]
    pub fn comparable(&self) -> String {
        let mut text = self.to_string();
        let infallible = match self.decode() {
            Ok(backend::Message::ErrorResponse(error)) => write_fields(&mut text, error.fields),
            Ok(backend::Message::NoticeResponse(notice)) => write_fields(&mut text, notice.fields),
            Ok(backend::Message::RowDescription(description)) => {
                description.columns.iter().try_for_each(|column| {
                    write!(
                        text,
                        " [of a table: {}, column {}, size {}, modifier {}]",
                        column.table != 0,
                        column.attribute,
                        column.type_size,
                        column.type_modifier
                    )
                })
            }
            _ => Ok(()),
        };
        debug_assert!(infallible.is_ok(), "writing to a string");
        text
    }
}

/// SQLSTATEs of errors that a proxy which keeps its own table of statements raises itself.
const RAISED_BY_PROXIES: [&[u8; 5]; 3] = [b"26000", b"42P05", b"08P01"];

fn write_fields(
    text: &mut String,
    fields: pgweir_wire::List<'_, backend::ErrorField>,
) -> fmt::Result {
    use backend::field;
    let of_a_proxy = fields.iter().any(|(code, value)| {
        code == field::CODE && RAISED_BY_PROXIES.iter().any(|known| *known == value)
    });
    for (code, value) in fields {
        if of_a_proxy && [field::FILE, field::LINE, field::ROUTINE].contains(&code) {
            continue;
        }
        let value = String::from_utf8_lossy(value);
        // The proxy's own errors say who speaks.
        let value = without_statement_name(value.strip_prefix("pgweir: ").unwrap_or(&value));
        write!(text, " {}={value:?}", char::from(code))?;
    }
    Ok(())
}

fn without_statement_name(text: &str) -> String {
    const BEFORE: &str = "prepared statement \"";
    match text
        .split_once(BEFORE)
        .and_then(|(before, rest)| Some((before, rest.split_once('"')?.1)))
    {
        Some((before, after)) => format!("{before}{BEFORE}\u{2026}\"{after}"),
        None => text.to_owned(),
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One line, in the notation of [`crate::script`]. Errors show their SQLSTATE only: texts differ between versions.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.decode() {
            Ok(message) => write_details(f, &message),
            Err(error) => write!(f, " {} malformed: {error}", Bytes(self.body())),
        }
    }
}

fn write_details(f: &mut fmt::Formatter<'_>, message: &backend::Message<'_>) -> fmt::Result {
    use backend::Message as M;
    match message {
        M::RowDescription(description) => description.columns.iter().try_for_each(|column| {
            write!(f, " {}:{}", Bytes(column.name), column.type_id)?;
            if column.format == 0 {
                Ok(())
            } else {
                f.write_str(":binary")
            }
        }),
        M::DataRow(row) => row.columns.iter().try_for_each(|value| match value {
            Some(value) => write!(f, " {}", Bytes(value)),
            None => f.write_str(" null"),
        }),
        M::ErrorResponse(error) => write_report(f, error.severity(), error.sqlstate()),
        M::NoticeResponse(notice) => write_report(f, notice.severity(), notice.sqlstate()),
        M::CommandComplete(complete) => write!(f, " {}", Bytes(complete.tag)),
        M::ReadyForQuery(ready) => write!(f, " {:?}", ready.status),
        M::ParameterStatus(parameter) => {
            write!(f, " {} {}", Bytes(parameter.name), Bytes(parameter.value))
        }
        M::ParameterDescription(description) => description
            .parameter_types
            .iter()
            .try_for_each(|oid| write!(f, " {oid}")),
        M::CopyData(data) => write!(f, " {}", Bytes(data.data)),
        M::CopyInResponse(copy) => write_copy(f, copy.format, copy.column_formats),
        M::CopyOutResponse(copy) => write_copy(f, copy.format, copy.column_formats),
        M::FunctionCallResponse(response) => match response.value {
            Some(value) => write!(f, " {}", Bytes(value)),
            None => f.write_str(" null"),
        },
        M::NotificationResponse(notification) => write!(
            f,
            " {} {}",
            Bytes(notification.channel),
            Bytes(notification.payload)
        ),
        M::Authentication(authentication) => write!(f, " {}", authentication.code()),
        _ => Ok(()),
    }
}

fn write_report(
    f: &mut fmt::Formatter<'_>,
    severity: &[u8],
    sqlstate: Option<[u8; 5]>,
) -> fmt::Result {
    let sqlstate = sqlstate.unwrap_or(*b"?????");
    write!(
        f,
        " {} {}",
        String::from_utf8_lossy(severity),
        String::from_utf8_lossy(&sqlstate)
    )
}

fn write_copy(
    f: &mut fmt::Formatter<'_>,
    format: i8,
    columns: pgweir_wire::List<'_, pgweir_wire::list::Format>,
) -> fmt::Result {
    write!(f, " {format}:")?;
    columns.iter().try_for_each(|column| write!(f, " {column}"))
}

/// Bytes longer than this are shown by their beginning, length and checksum.
const SHOWN_BYTES: usize = 120;

struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..SHOWN_BYTES).unwrap_or(self.0);
        match std::str::from_utf8(shown) {
            Ok(text)
                if !text
                    .chars()
                    .any(|c| c.is_control() && c != '\n' && c != '\t') =>
            {
                write!(f, "{text:?}")?;
            }
            _ => {
                f.write_str("x\"")?;
                shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("\"")?;
            }
        }
        if shown.len() < self.0.len() {
            write!(f, "...({} bytes, {:016x})", self.0.len(), checksum(self.0))?;
        }
        Ok(())
    }
}

/// FNV-1a: enough to tell two answers apart.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The messages that answer something, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer(pub Vec<Message>);

impl Answer {
    /// Returns the values of all DataRows as text.
    #[must_use]
    pub fn rows(&self) -> Vec<Vec<Option<String>>> {
        self.0.iter().filter_map(Message::values).collect()
    }

    /// Returns the first value of the first DataRow as text; `None` without a row or when it is null.
    #[must_use]
    pub fn value(&self) -> Option<String> {
        self.0
            .iter()
            .find_map(Message::values)?
            .into_iter()
            .next()?
    }

    /// Returns the first ErrorResponse.
    #[must_use]
    pub fn error(&self) -> Option<&Message> {
        self.0
            .iter()
            .find(|message| message.tag == backend::tag::ERROR_RESPONSE)
    }

    /// Returns the SQLSTATE of the first ErrorResponse.
    #[must_use]
    pub fn sqlstate(&self) -> Option<String> {
        self.error()?.sqlstate()
    }

    /// Returns the names of the messages.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(Message::name).collect()
    }
}
