//! What a client logs in with.

use pgweir_wire::{ListBuf, StartupMessage, list, startup};

/// User, database, password and further startup parameters of a session.
#[derive(Clone, Debug)]
pub struct Login {
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Login {
    /// Logs in as this user to this database, without a password.
    #[must_use]
    pub fn new(user: &str, database: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: None,
            parameters: vec![
                ("user".to_owned(), user.to_owned()),
                ("database".to_owned(), database.to_owned()),
            ],
        }
    }

    /// Sets the password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Adds a startup parameter, e.g. `application_name`.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the StartupMessage of protocol 3.0.
    #[must_use]
    pub fn startup_message(&self) -> Vec<u8> {
        let mut parameters = ListBuf::<list::Pair>::new();
        for (name, value) in &self.parameters {
            // Refused are empty names only, which end the list; a test of those sends its own bytes.
            let _left_out = parameters.push((name.as_bytes(), value.as_bytes()));
        }
        let mut out = Vec::new();
        StartupMessage {
            major: startup::PROTOCOL_MAJOR,
            minor: 0,
            parameters: parameters.as_list(),
        }
        .encode(&mut out);
        out
    }
}
