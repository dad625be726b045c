//! DataRow: one row of a result. By far the most frequent message, and one that a relay never decodes.

use super::tag;
use crate::{
    error::DecodeError,
    list::{List, Value},
    reader::Reader,
    writer,
};

/// One row.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-DATAROW>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataRow<'a> {
    /// The column values, in the formats that RowDescription names.
    pub columns: List<'a, Value>,
}

impl<'a> DataRow<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`], [`DecodeError::Trailing`], and [`DecodeError::BadValue`] for a negative length other than -1.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("DataRow", body);
        let columns = reader.counted()?;
        reader.finish()?;
        Ok(Self { columns })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::DATA_ROW, |w| w.counted(self.columns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message, list::ListBuf};

    #[test]
    fn data_row_holds_its_anatomy() {
        let columns = ListBuf::<Value>::collect([Some(&b"1"[..]), None, Some(b"")]).unwrap();
        let row = DataRow {
            columns: columns.as_list(),
        };
        anatomy::backend(
            Message::DataRow(row),
            b"D\0\0\0\x13\0\x03\0\0\0\x011\xff\xff\xff\xff\0\0\0\0",
        );
    }
}
