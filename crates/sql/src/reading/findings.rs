//! What the token reading found in a statement.

use pgweir_model::{PinReason, Reason, Verdict};

use crate::classify::{self, Name, Names};
use crate::effects::Effects;
use crate::tokens::Tokens;

/// What was found in a statement so far.
#[derive(Debug)]
pub(crate) struct Findings {
    /// The gravest reason, where nothing is known of the catalog.
    pub(crate) reason: Reason,
    /// What is left if every name turns out to be harmless.
    pub(crate) rest: Verdict,
    pub(crate) effects: Effects,
    pub(crate) tables: Vec<Name>,
    pub(crate) functions: Vec<Name>,
    pub(crate) names: Names,
}

/// Most names of a kind that are kept: they are for reports and lookups, and a list without bound would make a long text
/// cost its length squared. Chosen; statements of people name fewer.
pub(crate) const NAMES_LIMIT: usize = 256;

impl Findings {
    pub(crate) fn new(reason: Reason) -> Self {
        Findings {
            reason,
            rest: Verdict::because(reason),
            effects: Effects::default(),
            tables: Vec::new(),
            functions: Vec::new(),
            names: Names::default(),
        }
    }

    /// Takes a reason into account that no name can take back: the graver one stays.
    pub(crate) fn object(&mut self, reason: Reason) {
        self.object_to_name(reason);
        if gravity(reason) > gravity(self.rest.reason) {
            self.rest.reason = reason;
        }
    }

    /// Takes a reason into account that follows from a name alone.
    pub(crate) fn object_to_name(&mut self, reason: Reason) {
        if gravity(reason) > gravity(self.reason) {
            self.reason = reason;
        }
    }

    /// A name behind which there may be any code of a user.
    pub(crate) fn distrust_name(&mut self) {
        self.object_to_name(Reason::VolatileFunction);
        self.effects.suspect = true;
    }

    /// Something that may leave its mark on the session, whatever the names in it stand for.
    pub(crate) fn suspect(&mut self) {
        self.effects.suspect = true;
        self.rest.suspect = true;
    }

    /// Not understood: nothing is vouched for.
    pub(crate) fn give_up(&mut self) {
        self.object(Reason::Unparsed);
        self.suspect();
    }

    pub(crate) fn pin(&mut self, reason: PinReason) {
        self.effects.add_pin(reason);
        self.object(Reason::PrimaryOnly);
    }

    pub(crate) fn table(&mut self, tokens: Tokens<'_, '_>, start: usize, end: usize) {
        add_name(&mut self.tables, &mut self.names, tokens, start, end);
    }

    pub(super) fn function(&mut self, tokens: Tokens<'_, '_>, start: usize, end: usize) {
        add_name(&mut self.functions, &mut self.names, tokens, start, end);
    }
}

pub(super) fn add_name(
    list: &mut Vec<Name>,
    names: &mut Names,
    tokens: Tokens<'_, '_>,
    start: usize,
    end: usize,
) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
    let schema = tokens.qualifier(start, end).map(|schema| text(&schema));
    let name = Name {
        schema,
        name: text(&tokens.at(end).folded()),
    };
    names.overflow |= !classify::add(list, name);
}

/// Orders reasons: of several, the graver one is reported and decides.
pub(crate) fn gravity(reason: Reason) -> u8 {
    match reason {
        Reason::Write => 9,
        Reason::RowLock => 8,
        Reason::PrimaryOnly => 7,
        Reason::VolatileFunction => 6,
        Reason::UnloggedTable => 5,
        Reason::Unparsed => 4,
        Reason::Transaction => 3,
        Reason::ReadOnlyTransaction => 2,
        Reason::ReadByTokens => 1,
        _ => 0,
    }
}
