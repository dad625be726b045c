//! The pgoutput plugin's messages: what logical replication says about changed rows. The result cache listens to them.
//!
//! Decoded as of `proto_version` 1 and without `streaming`: later versions differ only in messages that a subscriber has
//! to ask for, and inside streamed transactions, where a transaction ID stands before the fields.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

mod stream;

pub use self::stream::{POSTGRES_EPOCH_UNIX_SECONDS, ServerPayload, StandbyStatusUpdate};
use crate::{
    error::DecodeError,
    list::{Element, List, Oid},
    reader::Reader,
    redact::Redacted,
    writer::Writer,
};

/// One message of the plugin, as it stands in [`ServerPayload::XLogData`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogicalMessage<'a> {
    /// `B`: a transaction's changes follow.
    Begin {
        /// LSN of the commit.
        final_lsn: u64,
        /// Time of the commit, in microseconds since 2000-01-01.
        committed_at: i64,
        /// Transaction ID.
        xid: u32,
    },
    /// `M`: a message written with `pg_logical_emit_message`.
    Message(EmittedMessage<'a>),
    /// `C`: the transaction is complete.
    Commit {
        /// Flags; none is in use.
        flags: u8,
        /// LSN of the commit.
        commit_lsn: u64,
        /// LSN after the commit: what a subscriber confirms.
        end_lsn: u64,
        /// Time of the commit, in microseconds since 2000-01-01.
        committed_at: i64,
    },
    /// `O`: the transaction came from another server.
    Origin {
        /// LSN of the commit there.
        commit_lsn: u64,
        /// The origin's name.
        name: &'a [u8],
    },
    /// `R`: a relation that the following changes name by its object ID. Sent before its first change and after DDL.
    Relation(Relation<'a>),
    /// `Y`: a data type that is not built in.
    Type {
        /// Its object ID.
        id: u32,
        /// Its schema; empty for pg_catalog.
        namespace: &'a [u8],
        /// Its name.
        name: &'a [u8],
    },
    /// `I`: a new row.
    Insert {
        /// Object ID of the relation.
        relation: u32,
        /// The row.
        new: List<'a, TupleColumn>,
    },
    /// `U`: a changed row.
    Update {
        /// Object ID of the relation.
        relation: u32,
        /// The row before, if the replica identity or a changed key makes the server send it.
        old: Option<OldTuple<'a>>,
        /// The row after.
        new: List<'a, TupleColumn>,
    },
    /// `D`: a deleted row.
    Delete {
        /// Object ID of the relation.
        relation: u32,
        /// What is known of it.
        old: OldTuple<'a>,
    },
    /// `T`: emptied relations.
    Truncate {
        /// Bit 1: CASCADE; bit 2: RESTART IDENTITY.
        options: u8,
        /// Object IDs of the relations.
        relations: List<'a, Oid>,
    },
}

/// What `pg_logical_emit_message` wrote.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EmittedMessage<'a> {
    /// Bit 1: it belongs to the transaction.
    pub flags: u8,
    /// Its LSN.
    pub lsn: u64,
    /// Its prefix.
    pub prefix: &'a [u8],
    /// What it says.
    pub content: &'a [u8],
}

redacted_debug!(EmittedMessage { flags, lsn } hides { prefix, content });

/// A relation and its columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Its object ID.
    pub id: u32,
    /// Its schema; empty for pg_catalog.
    pub namespace: &'a [u8],
    /// Its name.
    pub name: &'a [u8],
    /// Its replica identity (`pg_class.relreplident`): `d`, `n`, `f` or `i`.
    pub replica_identity: u8,
    /// Its columns.
    pub columns: List<'a, RelationColumn>,
}

text_debug!(Relation { id, replica_identity, columns } text { namespace, name });

/// A row before its change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// `K`: the key only; other columns are NULL.
    Key(List<'a, TupleColumn>),
    /// `O`: the whole row (REPLICA IDENTITY FULL).
    Full(List<'a, TupleColumn>),
}

/// A column of a [`Relation`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ColumnInfo<'a> {
    /// Bit 1: it is part of the key.
    pub flags: u8,
    /// Its name.
    pub name: &'a [u8],
    /// Object ID of its type.
    pub type_id: u32,
    /// Type modifier (`pg_attribute.atttypmod`); -1 for none.
    pub type_modifier: i32,
}

text_debug!(ColumnInfo { flags, type_id, type_modifier } text { name });

/// Element: a [`ColumnInfo`].
#[derive(Debug)]
pub enum RelationColumn {}

impl Element for RelationColumn {
    type View<'a> = ColumnInfo<'a>;
    const NAME: &'static str = "relation columns";
    const COUNT: &'static str = "column count";

    fn read<'a>(reader: &mut Reader<'a>) -> Result<ColumnInfo<'a>, DecodeError> {
        Ok(ColumnInfo {
            flags: reader.u8("column flags")?,
            name: reader.cstr("column name")?,
            type_id: reader.u32("type")?,
            type_modifier: reader.i32("type modifier")?,
        })
    }

    fn write(view: ColumnInfo<'_>, writer: &mut Writer<'_>) {
        writer.u8(view.flags);
        writer.cstr(view.name);
        writer.u32(view.type_id);
        writer.i32(view.type_modifier);
    }
}

/// One value of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ColumnValue<'a> {
    /// `n`: NULL.
    Null,
    /// `u`: a TOASTed value that did not change and is not sent.
    Unchanged,
    /// `t`: a value as text.
    Text(&'a [u8]),
    /// `b`: a value in binary format.
    Binary(&'a [u8]),
}

impl std::fmt::Debug for ColumnValue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Unchanged => f.write_str("Unchanged"),
            Self::Text(bytes) => f.debug_tuple("Text").field(&Redacted(bytes)).finish(),
            Self::Binary(bytes) => f.debug_tuple("Binary").field(&Redacted(bytes)).finish(),
        }
    }
}

/// Element: a [`ColumnValue`].
#[derive(Debug)]
pub enum TupleColumn {}

impl Element for TupleColumn {
    type View<'a> = ColumnValue<'a>;
    const NAME: &'static str = "column values";
    const COUNT: &'static str = "column count";

    fn read<'a>(reader: &mut Reader<'a>) -> Result<ColumnValue<'a>, DecodeError> {
        let offset = reader.offset();
        let kind = reader.u8("value kind")?;
        match kind {
            b'n' => return Ok(ColumnValue::Null),
            b'u' => return Ok(ColumnValue::Unchanged),
            b't' | b'b' => {}
            other => return Err(reader.bad_value("value kind", i64::from(other), offset)),
        }
        let length_offset = reader.offset();
        let Some(value) = reader.value("value")? else {
            return Err(reader.bad_value("value length", -1, length_offset));
        };
        Ok(if kind == b't' {
            ColumnValue::Text(value)
        } else {
            ColumnValue::Binary(value)
        })
    }

    fn write(view: ColumnValue<'_>, writer: &mut Writer<'_>) {
        match view {
            ColumnValue::Null => writer.u8(b'n'),
            ColumnValue::Unchanged => writer.u8(b'u'),
            ColumnValue::Text(bytes) => {
                writer.u8(b't');
                writer.value(Some(bytes));
            }
            ColumnValue::Binary(bytes) => {
                writer.u8(b'b');
                writer.value(Some(bytes));
            }
        }
    }
}

impl<'a> LogicalMessage<'a> {
    /// Decodes the data of an [`ServerPayload::XLogData`].
    ///
    /// # Errors
    ///
    /// [`DecodeError::UnknownTag`] for messages of later protocol versions too, and all others of [`DecodeError`].
    pub fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("pgoutput", data);
        let message = match reader.u8("tag")? {
            b'B' => Self::Begin {
                final_lsn: reader.u64("final LSN")?,
                committed_at: reader.i64("commit time")?,
                xid: reader.u32("transaction ID")?,
            },
            b'M' => Self::Message(emitted_message(&mut reader)?),
            b'C' => Self::Commit {
                flags: reader.u8("flags")?,
                commit_lsn: reader.u64("commit LSN")?,
                end_lsn: reader.u64("end LSN")?,
                committed_at: reader.i64("commit time")?,
            },
            b'O' => Self::Origin {
                commit_lsn: reader.u64("commit LSN")?,
                name: reader.cstr("origin name")?,
            },
            b'R' => Self::Relation(Relation {
                id: reader.u32("relation")?,
                namespace: reader.cstr("namespace")?,
                name: reader.cstr("relation name")?,
                replica_identity: reader.u8("replica identity")?,
                columns: reader.counted()?,
            }),
            b'Y' => Self::Type {
                id: reader.u32("type")?,
                namespace: reader.cstr("namespace")?,
                name: reader.cstr("type name")?,
            },
            b'I' => Self::Insert {
                relation: reader.u32("relation")?,
                new: new_tuple(&mut reader)?,
            },
            b'U' => {
                let relation = reader.u32("relation")?;
                let old = match reader.remaining().first() {
                    Some(b'K' | b'O') => Some(old_tuple(&mut reader)?),
                    _ => None,
                };
                Self::Update {
                    relation,
                    old,
                    new: new_tuple(&mut reader)?,
                }
            }
            b'D' => Self::Delete {
                relation: reader.u32("relation")?,
                old: old_tuple(&mut reader)?,
            },
            b'T' => {
                let count = reader.u32("relation count")?;
                Self::Truncate {
                    options: reader.u8("options")?,
                    relations: reader.list(count)?,
                }
            }
            tag => return Err(DecodeError::UnknownTag { tag }),
        };
        reader.finish()?;
        Ok(message)
    }

    /// Appends the message to `out`; it goes into an [`ServerPayload::XLogData`]. Real ones come from a server: this is for tests.
    #[expect(clippy::too_many_lines, reason = "a flat table of fields")]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::raw(out);
        match *self {
            Self::Begin {
                final_lsn,
                committed_at,
                xid,
            } => {
                w.u8(b'B');
                w.u64(final_lsn);
                w.i64(committed_at);
                w.u32(xid);
            }
            Self::Message(message) => {
                w.u8(b'M');
                w.u8(message.flags);
                w.u64(message.lsn);
                w.cstr(message.prefix);
                w.value(Some(message.content));
            }
            Self::Commit {
                flags,
                commit_lsn,
                end_lsn,
                committed_at,
            } => {
                w.u8(b'C');
                w.u8(flags);
                w.u64(commit_lsn);
                w.u64(end_lsn);
                w.i64(committed_at);
            }
            Self::Origin { commit_lsn, name } => {
                w.u8(b'O');
                w.u64(commit_lsn);
                w.cstr(name);
            }
            Self::Relation(relation) => {
                w.u8(b'R');
                w.u32(relation.id);
                w.cstr(relation.namespace);
                w.cstr(relation.name);
                w.u8(relation.replica_identity);
                w.counted(relation.columns);
            }
            Self::Type {
                id,
                namespace,
                name,
            } => {
                w.u8(b'Y');
                w.u32(id);
                w.cstr(namespace);
                w.cstr(name);
            }
            Self::Insert { relation, new } => {
                w.u8(b'I');
                w.u32(relation);
                write_tuple(&mut w, b'N', new);
            }
            Self::Update { relation, old, new } => {
                w.u8(b'U');
                w.u32(relation);
                if let Some(old) = old {
                    write_old_tuple(&mut w, old);
                }
                write_tuple(&mut w, b'N', new);
            }
            Self::Delete { relation, old } => {
                w.u8(b'D');
                w.u32(relation);
                write_old_tuple(&mut w, old);
            }
            Self::Truncate { options, relations } => {
                w.u8(b'T');
                w.u32(relations.count);
                w.u8(options);
                w.bytes(relations.raw);
            }
        }
    }
}

fn emitted_message<'a>(reader: &mut Reader<'a>) -> Result<EmittedMessage<'a>, DecodeError> {
    let flags = reader.u8("flags")?;
    let lsn = reader.u64("LSN")?;
    let prefix = reader.cstr("prefix")?;
    let offset = reader.offset();
    let content = reader
        .value("content")?
        .ok_or_else(|| reader.bad_value("content length", -1, offset))?;
    Ok(EmittedMessage {
        flags,
        lsn,
        prefix,
        content,
    })
}

fn new_tuple<'a>(reader: &mut Reader<'a>) -> Result<List<'a, TupleColumn>, DecodeError> {
    let offset = reader.offset();
    match reader.u8("tuple kind")? {
        b'N' => reader.counted(),
        other => Err(reader.bad_value("tuple kind", i64::from(other), offset)),
    }
}

fn old_tuple<'a>(reader: &mut Reader<'a>) -> Result<OldTuple<'a>, DecodeError> {
    let offset = reader.offset();
    match reader.u8("tuple kind")? {
        b'K' => reader.counted().map(OldTuple::Key),
        b'O' => reader.counted().map(OldTuple::Full),
        other => Err(reader.bad_value("tuple kind", i64::from(other), offset)),
    }
}

fn write_tuple(w: &mut Writer<'_>, kind: u8, tuple: List<'_, TupleColumn>) {
    w.u8(kind);
    w.counted(tuple);
}

fn write_old_tuple(w: &mut Writer<'_>, old: OldTuple<'_>) {
    match old {
        OldTuple::Key(tuple) => write_tuple(w, b'K', tuple),
        OldTuple::Full(tuple) => write_tuple(w, b'O', tuple),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::ListBuf;

    /// Encodes, decodes, and sees that no prefix and nothing longer decodes.
    fn anatomy(message: LogicalMessage<'_>, expected: &[u8]) {
        let mut out = Vec::new();
        message.encode(&mut out);
        assert_eq!(out, expected, "{message:?}");
        assert_eq!(LogicalMessage::decode(&out), Ok(message));
        for len in 0..out.len() {
            assert!(
                LogicalMessage::decode(&out[..len]).is_err(),
                "{message:?} {len}"
            );
        }
        out.push(0);
        assert!(matches!(
            LogicalMessage::decode(&out),
            Err(DecodeError::Trailing { bytes: 1, .. })
        ));
    }

    #[test]
    fn transaction_messages_hold_their_anatomy() {
        anatomy(
            LogicalMessage::Begin {
                final_lsn: 1,
                committed_at: 2,
                xid: 3,
            },
            b"B\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x03",
        );
        anatomy(
            LogicalMessage::Commit {
                flags: 0,
                commit_lsn: 1,
                end_lsn: 2,
                committed_at: 3,
            },
            b"C\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03",
        );
        anatomy(
            LogicalMessage::Origin {
                commit_lsn: 1,
                name: b"o",
            },
            b"O\0\0\0\0\0\0\0\x01o\0",
        );
        let emitted = EmittedMessage {
            flags: 1,
            lsn: 2,
            prefix: b"p",
            content: b"hi",
        };
        anatomy(
            LogicalMessage::Message(emitted),
            b"M\x01\0\0\0\0\0\0\0\x02p\0\0\0\0\x02hi",
        );
    }

    #[test]
    fn relations_and_types_hold_their_anatomy() {
        let column = ColumnInfo {
            flags: 1,
            name: b"id",
            type_id: 23,
            type_modifier: -1,
        };
        let columns = ListBuf::<RelationColumn>::collect([column]).unwrap();
        let relation = Relation {
            id: 16_384,
            namespace: b"public",
            name: b"t",
            replica_identity: b'd',
            columns: columns.as_list(),
        };
        anatomy(
            LogicalMessage::Relation(relation),
            b"R\0\0\x40\0public\0t\0d\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff",
        );
        anatomy(
            LogicalMessage::Type {
                id: 1,
                namespace: b"public",
                name: b"e",
            },
            b"Y\0\0\0\x01public\0e\0",
        );
    }

    #[test]
    fn changes_hold_their_anatomy() {
        let values = [
            ColumnValue::Text(b"1"),
            ColumnValue::Null,
            ColumnValue::Unchanged,
            ColumnValue::Binary(b"\0"),
        ];
        let row = ListBuf::<TupleColumn>::collect(values).unwrap();
        let new = row.as_list();
        let tuple = b"\0\x04t\0\0\0\x011nub\0\0\0\x01\0";
        let bytes = |front: &[u8]| [front, &tuple[..]].concat();
        anatomy(
            LogicalMessage::Insert { relation: 7, new },
            &bytes(b"I\0\0\0\x07N"),
        );
        anatomy(
            LogicalMessage::Update {
                relation: 7,
                old: None,
                new,
            },
            &bytes(b"U\0\0\0\x07N"),
        );
        let key = Some(OldTuple::Key(List::EMPTY));
        anatomy(
            LogicalMessage::Update {
                relation: 7,
                old: key,
                new,
            },
            &bytes(b"U\0\0\0\x07K\0\0N"),
        );
        anatomy(
            LogicalMessage::Delete {
                relation: 7,
                old: OldTuple::Full(new),
            },
            &bytes(b"D\0\0\0\x07O"),
        );
        assert_eq!(new.iter().collect::<Vec<_>>(), values);
        let relations = ListBuf::<Oid>::collect([7, 8]).unwrap();
        let truncate = LogicalMessage::Truncate {
            options: 3,
            relations: relations.as_list(),
        };
        anatomy(truncate, b"T\0\0\0\x02\x03\0\0\0\x07\0\0\0\x08");
    }

    #[test]
    fn messages_of_later_versions_are_unknown() {
        assert_eq!(
            LogicalMessage::decode(b"S\0\0\0\x01\x01"),
            Err(DecodeError::UnknownTag { tag: b'S' })
        );
        assert!(matches!(
            LogicalMessage::decode(b"T\xff\xff\xff\xff\0"),
            Err(DecodeError::Truncated { .. })
        ));
    }

    #[test]
    fn debug_output_hides_values() {
        assert_eq!(
            format!("{:?}", ColumnValue::Text(b"secret")),
            "Text(<6 bytes>)"
        );
    }
}
