//! Names that the grammar or the system catalog gives a meaning: keywords, operators, types, relations.
//!
//! Keywords come from `pg_get_keywords()` of PostgreSQL 15 with the additions of 16 to 18, operators from `pg_operator`, types from
//! `pg_type` with the grammar's own spellings. Each table is sorted by bytes, for binary search.

/// Keywords that cannot name a function or a column without quotes (`catcode` R).
#[rustfmt::skip]
pub(crate) const RESERVED: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "both", "case", "cast", "check",
    "collate", "column", "constraint", "create", "current_catalog", "current_date", "current_role", "current_time",
    "current_timestamp", "current_user", "default", "deferrable", "desc", "distinct", "do", "else", "end", "except",
    "false", "fetch", "for", "foreign", "from", "grant", "group", "having", "in", "initially", "intersect", "into",
    "lateral", "leading", "limit", "localtime", "localtimestamp", "not", "null", "offset", "on", "only", "or",
    "order", "placing", "primary", "references", "returning", "select", "session_user", "some", "symmetric",
    "system_user", "table", "then", "to", "trailing", "true", "union", "unique", "user", "using", "variadic",
    "when", "where", "window", "with",
];

/// Keywords that may name a column but not a function (`catcode` C): before a parenthesis they are constructs of the grammar.
#[rustfmt::skip]
 const COLUMN_NAME: &[&str] = &[
    "between", "bigint", "bit", "boolean", "char", "character", "coalesce", "dec", "decimal", "exists", "extract",
    "float", "greatest", "grouping", "inout", "int", "integer", "interval", "json", "json_array", "json_arrayagg",
    "json_exists", "json_object", "json_objectagg", "json_query", "json_scalar", "json_serialize", "json_table",
    "json_value", "least", "merge_action", "national", "nchar", "none", "normalize", "nullif", "numeric", "out",
    "overlay", "position", "precision", "real", "row", "setof", "smallint", "substring", "time", "timestamp",
    "treat", "trim", "values", "varchar", "xmlattributes", "xmlconcat", "xmlelement", "xmlexists", "xmlforest",
    "xmlnamespaces", "xmlparse", "xmlpi", "xmlroot", "xmlserialize", "xmltable",
];

/// Keywords that may name a type or a function (`catcode` T).
#[rustfmt::skip]
 const TYPE_FUNCTION: &[&str] = &[
    "authorization", "binary", "collation", "concurrently", "cross", "current_schema", "freeze", "full", "ilike",
    "inner", "is", "isnull", "join", "left", "like", "natural", "notnull", "outer", "overlaps", "right", "similar",
    "tablesample", "verbose",
];

/// Keywords that may name anything (`catcode` U).
#[rustfmt::skip]
 const UNRESERVED: &[&str] = &[
    "abort", "absent", "absolute", "access", "action", "add", "admin", "after", "aggregate", "also", "alter",
    "always", "asensitive", "assertion", "assignment", "at", "atomic", "attach", "attribute", "backward", "before",
    "begin", "breadth", "by", "cache", "call", "called", "cascade", "cascaded", "catalog", "chain",
    "characteristics", "checkpoint", "class", "close", "cluster", "columns", "comment", "comments", "commit",
    "committed", "compression", "conditional", "configuration", "conflict", "connection", "constraints", "content",
    "continue", "conversion", "copy", "cost", "csv", "cube", "current", "cursor", "cycle", "data", "database",
    "day", "deallocate", "declare", "defaults", "deferred", "definer", "delete", "delimiter", "delimiters",
    "depends", "depth", "detach", "dictionary", "disable", "discard", "document", "domain", "double", "drop",
    "each", "empty", "enable", "encoding", "encrypted", "enforced", "enum", "error", "escape", "event", "exclude",
    "excluding", "exclusive", "execute", "explain", "expression", "extension", "external", "family", "filter",
    "finalize", "first", "following", "force", "format", "forward", "function", "functions", "generated", "global",
    "granted", "groups", "handler", "header", "hold", "hour", "identity", "if", "ignore", "immediate", "immutable",
    "implicit", "import", "include", "including", "increment", "indent", "index", "indexes", "inherit", "inherits",
    "inline", "input", "insensitive", "insert", "instead", "invoker", "isolation", "keep", "key", "keys", "label",
    "language", "large", "last", "leakproof", "level", "listen", "load", "local", "location", "lock", "locked",
    "logged", "lsn", "mapping", "match", "matched", "materialized", "maxvalue", "merge", "method", "minute",
    "minvalue", "mode", "month", "move", "name", "names", "nested", "new", "next", "nfc", "nfd", "nfkc", "nfkd",
    "no", "normalized", "nothing", "notify", "nowait", "nulls", "object", "objects", "of", "off", "oids", "old",
    "omit", "operator", "option", "options", "ordinality", "others", "over", "overriding", "owned", "owner",
    "parallel", "parameter", "parser", "partial", "partition", "passing", "password", "path", "period", "plan",
    "plans", "policy", "preceding", "prepare", "prepared", "preserve", "prior", "privileges", "procedural",
    "procedure", "procedures", "program", "publication", "quote", "quotes", "range", "read", "reassign", "recheck",
    "recursive", "ref", "referencing", "refresh", "reindex", "relative", "release", "rename", "repeatable",
    "replace", "replica", "reset", "respect", "restart", "restrict", "return", "returns", "revoke", "role",
    "rollback", "rollup", "routine", "routines", "rows", "rule", "savepoint", "scalar", "schema", "schemas",
    "scroll", "search", "second", "security", "sequence", "sequences", "serializable", "server", "session", "set",
    "sets", "share", "show", "simple", "skip", "snapshot", "source", "sql", "stable", "standalone", "start",
    "statement", "statistics", "stdin", "stdout", "storage", "stored", "strict", "string", "strip", "subscription",
    "support", "sysid", "system", "tables", "tablespace", "target", "temp", "template", "temporary", "text", "ties",
    "transaction", "transform", "trigger", "truncate", "trusted", "type", "types", "uescape", "unbounded",
    "uncommitted", "unconditional", "unencrypted", "unknown", "unlisten", "unlogged", "until", "update", "vacuum",
    "valid", "validate", "validator", "value", "varying", "version", "view", "views", "virtual", "volatile", "wait",
    "whitespace", "within", "without", "work", "wrapper", "write", "xml", "year", "yes", "zone",
];

/// The operators of `pg_catalog`, and `=>`, which names an argument.
#[rustfmt::skip]
 const OPERATORS: &[&str] = &[
    "!!", "!=", "!~", "!~*", "!~~", "!~~*", "#", "##", "#-", "#>", "#>>", "%", "&", "&&", "&<", "&<|", "&>", "*",
    "*<", "*<=", "*<>", "*=", "*>", "*>=", "+", "-", "->", "->>", "-|-", "/", "<", "<->", "<<", "<<=", "<<|", "<=",
    "<>", "<@", "<^", "=", "=>", ">", ">=", ">>", ">>=", ">^", "?", "?#", "?&", "?-", "?-|", "?|", "?||", "@",
    "@-@", "@>", "@?", "@@", "@@@", "^", "^@", "|", "|&>", "|/", "|>>", "||", "||/", "~", "~*", "~<=~", "~<~", "~=",
    "~>=~", "~>~", "~~", "~~*",
];

/// The types whose input and casts run no function of a user.
#[rustfmt::skip]
 const TYPES: &[&str] = &[
    "aclitem", "any", "anyarray", "anycompatible", "anycompatiblearray", "anycompatiblemultirange",
    "anycompatiblenonarray", "anycompatiblerange", "anyelement", "anyenum", "anymultirange", "anynonarray",
    "anyrange", "bit", "bool", "box", "bpchar", "bytea", "char", "cid", "cidr", "circle", "date", "datemultirange",
    "daterange", "float4", "float8", "gtsvector", "inet", "int2", "int2vector", "int4", "int4multirange",
    "int4range", "int8", "int8multirange", "int8range", "interval", "json", "jsonb", "jsonpath", "line", "lseg",
    "macaddr", "macaddr8", "money", "name", "numeric", "nummultirange", "numrange", "oid", "oid8", "oidvector", "path", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_ddl_command",
    "pg_dependencies", "pg_lsn", "pg_mcv_list", "pg_ndistinct", "pg_node_tree", "pg_snapshot", "point", "polygon",
    "record", "refcursor", "regclass", "regcollation", "regconfig", "regdictionary", "regnamespace",
    "regoper", "regoperator", "regproc", "regprocedure", "regrole", "regtype", "regtypemod", "text", "tid", "time", "timestamp", "timestamptz", "timetz", "tsmultirange", "tsquery", "tsrange",
    "tstzmultirange", "tstzrange", "tsvector", "txid_snapshot", "unknown", "uuid", "varbit", "varchar", "void", "xid", "xid8", "xml",
];

/// What the grammar calls some types. Quoted, or behind a schema, these are no built-in types.
const TYPE_SPELLINGS: &[&str] = &[
    "bigint",
    "boolean",
    "character",
    "dec",
    "decimal",
    "float",
    "int",
    "integer",
    "national",
    "nchar",
    "real",
    "smallint",
];

/// Relations whose content is that of the node or of the session, beside the families `pg_stat_` and `pg_statio_`.
const PRIMARY_ONLY_RELATIONS: &[&str] = &[
    "pg_aios",
    "pg_available_extension_versions",
    "pg_available_extensions",
    "pg_backend_memory_contexts",
    "pg_config",
    "pg_cursors",
    "pg_file_settings",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_largeobject",
    "pg_largeobject_metadata",
    "pg_locks",
    "pg_prepared_statements",
    "pg_prepared_xacts",
    "pg_replication_origin_status",
    "pg_replication_slots",
    "pg_sequences",
    "pg_settings",
    "pg_shmem_allocations",
    "pg_shmem_allocations_numa",
    "pg_wait_events",
];

/// What the grammar makes of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    /// Cannot be a name.
    Reserved,
    /// Cannot be the name of a function.
    ColumnName,
    /// May be the name of a type or a function.
    TypeFunction,
    /// May be any name.
    Unreserved,
    /// Not a keyword.
    None,
}

/// Returns whether a sorted table has the name.
pub(crate) fn listed(table: &[&str], name: &[u8]) -> bool {
    table
        .binary_search_by(|entry| entry.as_bytes().cmp(name))
        .is_ok()
}

/// Returns what the grammar makes of a word in lower case.
pub(crate) fn keyword(word: &[u8]) -> Keyword {
    if listed(RESERVED, word) {
        Keyword::Reserved
    } else if listed(COLUMN_NAME, word) {
        Keyword::ColumnName
    } else if listed(TYPE_FUNCTION, word) {
        Keyword::TypeFunction
    } else if listed(UNRESERVED, word) {
        Keyword::Unreserved
    } else {
        Keyword::None
    }
}

/// Returns whether an operator is one of `pg_catalog`.
pub(crate) fn is_builtin_operator(operator: &[u8]) -> bool {
    listed(OPERATORS, operator)
}

/// Returns whether a word without quotes is the grammar's own name of a type.
pub(crate) fn is_type_spelling(word: &[u8]) -> bool {
    listed(TYPE_SPELLINGS, word)
}

/// Returns whether a type, or the element of an array type (`_int4`), is one of `pg_catalog`.
pub(crate) fn is_builtin_type(name: &[u8]) -> bool {
    listed(TYPES, name.strip_prefix(b"_").unwrap_or(name))
}

/// Returns whether a relation can only be read on the primary.
pub(crate) fn is_primary_only_relation(name: &[u8]) -> bool {
    name.starts_with(b"pg_")
        && (name.starts_with(b"pg_stat_")
            || name.starts_with(b"pg_statio_")
            || listed(PRIMARY_ONLY_RELATIONS, name))
}

/// Returns whether a name is the schema of the session's temporary tables, or of another session's.
pub(crate) fn is_temp_schema(name: &[u8]) -> bool {
    name == b"pg_temp" || name.starts_with(b"pg_temp_") || name.starts_with(b"pg_toast_temp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_without_duplicates() {
        for table in [
            RESERVED,
            COLUMN_NAME,
            TYPE_FUNCTION,
            UNRESERVED,
            OPERATORS,
            TYPES,
            TYPE_SPELLINGS,
            PRIMARY_ONLY_RELATIONS,
        ] {
            assert!(
                table
                    .windows(2)
                    .all(|pair| pair[0].as_bytes() < pair[1].as_bytes())
            );
        }
    }

    #[test]
    fn words_have_the_category_that_the_grammar_gives_them() {
        assert_eq!(keyword(b"select"), Keyword::Reserved);
        assert_eq!(keyword(b"coalesce"), Keyword::ColumnName);
        assert_eq!(keyword(b"left"), Keyword::TypeFunction);
        assert_eq!(keyword(b"over"), Keyword::Unreserved);
        assert_eq!(keyword(b"users"), Keyword::None);
    }
}
