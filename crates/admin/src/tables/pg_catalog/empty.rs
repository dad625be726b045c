//! Catalogs that are empty here: their columns, so that a tool which joins them gets its answer.
//!
//! The columns are those of PostgreSQL 15, with a few of older releases that tools still name.

use super::{
    Changes, Column, NOTHING, Row, Scene, Schema, Table, boolean, int2, int4, letter, moment, name,
    oid, text,
};
use crate::tables::{float8, int8};

const fn empty(name: &'static str, columns: &'static [Column]) -> Table {
    Table {
        schema: Schema::PgCatalog,
        name,
        about: "",
        columns,
        changes: Changes::None,
        needs: NOTHING,
        rows: none,
    }
}

fn none(_: &Scene<'_>) -> Vec<Row> {
    Vec::new()
}

#[rustfmt::skip] // one line each: it is a table
pub(super) const TABLES: [Table; 63] = [
    empty("pg_proc", &[oid("oid"), name("proname"), oid("pronamespace"), oid("proowner"), oid("prolang"), float8("procost", ""), float8("prorows", ""), oid("provariadic"), text("prosupport", ""), letter("prokind"), boolean("prosecdef", ""), boolean("proleakproof", ""), boolean("proisstrict", ""), boolean("proretset", ""), letter("provolatile"), letter("proparallel"), int2("pronargs"), int2("pronargdefaults"), oid("prorettype"), text("proargtypes", ""), text("proallargtypes", ""), text("proargmodes", ""), text("proargnames", ""), text("proargdefaults", ""), text("protrftypes", ""), text("prosrc", ""), text("probin", ""), text("prosqlbody", ""), text("proconfig", ""), text("proacl", ""), boolean("proisagg", ""), boolean("proiswindow", "")]),
    empty("pg_attrdef", &[oid("oid"), oid("adrelid"), int2("adnum"), text("adbin", "")]),
    empty("pg_index", &[oid("indexrelid"), oid("indrelid"), int2("indnatts"), int2("indnkeyatts"), boolean("indisunique", ""), boolean("indnullsnotdistinct", ""), boolean("indisprimary", ""), boolean("indisexclusion", ""), boolean("indimmediate", ""), boolean("indisclustered", ""), boolean("indisvalid", ""), boolean("indcheckxmin", ""), boolean("indisready", ""), boolean("indislive", ""), boolean("indisreplident", ""), text("indkey", ""), text("indcollation", ""), text("indclass", ""), text("indoption", ""), text("indexprs", ""), text("indpred", "")]),
    empty("pg_constraint", &[oid("oid"), name("conname"), oid("connamespace"), letter("contype"), boolean("condeferrable", ""), boolean("condeferred", ""), boolean("convalidated", ""), oid("conrelid"), oid("contypid"), oid("conindid"), oid("conparentid"), oid("confrelid"), letter("confupdtype"), letter("confdeltype"), letter("confmatchtype"), boolean("conislocal", ""), int4("coninhcount", ""), boolean("connoinherit", ""), text("conkey", ""), text("confkey", ""), text("conpfeqop", ""), text("conppeqop", ""), text("conffeqop", ""), text("confdelsetcols", ""), text("conexclop", ""), text("conbin", "")]),
    empty("pg_inherits", &[oid("inhrelid"), oid("inhparent"), int4("inhseqno", ""), boolean("inhdetachpending", "")]),
    empty("pg_trigger", &[oid("oid"), oid("tgrelid"), oid("tgparentid"), name("tgname"), oid("tgfoid"), int2("tgtype"), letter("tgenabled"), boolean("tgisinternal", ""), oid("tgconstrrelid"), oid("tgconstrindid"), oid("tgconstraint"), boolean("tgdeferrable", ""), boolean("tginitdeferred", ""), int2("tgnargs"), text("tgattr", ""), text("tgargs", ""), text("tgqual", ""), name("tgoldtable"), name("tgnewtable")]),
    empty("pg_event_trigger", &[oid("oid"), name("evtname"), name("evtevent"), oid("evtowner"), oid("evtfoid"), letter("evtenabled"), text("evttags", "")]),
    empty("pg_rewrite", &[oid("oid"), name("rulename"), oid("ev_class"), letter("ev_type"), letter("ev_enabled"), boolean("is_instead", ""), text("ev_qual", ""), text("ev_action", "")]),
    empty("pg_policy", &[oid("oid"), name("polname"), oid("polrelid"), letter("polcmd"), boolean("polpermissive", ""), text("polroles", ""), text("polqual", ""), text("polwithcheck", "")]),
    empty("pg_policies", &[name("schemaname"), name("tablename"), name("policyname"), text("permissive", ""), text("roles", ""), text("cmd", ""), text("qual", ""), text("with_check", "")]),
    empty("pg_statistic_ext", &[oid("oid"), oid("stxrelid"), name("stxname"), oid("stxnamespace"), oid("stxowner"), int4("stxstattarget", ""), text("stxkeys", ""), text("stxkind", ""), text("stxexprs", "")]),
    empty("pg_publication", &[oid("oid"), name("pubname"), oid("pubowner"), boolean("puballtables", ""), boolean("pubinsert", ""), boolean("pubupdate", ""), boolean("pubdelete", ""), boolean("pubtruncate", ""), boolean("pubviaroot", "")]),
    empty("pg_publication_rel", &[oid("oid"), oid("prpubid"), oid("prrelid"), text("prqual", ""), text("prattrs", "")]),
    empty("pg_publication_namespace", &[oid("oid"), oid("pnpubid"), oid("pnnspid")]),
    empty("pg_publication_tables", &[name("pubname"), name("schemaname"), name("tablename"), text("attnames", ""), text("rowfilter", "")]),
    empty("pg_subscription", &[oid("oid"), oid("subdbid"), name("subname"), oid("subowner"), boolean("subenabled", ""), text("subconninfo", ""), name("subslotname"), text("subpublications", ""), text("subsynccommit", "")]),
    empty("pg_foreign_table", &[oid("ftrelid"), oid("ftserver"), text("ftoptions", "")]),
    empty("pg_foreign_server", &[oid("oid"), name("srvname"), oid("srvowner"), oid("srvfdw"), text("srvtype", ""), text("srvversion", ""), text("srvacl", ""), text("srvoptions", "")]),
    empty("pg_foreign_data_wrapper", &[oid("oid"), name("fdwname"), oid("fdwowner"), oid("fdwhandler"), oid("fdwvalidator"), text("fdwacl", ""), text("fdwoptions", "")]),
    empty("pg_user_mappings", &[oid("umid"), oid("srvid"), name("srvname"), oid("umuser"), name("usename"), text("umoptions", "")]),
    empty("pg_extension", &[oid("oid"), name("extname"), oid("extowner"), oid("extnamespace"), boolean("extrelocatable", ""), text("extversion", ""), text("extconfig", ""), text("extcondition", "")]),
    empty("pg_available_extensions", &[name("name"), text("default_version", ""), text("installed_version", ""), text("comment", "")]),
    empty("pg_enum", &[oid("oid"), oid("enumtypid"), float8("enumsortorder", ""), name("enumlabel")]),
    empty("pg_range", &[oid("rngtypid"), oid("rngsubtype"), oid("rngmultitypid"), oid("rngcollation"), oid("rngsubopc"), text("rngcanonical", ""), text("rngsubdiff", "")]),
    empty("pg_operator", &[oid("oid"), name("oprname"), oid("oprnamespace"), oid("oprowner"), letter("oprkind"), boolean("oprcanmerge", ""), boolean("oprcanhash", ""), oid("oprleft"), oid("oprright"), oid("oprresult"), oid("oprcom"), oid("oprnegate"), oid("oprcode"), oid("oprrest"), oid("oprjoin")]),
    empty("pg_opclass", &[oid("oid"), oid("opcmethod"), name("opcname"), oid("opcnamespace"), oid("opcowner"), oid("opcfamily"), oid("opcintype"), boolean("opcdefault", ""), oid("opckeytype")]),
    empty("pg_opfamily", &[oid("oid"), oid("opfmethod"), name("opfname"), oid("opfnamespace"), oid("opfowner")]),
    empty("pg_aggregate", &[oid("aggfnoid"), letter("aggkind"), int2("aggnumdirectargs"), oid("aggtransfn"), oid("aggfinalfn"), oid("aggcombinefn"), oid("aggsortop"), oid("aggtranstype"), text("agginitval", "")]),
    empty("pg_cast", &[oid("oid"), oid("castsource"), oid("casttarget"), oid("castfunc"), letter("castcontext"), letter("castmethod")]),
    empty("pg_conversion", &[oid("oid"), name("conname"), oid("connamespace"), oid("conowner"), int4("conforencoding", ""), int4("contoencoding", ""), oid("conproc"), boolean("condefault", "")]),
    empty("pg_depend", &[oid("classid"), oid("objid"), int4("objsubid", ""), oid("refclassid"), oid("refobjid"), int4("refobjsubid", ""), letter("deptype")]),
    empty("pg_shdepend", &[oid("dbid"), oid("classid"), oid("objid"), int4("objsubid", ""), oid("refclassid"), oid("refobjid"), letter("deptype")]),
    empty("pg_seclabel", &[oid("objoid"), oid("classoid"), int4("objsubid", ""), text("provider", ""), text("label", "")]),
    empty("pg_shseclabel", &[oid("objoid"), oid("classoid"), text("provider", ""), text("label", "")]),
    empty("pg_default_acl", &[oid("oid"), oid("defaclrole"), oid("defaclnamespace"), letter("defaclobjtype"), text("defaclacl", "")]),
    empty("pg_init_privs", &[oid("objoid"), oid("classoid"), int4("objsubid", ""), letter("privtype"), text("initprivs", "")]),
    empty("pg_db_role_setting", &[oid("setdatabase"), oid("setrole"), text("setconfig", "")]),
    empty("pg_partitioned_table", &[oid("partrelid"), letter("partstrat"), int2("partnatts"), oid("partdefid"), text("partattrs", ""), text("partclass", ""), text("partcollation", ""), text("partexprs", "")]),
    empty("pg_sequence", &[oid("seqrelid"), oid("seqtypid"), int8("seqstart", ""), int8("seqincrement", ""), int8("seqmax", ""), int8("seqmin", ""), int8("seqcache", ""), boolean("seqcycle", "")]),
    empty("pg_sequences", &[name("schemaname"), name("sequencename"), name("sequenceowner"), text("data_type", ""), int8("start_value", ""), int8("min_value", ""), int8("max_value", ""), int8("increment_by", ""), boolean("cycle", ""), int8("cache_size", ""), int8("last_value", "")]),
    empty("pg_views", &[name("schemaname"), name("viewname"), name("viewowner"), text("definition", "")]),
    empty("pg_matviews", &[name("schemaname"), name("matviewname"), name("matviewowner"), name("tablespace"), boolean("hasindexes", ""), boolean("ispopulated", ""), text("definition", "")]),
    empty("pg_indexes", &[name("schemaname"), name("tablename"), name("indexname"), name("tablespace"), text("indexdef", "")]),
    empty("pg_rules", &[name("schemaname"), name("tablename"), name("rulename"), text("definition", "")]),
    empty("pg_group", &[name("groname"), oid("grosysid"), text("grolist", "")]),
    empty("pg_locks", &[text("locktype", ""), oid("database"), oid("relation"), int4("pid", ""), text("mode", ""), boolean("granted", ""), boolean("fastpath", ""), text("virtualtransaction", ""), text("virtualxid", ""), int8("transactionid", "")]),
    empty("pg_prepared_xacts", &[int8("transaction", ""), text("gid", ""), moment("prepared", ""), name("owner"), name("database")]),
    empty("pg_cursors", &[text("name", ""), text("statement", ""), boolean("is_holdable", ""), boolean("is_binary", ""), boolean("is_scrollable", ""), moment("creation_time", "")]),
    empty("pg_stat_user_tables", &[oid("relid"), name("schemaname"), name("relname"), int8("seq_scan", ""), int8("seq_tup_read", ""), int8("idx_scan", ""), int8("n_tup_ins", ""), int8("n_tup_upd", ""), int8("n_tup_del", ""), int8("n_live_tup", ""), int8("n_dead_tup", ""), moment("last_vacuum", ""), moment("last_analyze", "")]),
    empty("pg_stat_replication", &[int4("pid", ""), oid("usesysid"), name("usename"), text("application_name", ""), text("client_addr", ""), text("state", ""), text("sent_lsn", ""), text("write_lsn", ""), text("flush_lsn", ""), text("replay_lsn", ""), text("sync_state", "")]),
    empty("pg_stat_ssl", &[int4("pid", ""), boolean("ssl", ""), text("version", ""), text("cipher", ""), int4("bits", ""), text("client_dn", "")]),
    empty("pg_stat_gssapi", &[int4("pid", ""), boolean("gss_authenticated", ""), text("principal", ""), boolean("encrypted", "")]),
    empty("pg_stat_database", &[oid("datid"), name("datname"), int4("numbackends", ""), int8("xact_commit", ""), int8("xact_rollback", ""), int8("blks_read", ""), int8("blks_hit", ""), int8("tup_returned", ""), int8("tup_fetched", ""), int8("tup_inserted", ""), int8("tup_updated", ""), int8("tup_deleted", ""), int8("deadlocks", ""), moment("stats_reset", "")]),
    empty("pg_replication_slots", &[name("slot_name"), name("plugin"), text("slot_type", ""), oid("datoid"), name("database"), boolean("temporary", ""), boolean("active", ""), int4("active_pid", ""), text("restart_lsn", ""), text("confirmed_flush_lsn", "")]),
    empty("pg_timezone_names", &[text("name", ""), text("abbrev", ""), text("utc_offset", ""), boolean("is_dst", "")]),
    empty("pg_largeobject_metadata", &[oid("oid"), oid("lomowner"), text("lomacl", "")]),
    empty("pg_ts_config", &[oid("oid"), name("cfgname"), oid("cfgnamespace"), oid("cfgowner"), oid("cfgparser")]),
    empty("pg_ts_dict", &[oid("oid"), name("dictname"), oid("dictnamespace"), oid("dictowner"), oid("dicttemplate"), text("dictinitoption", "")]),
    empty("pg_ts_parser", &[oid("oid"), name("prsname"), oid("prsnamespace"), oid("prsstart"), oid("prstoken"), oid("prsend"), oid("prsheadline"), oid("prslextype")]),
    empty("pg_ts_template", &[oid("oid"), name("tmplname"), oid("tmplnamespace"), oid("tmplinit"), oid("tmpllexize")]),
    empty("pg_amop", &[oid("oid"), oid("amopfamily"), oid("amoplefttype"), oid("amoprighttype"), int2("amopstrategy"), letter("amoppurpose"), oid("amopopr"), oid("amopmethod"), oid("amopsortfamily")]),
    empty("pg_amproc", &[oid("oid"), oid("amprocfamily"), oid("amproclefttype"), oid("amprocrighttype"), int2("amprocnum"), oid("amproc")]),
    empty("pg_parameter_acl", &[oid("oid"), text("parname", ""), text("paracl", "")]),
];
