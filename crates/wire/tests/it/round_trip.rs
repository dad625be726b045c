//! `decode(encode(m)) == m` for every message of both directions, startup packets and replication payloads, over random fields.

use std::fmt::Debug;

use pgweir_wire::{
    Frame, Header, List, ListBuf, StartupMessage, StartupPacket, TransactionStatus,
    backend::{self, Authentication, Column},
    frontend::{self, Target},
    limits,
    list::{Element, Format, Oid, Value},
    pgoutput::{
        ColumnInfo, ColumnValue, EmittedMessage, LogicalMessage, OldTuple, Relation, ServerPayload,
        StandbyStatusUpdate,
    },
};
use proptest::{collection::vec, prelude::*};

/// Random material that every message takes its fields from.
#[derive(Clone, Debug)]
struct Parts {
    name: Vec<u8>,
    other_name: Vec<u8>,
    bytes: Vec<u8>,
    names: Vec<Vec<u8>>,
    values: Vec<Option<Vec<u8>>>,
    shorts: Vec<i16>,
    oids: Vec<u32>,
    short: i16,
    int: i32,
    long: u64,
    flag: bool,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(1..=255_u8, 0..20)
}

fn parts() -> impl Strategy<Value = Parts> {
    let lists = (
        vec(vec(1..=255_u8, 1..12), 0..5),
        vec(proptest::option::of(vec(any::<u8>(), 0..40)), 0..9),
        vec(any::<i16>(), 0..9),
        vec(any::<u32>(), 0..9),
    );
    let scalars = (any::<i16>(), any::<i32>(), any::<u64>(), any::<bool>());
    (name(), name(), vec(any::<u8>(), 4..64), lists, scalars).prop_map(
        |(name, other_name, bytes, (names, values, shorts, oids), (short, int, long, flag))| {
            Parts {
                name,
                other_name,
                bytes,
                names,
                values,
                shorts,
                oids,
                short,
                int,
                long,
                flag,
            }
        },
    )
}

impl Parts {
    fn formats(&self) -> ListBuf<Format> {
        ListBuf::collect(self.shorts.iter().copied()).unwrap()
    }

    fn types(&self) -> ListBuf<Oid> {
        ListBuf::collect(self.oids.iter().copied()).unwrap()
    }

    fn values(&self) -> ListBuf<Value> {
        ListBuf::collect(self.values.iter().map(Option::as_deref)).unwrap()
    }

    fn texts<T: for<'a> Element<View<'a> = &'a [u8]>>(&self) -> ListBuf<T> {
        let mut list = ListBuf::new();
        self.names
            .iter()
            .for_each(|name| list.push(&name[..]).unwrap());
        list
    }

    fn uint(&self) -> u32 {
        self.int.cast_unsigned()
    }

    fn byte(&self) -> u8 {
        self.bytes[0]
    }
}

/// Encodes, looks at the header, decodes, compares, and encodes again.
fn frontend(message: frontend::Message<'_>) {
    let mut out = Vec::new();
    message.encode(&mut out);
    let header = Header::peek(&out).unwrap().unwrap();
    assert_eq!((header.tag, header.frame_len()), (message.tag(), out.len()));
    let decoded = frontend::Message::decode(Frame {
        tag: out[0],
        bytes: &out,
    })
    .unwrap();
    assert_eq!(decoded, message);
    let mut again = Vec::new();
    decoded.encode(&mut again);
    assert_eq!(again, out);
}

/// As [`frontend`].
fn backend(message: backend::Message<'_>) {
    let mut out = Vec::new();
    message.encode(&mut out);
    let header = Header::peek(&out).unwrap().unwrap();
    assert_eq!((header.tag, header.frame_len()), (message.tag(), out.len()));
    let decoded = backend::Message::decode(Frame {
        tag: out[0],
        bytes: &out,
    })
    .unwrap();
    assert_eq!(decoded, message);
    let mut again = Vec::new();
    decoded.encode(&mut again);
    assert_eq!(again, out);
}

fn items<'a, T: Element, V: From<T::View<'a>>>(list: List<'a, T>) -> Vec<V> {
    list.iter().map(V::from).collect()
}

fn all_frontend_messages(parts: &Parts) {
    use frontend::Message as M;
    let (formats, types, values) = (parts.formats(), parts.types(), parts.values());
    let kind = if parts.flag {
        Target::Statement
    } else {
        Target::Portal
    };
    let (name, other) = (&parts.name[..], &parts.other_name[..]);
    frontend(M::Query(frontend::Query { sql: name }));
    frontend(M::Parse(frontend::Parse {
        name,
        sql: other,
        parameter_types: types.as_list(),
    }));
    frontend(M::Bind(frontend::Bind {
        portal: name,
        statement: other,
        parameter_formats: formats.as_list(),
        parameters: values.as_list(),
        result_formats: formats.as_list(),
    }));
    frontend(M::Describe(frontend::Describe { kind, name }));
    frontend(M::Close(frontend::Close { kind, name }));
    frontend(M::Execute(frontend::Execute {
        portal: name,
        max_rows: parts.int,
    }));
    frontend(M::FunctionCall(frontend::FunctionCall {
        function: parts.uint(),
        argument_formats: formats.as_list(),
        arguments: values.as_list(),
        result_format: parts.short,
    }));
    frontend(M::CopyData(frontend::CopyData { data: &parts.bytes }));
    frontend(M::CopyDone(frontend::CopyDone));
    frontend(M::CopyFail(frontend::CopyFail { message: name }));
    frontend(M::Password(frontend::Password { raw: &parts.bytes }));
    frontend(M::Sync(frontend::Sync));
    frontend(M::Flush(frontend::Flush));
    frontend(M::Terminate(frontend::Terminate));

    assert_eq!(items::<_, u32>(types.as_list()), parts.oids);
    assert_eq!(items::<_, i16>(formats.as_list()), parts.shorts);
    let read: Vec<_> = values
        .as_list()
        .iter()
        .map(|value| value.map(<[u8]>::to_vec))
        .collect();
    assert_eq!(read, parts.values);
}

fn all_authentication_messages(parts: &Parts) {
    let mechanisms = parts.texts();
    let data = &parts.bytes[..];
    for message in [
        Authentication::Ok,
        Authentication::Kerberos,
        Authentication::CleartextPassword,
        Authentication::Md5 {
            salt: parts.int.to_be_bytes(),
        },
        Authentication::Gss,
        Authentication::GssContinue { data },
        Authentication::Sspi,
        Authentication::Sasl {
            mechanisms: mechanisms.as_list(),
        },
        Authentication::SaslContinue { data },
        Authentication::SaslFinal { data },
    ] {
        backend(backend::Message::Authentication(message));
    }
}

#[expect(clippy::too_many_lines, reason = "a flat table of messages")]
fn all_other_backend_messages(parts: &Parts) {
    use backend::Message as M;
    let (formats, types, values) = (parts.formats(), parts.types(), parts.values());
    let (name, other) = (&parts.name[..], &parts.other_name[..]);
    let (format, column_formats) = (parts.byte().cast_signed(), formats.as_list());
    let mut fields = ListBuf::new();
    parts
        .names
        .iter()
        .for_each(|value| fields.push((value[0], &value[..])).unwrap());
    let columns = ListBuf::collect(parts.names.iter().map(|name| Column {
        name,
        table: parts.uint(),
        attribute: parts.short,
        type_id: parts.uint(),
        type_size: parts.short,
        type_modifier: parts.int,
        format: parts.short,
    }))
    .unwrap();
    let options = parts.texts();
    let value = parts.flag.then_some(&parts.bytes[..]);
    backend(M::BackendKeyData(backend::BackendKeyData {
        process_id: parts.uint(),
        secret: &parts.bytes,
    }));
    backend(M::BindComplete(backend::BindComplete));
    backend(M::CloseComplete(backend::CloseComplete));
    backend(M::CommandComplete(backend::CommandComplete { tag: name }));
    backend(M::CopyBothResponse(backend::CopyBothResponse {
        format,
        column_formats,
    }));
    backend(M::CopyInResponse(backend::CopyInResponse {
        format,
        column_formats,
    }));
    backend(M::CopyOutResponse(backend::CopyOutResponse {
        format,
        column_formats,
    }));
    backend(M::CopyData(backend::CopyData { data: &parts.bytes }));
    backend(M::CopyDone(backend::CopyDone));
    backend(M::DataRow(backend::DataRow {
        columns: values.as_list(),
    }));
    backend(M::EmptyQueryResponse(backend::EmptyQueryResponse));
    backend(M::ErrorResponse(backend::ErrorResponse {
        fields: fields.as_list(),
    }));
    backend(M::NoticeResponse(backend::NoticeResponse {
        fields: fields.as_list(),
    }));
    backend(M::FunctionCallResponse(backend::FunctionCallResponse {
        value,
    }));
    backend(M::NegotiateProtocolVersion(
        backend::NegotiateProtocolVersion {
            version: parts.uint(),
            options: options.as_list(),
        },
    ));
    backend(M::NoData(backend::NoData));
    backend(M::NotificationResponse(backend::NotificationResponse {
        process_id: parts.uint(),
        channel: name,
        payload: other,
    }));
    backend(M::ParameterDescription(backend::ParameterDescription {
        parameter_types: types.as_list(),
    }));
    backend(M::ParameterStatus(backend::ParameterStatus {
        name,
        value: other,
    }));
    backend(M::ParseComplete(backend::ParseComplete));
    backend(M::PortalSuspended(backend::PortalSuspended));
    for status in [
        TransactionStatus::Idle,
        TransactionStatus::InTransaction,
        TransactionStatus::Failed,
    ] {
        backend(M::ReadyForQuery(backend::ReadyForQuery { status }));
    }
    backend(M::RowDescription(backend::RowDescription {
        columns: columns.as_list(),
    }));
}

fn all_startup_packets(parts: &Parts) {
    let mut parameters = ListBuf::new();
    parts
        .names
        .iter()
        .for_each(|name| parameters.push((&name[..], &parts.name[..])).unwrap());
    let message = StartupMessage {
        major: 3,
        minor: parts.short.cast_unsigned(),
        parameters: parameters.as_list(),
    };
    for packet in [
        StartupPacket::Ssl,
        StartupPacket::Gss,
        StartupPacket::Cancel {
            process_id: parts.uint(),
            secret: &parts.bytes,
        },
        StartupPacket::Startup(message),
        StartupPacket::Other {
            code: u32::from(parts.byte()),
        },
    ] {
        let mut out = Vec::new();
        packet.encode(&mut out);
        let decoded = StartupPacket::decode(&out, limits::MAX_STARTUP_PACKET).unwrap();
        assert_eq!(decoded, Some((packet, out.len())));
    }
}

#[expect(clippy::too_many_lines, reason = "a flat table of messages")]
fn all_logical_messages(parts: &Parts) {
    let (name, namespace) = (&parts.name[..], &parts.other_name[..]);
    let (id, lsn, time) = (parts.uint(), parts.long, parts.long.cast_signed());
    let columns = ListBuf::collect(parts.names.iter().map(|name| ColumnInfo {
        flags: parts.byte(),
        name,
        type_id: id,
        type_modifier: parts.int,
    }))
    .unwrap();
    let mut row = ListBuf::new();
    row.push(ColumnValue::Unchanged).unwrap();
    row.push(ColumnValue::Binary(&parts.bytes)).unwrap();
    for value in &parts.values {
        row.push(
            value
                .as_deref()
                .map_or(ColumnValue::Null, ColumnValue::Text),
        )
        .unwrap();
    }
    let relations = parts.types();
    let (tuple, flags) = (row.as_list(), parts.byte());
    let old = if parts.flag {
        OldTuple::Key(tuple)
    } else {
        OldTuple::Full(tuple)
    };
    let relation = Relation {
        id,
        namespace,
        name,
        replica_identity: flags,
        columns: columns.as_list(),
    };
    for message in [
        LogicalMessage::Begin {
            final_lsn: lsn,
            committed_at: time,
            xid: id,
        },
        LogicalMessage::Message(EmittedMessage {
            flags,
            lsn,
            prefix: name,
            content: &parts.bytes,
        }),
        LogicalMessage::Commit {
            flags,
            commit_lsn: lsn,
            end_lsn: lsn,
            committed_at: time,
        },
        LogicalMessage::Origin {
            commit_lsn: lsn,
            name,
        },
        LogicalMessage::Relation(relation),
        LogicalMessage::Type {
            id,
            namespace,
            name,
        },
        LogicalMessage::Insert {
            relation: id,
            new: tuple,
        },
        LogicalMessage::Update {
            relation: id,
            old: None,
            new: tuple,
        },
        LogicalMessage::Update {
            relation: id,
            old: Some(old),
            new: tuple,
        },
        LogicalMessage::Delete { relation: id, old },
        LogicalMessage::Truncate {
            options: flags,
            relations: relations.as_list(),
        },
    ] {
        let mut out = Vec::new();
        message.encode(&mut out);
        assert_eq!(LogicalMessage::decode(&out), Ok(message));
    }
}

fn all_replication_payloads(parts: &Parts) {
    let (lsn, sent_at) = (parts.long, parts.long.cast_signed());
    for payload in [
        ServerPayload::XLogData {
            start: lsn,
            end: lsn,
            sent_at,
            data: &parts.bytes,
        },
        ServerPayload::PrimaryKeepalive {
            end: lsn,
            sent_at,
            reply_requested: parts.flag,
        },
    ] {
        let mut out = Vec::new();
        payload.encode(&mut out);
        assert_eq!(ServerPayload::decode(&out), Ok(payload));
    }
    let update = StandbyStatusUpdate {
        written: lsn,
        flushed: lsn,
        applied: lsn,
        sent_at,
        reply_requested: parts.flag,
    };
    let mut out = Vec::new();
    update.encode(&mut out);
    assert_eq!(StandbyStatusUpdate::decode(&out), Ok(update));
}

proptest! {
    #[test]
    fn every_frontend_message_round_trips(parts in parts()) {
        all_frontend_messages(&parts);
    }

    #[test]
    fn every_backend_message_round_trips(parts in parts()) {
        all_authentication_messages(&parts);
        all_other_backend_messages(&parts);
    }

    #[test]
    fn every_startup_packet_round_trips(parts in parts()) {
        all_startup_packets(&parts);
    }

    #[test]
    fn every_replication_message_round_trips(parts in parts()) {
        all_logical_messages(&parts);
        all_replication_payloads(&parts);
    }
}
