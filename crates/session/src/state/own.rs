//! The proxy's own settings (`pgweir.*`) of a session: kept as text, since what they mean is the proxy's business.
//!
//! They are undone by a ROLLBACK and kept by a COMMIT like any other, so they are part of every moment of the state; no
//! server knows of them.

use std::rc::Rc;

/// The settings at one moment. Cheap to clone: a savepoint does so.
#[derive(Debug, Clone, Default)]
pub struct Own(Option<Rc<Values>>);

#[derive(Debug, Clone, Default)]
struct Values {
    session: Vec<Value>,
    local: Vec<Value>,
}

/// A setting's name, and its value if it is not the session's default.
type Value = (Box<str>, Option<Box<str>>);

impl Own {
    /// Returns whether it is the very same, so that nothing has been set since the other was taken. Never wrong when it says
    /// so; two that were set to the same may differ.
    pub fn is(&self, other: &Own) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Rc::ptr_eq(one, other),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// Returns what is set now, each name once, in no particular order: what `SET LOCAL` says stands above the rest.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.0.as_deref();
        let local = values.map(|values| values.local.as_slice());
        let local = local.unwrap_or_default();
        let session = values.map(|values| values.session.as_slice());
        let is_covered = |name: &str| local.iter().any(|(known, _)| &**known == name);
        let session = session.unwrap_or_default().iter();
        local
            .iter()
            .chain(session.filter(move |(name, _)| !is_covered(name)))
            .filter_map(|(name, value)| Some((&**name, value.as_deref()?)))
    }

    pub(super) fn set(&mut self, name: &str, value: Option<&str>, scope: Scope) {
        let mut values = self.0.as_deref().cloned().unwrap_or_default();
        values.local.retain(|(known, _)| &**known != name);
        let list = match scope {
            Scope::Session => {
                values.session.retain(|(known, _)| &**known != name);
                &mut values.session
            }
            Scope::Transaction => &mut values.local,
        };
        if value.is_some() || scope == Scope::Transaction {
            list.push((name.into(), value.map(Into::into)));
        }
        self.0 = Some(Rc::new(values));
    }

    /// Drops what holds until the end of the transaction.
    pub(super) fn commit(&mut self) {
        if let Some(values) = self.0.as_deref()
            && !values.local.is_empty()
        {
            self.0 = Some(Rc::new(Values {
                session: values.session.clone(),
                local: Vec::new(),
            }));
        }
    }

    /// Returns everything to the session's defaults.
    pub(super) fn reset(&mut self) {
        self.0 = None;
    }
}

/// How long a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `SET`: for the session.
    Session,
    /// `SET LOCAL`: until the end of the transaction.
    Transaction,
}
