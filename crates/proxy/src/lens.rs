//! What the names in a session's texts stand for: the catalog of its database, seen along its search_path.
//!
//! See <https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATH>.

use std::sync::Arc;

use pgweir_cluster::CatalogReader;
use pgweir_session::parameters::{ParameterSet, Value};
use pgweir_sql::{Lens, SearchPath};

use crate::client_task::Client;

/// How a session follows the catalog.
#[derive(Default)]
pub(crate) struct Sight {
    /// The snapshots of its database; `None` where the cluster has none.
    pub(crate) reader: Option<CatalogReader>,
    /// The settings for which the path was found out.
    settings: Option<(u64, usize)>,
    path: Option<Arc<SearchPath>>,
}

impl Client {
    /// Brings the session's lens up to date: for every batch, so it compares and does nothing more in the steady state.
    pub(crate) fn refresh_lens(&mut self) {
        let state = &self.session.state;
        let settings = Some((state.wanted_now().id, state.local_count()));
        let is_path_known = self.sight.settings == settings;
        let Some(reader) = &mut self.sight.reader else {
            return;
        };
        let catalog = reader.load();
        let is_same = match (catalog, self.session.lens().catalog()) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (None, None) => true,
            _ => false,
        };
        if is_same && is_path_known {
            return;
        }
        let catalog = catalog.cloned();
        if !is_path_known {
            self.sight.settings = settings;
            self.sight.path = self
                .search_path()
                .map(|path| self.worker().shared_path(path));
        }
        let lens = Lens::new(catalog, self.sight.path.clone());
        self.session.set_lens(lens);
    }

    /// Returns the search_path that holds now; `None` where it is not known.
    fn search_path(&self) -> Option<SearchPath> {
        let role = self.current_role()?;
        let state = &self.session.state;
        if let Some(overlay) = state.local("search_path") {
            return Some(SearchPath::from_list(overlay.as_deref()?, &role));
        }
        match state.wanted_now().get("search_path") {
            Some(Value::Text(text)) => SearchPath::parse(text, &role),
            Some(Value::Statement { words, .. }) => {
                Some(SearchPath::from_list(words.as_deref()?, &role))
            }
            None => SearchPath::parse(&self.identity.defaults.search_path, &role),
        }
    }

    /// Returns whose objects `$user` stands for.
    fn current_role(&self) -> Option<String> {
        let state = &self.session.state;
        for name in ["role", "session_authorization"] {
            if let Some(overlay) = state.local(name) {
                match overlay.as_deref()? {
                    [role] if role == "none" => continue,
                    [role] => return Some(role.clone()),
                    _ => return None,
                }
            }
            match one(state.wanted_now(), name) {
                Found::Nothing => {}
                Found::Word(role) => return Some(role),
                Found::Unknown => return None,
            }
        }
        Some(self.identity.server_user.to_string())
    }
}

enum Found {
    Nothing,
    Word(String),
    Unknown,
}

fn one(set: &ParameterSet, name: &str) -> Found {
    let word = match set.get(name) {
        None => return Found::Nothing,
        Some(Value::Text(text)) => text.to_string(),
        Some(Value::Statement { words, .. }) => match words.as_deref() {
            Some([word]) => word.clone(),
            _ => return Found::Unknown,
        },
    };
    match &*word {
        "none" => Found::Nothing,
        _ => Found::Word(word),
    }
}
