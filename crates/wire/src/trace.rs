//! One line per message, in the form that libpq's `PQtrace` writes, for `TRACE CLIENT` and for tests.
//!
//! ```text
//! F    27    Parse     "s1" "select $1" 1 23
//! B    5    ReadyForQuery     I
//! ```
//!
//! Direction, length field, name, fields, with tabs between; the form is that of `src/interfaces/libpq/fe-trace.c` (REL_15_STABLE), so that lines
//! can be compared with PostgreSQL's own traces. Two things differ on purpose: what users store or say (SQL text, values,
//! message texts) is shown only when asked for, and passwords, SASL data and backend keys never are.

use std::fmt::{self, Write as _};

use crate::{
    DecodeError, Frame, Header, List,
    backend::{self, Authentication, ErrorField, field},
    frontend::{self, Target},
    list::{Format, Oid, Value},
};

/// Which way a message goes: tags collide, so a frame alone does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From client to server.
    Frontend,
    /// From server to client.
    Backend,
}

/// How much of the user's data a line shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Values {
    /// Sizes only.
    #[default]
    Redacted,
    /// Everything but secrets.
    Shown,
}

/// How a number or text that changes from run to run is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Volatile {
    /// As it is.
    #[default]
    Written,
    /// As `NNNN` and `"SSSS"`, like `PQTRACE_REGRESS_MODE`: for comparing.
    Masked,
}

/// A message that displays as a line, without a line break.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    direction: Direction,
    frame: Frame<'a>,
    values: Values,
    volatile: Volatile,
}

impl<'a> Line<'a> {
    /// Prepares the line of `frame`, values redacted.
    #[must_use]
    pub fn new(direction: Direction, frame: Frame<'a>) -> Self {
        Self {
            direction,
            frame,
            values: Values::default(),
            volatile: Volatile::default(),
        }
    }

    /// Chooses how much of the user's data is shown.
    #[must_use]
    pub fn values(self, values: Values) -> Self {
        Self { values, ..self }
    }

    /// Chooses how volatile fields are written.
    #[must_use]
    pub fn volatile(self, volatile: Volatile) -> Self {
        Self { volatile, ..self }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, name) = match self.direction {
            Direction::Frontend => ('F', frontend::tag::name(self.frame.tag)),
            Direction::Backend => ('B', backend::tag::name(self.frame.tag)),
        };
        let is_report = matches!(name, Some("ErrorResponse" | "NoticeResponse"));
        match Header::peek(self.frame.bytes) {
            Ok(Some(_)) if is_report && self.volatile == Volatile::Masked => {
                write!(f, "{letter}\tNN\t")?
            }
            Ok(Some(header)) => write!(f, "{letter}\t{}\t", header.length)?,
            Ok(None) | Err(_) => write!(f, "{letter}\t?\t")?,
        }
        match name {
            Some(name) => f.write_str(name)?,
            None => return write!(f, "Unknown message: {:02x}", self.frame.tag),
        }
        let mut pen = Pen {
            f,
            values: self.values,
            volatile: self.volatile,
        };
        let malformed = match self.direction {
            Direction::Frontend => pen.frontend(self.frame)?,
            Direction::Backend => pen.backend(self.frame)?,
        };
        match malformed {
            Ok(()) => Ok(()),
            Err(error) => write!(f, "\t malformed: {error}"),
        }
    }
}

/// Writes the fields of one line.
struct Pen<'f, 'b> {
    f: &'f mut fmt::Formatter<'b>,
    values: Values,
    volatile: Volatile,
}

/// Outer: the formatter failed. Inner: the message is malformed, which the line then says.
type Written = Result<Result<(), DecodeError>, fmt::Error>;

impl Pen<'_, '_> {
    fn frontend(&mut self, frame: Frame<'_>) -> Written {
        use frontend::Message as M;
        let message = match M::decode(frame) {
            Ok(message) => message,
            Err(error) => return Ok(Err(error)),
        };
        self.tab_unless(matches!(
            message,
            M::Sync(_)
                | M::Flush(_)
                | M::Terminate(_)
                | M::CopyDone(_)
                | M::CopyData(_)
                | M::Password(_)
        ))?;
        match message {
            M::Query(m) => self.private(m.sql)?,
            M::Parse(m) => {
                self.string(m.name)?;
                self.private(m.sql)?;
                self.oids(m.parameter_types)?;
            }
            M::Bind(m) => {
                self.string(m.portal)?;
                self.string(m.statement)?;
                self.formats(m.parameter_formats)?;
                self.values(m.parameters)?;
                self.formats(m.result_formats)?;
            }
            M::Describe(m) => self.target(m.kind, m.name)?,
            M::Close(m) => self.target(m.kind, m.name)?,
            M::Execute(m) => {
                self.string(m.portal)?;
                write!(self.f, " {}", m.max_rows)?;
            }
            M::FunctionCall(m) => {
                self.oid(m.function)?;
                self.formats(m.argument_formats)?;
                self.values(m.arguments)?;
                self.number16(m.result_format)?;
            }
            M::CopyFail(m) => self.private(m.message)?,
            M::Sync(_)
            | M::Flush(_)
            | M::Terminate(_)
            | M::CopyDone(_)
            | M::CopyData(_)
            | M::Password(_) => {}
        }
        Ok(Ok(()))
    }

    fn backend(&mut self, frame: Frame<'_>) -> Written {
        use backend::Message as M;
        let message = match M::decode(frame) {
            Ok(message) => message,
            Err(error) => return Ok(Err(error)),
        };
        self.tab_unless(frame.body().is_empty() || matches!(message, M::CopyData(_)))?;
        match message {
            M::Authentication(m) => self.authentication(m)?,
            // The key is a secret, so it is masked however the rest is written.
            M::BackendKeyData(_) => self.f.write_str(" NNNN NNNN")?,
            M::CommandComplete(m) => self.string(m.tag)?,
            M::CopyBothResponse(m) => self.copy_response(m.format, m.column_formats)?,
            M::CopyInResponse(m) => self.copy_response(m.format, m.column_formats)?,
            M::CopyOutResponse(m) => self.copy_response(m.format, m.column_formats)?,
            M::DataRow(m) => self.values(m.columns)?,
            M::ErrorResponse(m) => self.report(m.fields)?,
            M::NoticeResponse(m) => self.report(m.fields)?,
            M::FunctionCallResponse(m) => self.value(m.value)?,
            M::NegotiateProtocolVersion(m) => {
                write!(self.f, " {} {}", m.version, m.options.len())?;
                m.options
                    .iter()
                    .try_for_each(|option| self.string(option))?;
            }
            M::NotificationResponse(m) => {
                self.oid(m.process_id)?;
                self.string(m.channel)?;
                self.private(m.payload)?;
            }
            M::ParameterDescription(m) => self.oids(m.parameter_types)?,
            M::ParameterStatus(m) => {
                self.string(m.name)?;
                self.string(m.value)?;
            }
            M::ReadyForQuery(m) => self.byte(m.status.as_byte())?,
            M::RowDescription(m) => self.columns(m)?,
            M::BindComplete(_)
            | M::CloseComplete(_)
            | M::CopyData(_)
            | M::CopyDone(_)
            | M::EmptyQueryResponse(_)
            | M::NoData(_)
            | M::ParseComplete(_)
            | M::PortalSuspended(_) => {}
        }
        Ok(Ok(()))
    }

    /// Messages with fields have a tab between name and fields.
    fn tab_unless(&mut self, bare: bool) -> fmt::Result {
        if bare {
            Ok(())
        } else {
            self.f.write_char('\t')
        }
    }

    fn authentication(&mut self, message: Authentication<'_>) -> fmt::Result {
        write!(self.f, " {}", message.code())?;
        if let Authentication::Sasl { mechanisms } = message {
            mechanisms
                .iter()
                .try_for_each(|mechanism| self.string(mechanism))?;
        }
        Ok(())
    }

    fn columns(&mut self, message: backend::RowDescription<'_>) -> fmt::Result {
        write!(self.f, " {}", message.columns.len())?;
        for column in message.columns {
            self.string(column.name)?;
            self.oid(column.table)?;
            self.number16(column.attribute)?;
            self.oid(column.type_id)?;
            self.number16(column.type_size)?;
            write!(self.f, " {}", column.type_modifier)?;
            self.number16(column.format)?;
        }
        Ok(())
    }

    fn copy_response(&mut self, format: i8, column_formats: List<'_, Format>) -> fmt::Result {
        self.byte(format.cast_unsigned())?;
        self.formats(column_formats)
    }

    fn report(&mut self, fields: List<'_, ErrorField>) -> fmt::Result {
        for (code, value) in fields {
            self.byte(code)?;
            match code {
                field::FILE | field::LINE | field::ROUTINE if self.volatile == Volatile::Masked => {
                    self.f.write_str(" \"SSSS\"")?;
                }
                // Texts that quote statements and values. SQLSTATE and the names of objects stay readable.
                field::MESSAGE | field::DETAIL | field::HINT | field::WHERE | b'q' => {
                    self.private(value)?
                }
                _ => self.string(value)?,
            }
        }
        self.byte(0)
    }

    fn target(&mut self, kind: Target, name: &[u8]) -> fmt::Result {
        self.byte(kind.as_byte())?;
        self.string(name)
    }

    fn oids(&mut self, oids: List<'_, Oid>) -> fmt::Result {
        write!(self.f, " {}", oids.len())?;
        oids.iter().try_for_each(|oid| self.oid(oid))
    }

    /// An object ID, which differs between clusters. libpq prints it as a signed number.
    fn oid(&mut self, oid: u32) -> fmt::Result {
        match self.volatile {
            Volatile::Masked => self.f.write_str(" NNNN"),
            Volatile::Written => write!(self.f, " {}", oid.cast_signed()),
        }
    }

    fn formats(&mut self, formats: List<'_, Format>) -> fmt::Result {
        write!(self.f, " {}", formats.len())?;
        formats.iter().try_for_each(|format| self.number16(format))
    }

    /// A 16-bit number. libpq prints it unsigned: a type size of -1 is 65535.
    fn number16(&mut self, number: i16) -> fmt::Result {
        write!(self.f, " {}", number.cast_unsigned())
    }

    fn values(&mut self, values: List<'_, Value>) -> fmt::Result {
        write!(self.f, " {}", values.len())?;
        values.iter().try_for_each(|value| self.value(value))
    }

    fn value(&mut self, value: Option<&[u8]>) -> fmt::Result {
        let Some(value) = value else {
            return self.f.write_str(" -1");
        };
        write!(self.f, " {}", value.len())?;
        match self.values {
            Values::Redacted => self.f.write_str(" <redacted>"),
            Values::Shown => {
                self.f.write_str(" '")?;
                value.iter().try_for_each(|byte| self.escaped(*byte))?;
                self.f.write_char('\'')
            }
        }
    }

    /// A string that may hold what users store.
    fn private(&mut self, string: &[u8]) -> fmt::Result {
        match self.values {
            Values::Redacted => write!(self.f, " <{} bytes redacted>", string.len()),
            Values::Shown => self.string(string),
        }
    }

    fn string(&mut self, string: &[u8]) -> fmt::Result {
        self.f.write_str(" \"")?;
        for chunk in string.utf8_chunks() {
            // A line stays a line, whatever is in the string.
            for char in chunk.valid().chars() {
                match char {
                    '\n' => self.f.write_str("\\x0a")?,
                    '\r' => self.f.write_str("\\x0d")?,
                    _ => self.f.write_char(char)?,
                }
            }
            chunk
                .invalid()
                .iter()
                .try_for_each(|byte| self.escaped(*byte))?;
        }
        self.f.write_char('"')
    }

    fn byte(&mut self, byte: u8) -> fmt::Result {
        self.f.write_char(' ')?;
        self.escaped(byte)
    }

    fn escaped(&mut self, byte: u8) -> fmt::Result {
        if byte == b' ' || byte.is_ascii_graphic() {
            self.f.write_char(char::from(byte))
        } else {
            write!(self.f, "\\x{byte:02x}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ListBuf, backend::ErrorBuilder};

    fn lines(direction: Direction, bytes: &[u8], values: Values, volatile: Volatile) -> String {
        let mut frames = crate::Frames::new(bytes);
        let mut text = String::new();
        while let Some(frame) = frames.next().unwrap() {
            let line = Line::new(direction, frame)
                .values(values)
                .volatile(volatile);
            text.push_str(&format!("{line}\n"));
        }
        text
    }

    fn extended_query() -> Vec<u8> {
        let mut out = Vec::new();
        let types = ListBuf::collect([23]).unwrap();
        frontend::Parse {
            name: b"s1",
            sql: b"select $1",
            parameter_types: types.as_list(),
        }
        .encode(&mut out);
        frontend::Describe {
            kind: Target::Statement,
            name: b"s1",
        }
        .encode(&mut out);
        let parameters = ListBuf::collect([Some(&b"4\x0a2"[..]), None]).unwrap();
        let result_formats = ListBuf::collect([0]).unwrap();
        frontend::Bind {
            portal: b"",
            statement: b"s1",
            parameter_formats: List::EMPTY,
            parameters: parameters.as_list(),
            result_formats: result_formats.as_list(),
        }
        .encode(&mut out);
        frontend::Execute {
            portal: b"",
            max_rows: 0,
        }
        .encode(&mut out);
        frontend::Password { raw: b"hunter2\0" }.encode(&mut out);
        frontend::Sync.encode(&mut out);
        out
    }

    #[test]
    fn frontend_lines_have_libpqs_form() {
        assert_eq!(
            lines(
                Direction::Frontend,
                &extended_query(),
                Values::Shown,
                Volatile::Masked
            ),
            "F\t23\tParse\t \"s1\" \"select $1\" 1 NNNN\n\
             F\t8\tDescribe\t S \"s1\"\n\
             F\t27\tBind\t \"\" \"s1\" 0 2 3 '4\\x0a2' -1 1 0\n\
             F\t9\tExecute\t \"\" 0\n\
             F\t12\tPassword\n\
             F\t4\tSync\n"
        );
    }

    #[test]
    fn values_and_texts_are_redacted_unless_asked_for() {
        let text = lines(
            Direction::Frontend,
            &extended_query(),
            Values::Redacted,
            Volatile::Written,
        );
        assert!(
            text.contains("Parse\t \"s1\" <9 bytes redacted> 1 23\n"),
            "{text}"
        );
        assert!(text.contains("0 2 3 <redacted> -1 1 0\n"), "{text}");
        assert!(!text.contains("select"));
    }

    #[test]
    fn backend_lines_have_libpqs_form() {
        let mut out = Vec::new();
        backend::ParseComplete.encode(&mut out);
        let column = backend::Column {
            name: b"?column?",
            table: 0,
            attribute: 0,
            type_id: 25,
            type_size: -1,
            type_modifier: -1,
            format: 0,
        };
        let columns = ListBuf::collect([column]).unwrap();
        backend::RowDescription {
            columns: columns.as_list(),
        }
        .encode(&mut out);
        backend::BackendKeyData {
            process_id: 1,
            secret: b"abcd",
        }
        .encode(&mut out);
        ErrorBuilder::new(backend::Severity::Error, *b"26000", "no \"s1\"")
            .field(field::FILE, "prepare.c")
            .encode(&mut out);
        backend::ReadyForQuery {
            status: crate::TransactionStatus::Idle,
        }
        .encode(&mut out);
        assert_eq!(
            lines(Direction::Backend, &out, Values::Shown, Volatile::Masked),
            "B\t4\tParseComplete\n\
             B\t33\tRowDescription\t 1 \"?column?\" NNNN 0 NNNN 65535 -1 0\n\
             B\t12\tBackendKeyData\t NNNN NNNN\n\
             B\tNN\tErrorResponse\t S \"ERROR\" V \"ERROR\" C \"26000\" M \"no \"s1\"\" F \"SSSS\" \\x00\n\
             B\t5\tReadyForQuery\t I\n"
        );
    }

    #[test]
    fn malformed_and_unknown_messages_have_lines_too() {
        let line = |bytes: &[u8]| {
            Line::new(
                Direction::Backend,
                Frame {
                    tag: bytes[0],
                    bytes,
                },
            )
            .to_string()
        };
        assert_eq!(line(b"\x7f\0\0\0\x04"), "B\t4\tUnknown message: 7f");
        assert!(line(b"Z\0\0\0\x05x").starts_with("B\t5\tReadyForQuery\t malformed: "));
        assert!(line(b"Z").starts_with("B\t?\t"));
    }
}
