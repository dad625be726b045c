//! Logins to the console: who may, and the way from a worker to the console's thread.

use std::sync::Arc;

use pgweir_net::Stream;

use crate::console::{ConsoleMail, Visitor};
use crate::fault::Fault;
use crate::proxy::Shared;

/// Bytes of the secret in BackendKeyData.
const SECRET_LEN: usize = 4;

/// Returns whether a client that asks for this database means the console.
pub(crate) fn is_meant(shared: &Shared, database: Option<&str>) -> bool {
    database == Some(&*shared.config.load().admin.database)
}

/// Returns whether an operator may do more than look; `None` where the user is none.
pub(super) fn rights(shared: &Shared, user: &Arc<str>) -> Option<bool> {
    let config = shared.config.load();
    let may_change = config.admin.users.contains(user);
    (may_change || config.admin.viewers.contains(user)).then_some(may_change)
}

/// Gives a client that has logged in to the console's thread.
///
/// # Errors
/// He is no operator; the connection comes back.
pub(crate) fn hand_over(
    shared: &Shared,
    stream: Stream,
    mut parameters: Vec<(String, String)>,
    user: Arc<str>,
) -> Result<(), (Fault, Option<Stream>)> {
    if rights(shared, &user).is_none() {
        return Err((Fault::no_operator(&user), Some(stream)));
    }
    parameters.retain(|(name, _)| name != "user" && name != "database");
    // A connection that cannot be taken out of the runtime is closed with it.
    let stream = stream.into_std().map_err(|_| (Fault::terminated(), None))?;
    shared.console.send(ConsoleMail::Visitor(Box::new(Visitor {
        stream,
        user,
        database: Arc::clone(&shared.config.load().admin.database),
        parameters,
        secret: rand::random::<[u8; SECRET_LEN]>().into(),
    })));
    Ok(())
}
