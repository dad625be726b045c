//! RowDescription: the columns of a result.

use super::tag;
use crate::{
    error::DecodeError,
    list::{Element, List},
    reader::Reader,
    writer::{self, Writer},
};

/// One column of a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    /// The column's name.
    pub name: &'a [u8],
    /// Object ID of the table that it comes from; 0 for none.
    pub table: u32,
    /// Attribute number in that table; 0 for none.
    pub attribute: i16,
    /// Object ID of the data type.
    pub type_id: u32,
    /// Size of the type in bytes; negative for variable sizes (`pg_type.typlen`).
    pub type_size: i16,
    /// Type modifier (`pg_attribute.atttypmod`); -1 for none.
    pub type_modifier: i32,
    /// Format code: 0 text, 1 binary. Always 0 when a statement, not a portal, is described.
    pub format: i16,
}

text_debug!(Column { table, attribute, type_id, type_size, type_modifier, format } text { name });

/// Element: a [`Column`].
#[derive(Debug)]
pub enum ColumnElement {}

impl Element for ColumnElement {
    type View<'a> = Column<'a>;
    const NAME: &'static str = "columns";
    const COUNT: &'static str = "column count";

    fn read<'a>(reader: &mut Reader<'a>) -> Result<Column<'a>, DecodeError> {
        Ok(Column {
            name: reader.cstr("column name")?,
            table: reader.u32("table")?,
            attribute: reader.i16("attribute number")?,
            type_id: reader.u32("type")?,
            type_size: reader.i16("type size")?,
            type_modifier: reader.i32("type modifier")?,
            format: reader.i16("format code")?,
        })
    }

    fn write(view: Column<'_>, writer: &mut Writer<'_>) {
        writer.cstr(view.name);
        writer.u32(view.table);
        writer.i16(view.attribute);
        writer.u32(view.type_id);
        writer.i16(view.type_size);
        writer.i32(view.type_modifier);
        writer.i16(view.format);
    }
}

/// The columns of the rows that follow, or of the described statement or portal.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ROWDESCRIPTION>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowDescription<'a> {
    /// The columns.
    pub columns: List<'a, ColumnElement>,
}

impl<'a> RowDescription<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`], [`DecodeError::Truncated`] and [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("RowDescription", body);
        let columns = reader.counted()?;
        reader.finish()?;
        Ok(Self { columns })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::ROW_DESCRIPTION, |w| w.counted(self.columns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message, list::ListBuf};

    #[test]
    fn row_description_holds_its_anatomy() {
        let column = Column {
            name: b"id",
            table: 16_384,
            attribute: 1,
            type_id: 23,
            type_size: 4,
            type_modifier: -1,
            format: 0,
        };
        let columns = ListBuf::<ColumnElement>::collect([column]).unwrap();
        let description = RowDescription {
            columns: columns.as_list(),
        };
        anatomy::backend(
            Message::RowDescription(description),
            b"T\0\0\0\x1b\0\x01id\0\0\0\x40\0\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0",
        );
        assert_eq!(description.columns.get(0), Some(column));
        anatomy::backend(
            Message::RowDescription(RowDescription {
                columns: List::EMPTY,
            }),
            b"T\0\0\0\x06\0\0",
        );
    }
}
