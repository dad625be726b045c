//! What a stored expression refers to: object identifiers out of the text form of PostgreSQL's node trees.
//!
//! ## Why
//! `pg_depend` does not name what is built in, and `pg_get_viewdef` locks the tables of each view that it is asked for. The
//! stored tree (`pg_node_tree`) has every function and relation, also those that the text of the view does not show, and
//! reading it locks nothing.
//!
//! ## Limits
//! It is no reader of node trees: it takes numbers behind the names of a few fields, in whatever node they stand. See
//! `src/backend/nodes/outfuncs.c`.

use memchr::memchr;

/// The objects that a stored expression refers to, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Functions and aggregates (`pg_proc.oid`).
    pub functions: Box<[u32]>,
    /// Operators (`pg_operator.oid`).
    pub operators: Box<[u32]>,
    /// Relations (`pg_class.oid`).
    pub relations: Box<[u32]>,
    /// The types that it casts to (`pg_type.oid`).
    pub types: Box<[u32]>,
}

/// `current_setting(text)` and `current_setting(text, boolean)`: fixed by `pg_proc.dat`.
const CURRENT_SETTING: [u32; 2] = [2077, 3294];

/// Reads a stored expression.
pub fn references(tree: &[u8]) -> References {
    let [mut functions, mut operators, mut relations, mut types] = [const { Vec::new() }; 4];
    let mut rest = tree;
    while let Some(at) = memchr(b':', rest) {
        // A name that holds such a thing has a backslash before each odd character.
        rest = rest.get(at + 1..).unwrap_or_default();
        let end = memchr(b' ', rest).unwrap_or(rest.len());
        let (field, value) = rest.split_at(end);
        let list = match field {
            b"funcid" | b"opfuncid" | b"aggfnoid" | b"winfnoid" | b"tsmhandler" => &mut functions,
            b"opno" | b"opnos" | b"eqop" | b"sortop" => &mut operators,
            b"relid" => &mut relations,
            b"resulttype" => &mut types,
            _ => continue,
        };
        for oid in numbers(value) {
            if !(CURRENT_SETTING.contains(&oid) && names_custom_setting(value)) {
                list.push(oid);
            }
        }
    }
    let sorted = |mut list: Vec<u32>| {
        list.sort_unstable();
        list.dedup();
        list.into_boxed_slice()
    };
    References {
        functions: sorted(functions),
        operators: sorted(operators),
        relations: sorted(relations),
        types: sorted(types),
    }
}

/// Returns the number, or the numbers of a list like `(o 96 521)`, that a value begins with, without zeros.
fn numbers(value: &[u8]) -> impl Iterator<Item = u32> {
    let value = value.trim_ascii_start();
    let end = match value.strip_prefix(b"(o ") {
        Some(_) => memchr(b')', value),
        None => memchr(b' ', value),
    };
    let value = value.get(..end.unwrap_or(value.len())).unwrap_or_default();
    value
        .split(|byte| !byte.is_ascii_digit())
        .filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .filter(|oid| *oid != 0)
}

/// Returns whether the first argument of the call whose fields follow is a constant with a point in it: the name of a setting
/// that no server has of its own. Such a setting is the session's, and is the same wherever the session is.
fn names_custom_setting(fields: &[u8]) -> bool {
    let constant = behind(fields, b":args (").filter(|args| args.starts_with(b"{CONST "));
    let Some(content) = constant.and_then(|node| behind(node, b"[ ")) else {
        return false;
    };
    let end = memchr(b']', content).unwrap_or(0);
    let content = content.get(..end).unwrap_or_default();
    // The bytes of a `text` value, its length in the first four.
    content
        .split(|byte| *byte == b' ')
        .skip(4)
        .any(|byte| byte == b"46")
}

fn behind<'a>(text: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(text, what)?;
    text.get(at + what.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_objects_of_a_rule_and_no_other_numbers() {
        let tree = b"({QUERY :commandType 1 :rtable ({RANGETBLENTRY :rtekind 0 :relid 16390 :relkind r}) :jointree {FROMEXPR \
            :fromlist <> :quals {OPEXPR :opno 521 :opfuncid 147 :opresulttype 16 :args ({VAR :varno 1} {CONST :constvalue 4 \
            [ 1 0 0 0 ]})}} :targetList ({TARGETENTRY :expr {FUNCEXPR :funcid 16400 :args ({RELABELTYPE :resulttype 16410}) \
            } :resname a\\:funcid\\ 5}) :sortClause ({SORTGROUPCLAUSE :eqop 96 :sortop 0}) {ROWCOMPAREEXPR :opnos (o 97 16500)})";
        assert_eq!(
            references(tree),
            References {
                functions: [147, 16400].into(),
                operators: [96, 97, 521, 16500].into(),
                relations: [16390].into(),
                types: [16410].into(),
            }
        );
    }

    #[test]
    fn a_setting_with_a_point_in_its_name_is_the_sessions_own() {
        let call = |bytes: &str| {
            format!(
                "{{FUNCEXPR :funcid 2077 :funcresulttype 25 :args ({{CONST :consttype 25 :constvalue 9 [ {bytes} ]}}) :location 1}}"
            )
        };
        let functions = |bytes: &str| references(call(bytes).as_bytes()).functions;
        assert!(functions("36 0 0 0 97 46 98 99 100").is_empty());
        assert_eq!(*functions("46 0 0 0 97 97 98 99 100"), [2077]);
        assert_eq!(
            *references(b"{FUNCEXPR :funcid 3294 :args ({VAR :varno 1})}").functions,
            [3294]
        );
    }

    #[test]
    fn anything_is_read_without_panic() {
        for text in [
            "",
            ":",
            ":funcid",
            ":funcid x",
            ":opnos (o",
            ":funcid 99999999999 ",
        ] {
            assert_eq!(references(text.as_bytes()), References::default(), "{text}");
        }
    }
}
