//! What the console may ask of the proxy, passed on to who does it.

use std::io::ErrorKind;
use std::sync::Arc;

use pgweir_admin::{Control, Facts, Operator, Order, Pending, Refusal, TraceLine, Wanted};
use pgweir_config::{Change, Config, Edit};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::proxy::Shared;
use crate::steward::Prepared;

/// The proxy as the console sees it.
pub(super) struct Steering(Arc<Shared>);

impl Steering {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Steering(shared)
    }

    /// Works a change out on a thread for such work: with thousands of rules that takes a while, and the other sessions go on.
    async fn prepare(
        &self,
        edits: &[Edit],
        seen: &Arc<Config>,
        operator: &Operator,
    ) -> Result<Prepared, Refusal> {
        let (shared, edits) = (Arc::clone(&self.0), edits.to_vec());
        let (seen, operator) = (Arc::clone(seen), operator.clone());
        let work = move || shared.prepare(&edits, &seen, &operator);
        let prepared = tokio::task::spawn_blocking(work).await;
        prepared.unwrap_or_else(|_| Err(lost()))
    }
}

impl Control for Steering {
    fn facts(&self, wanted: Wanted) -> Pending<'_, Facts> {
        Box::pin(self.0.facts(wanted))
    }

    fn change<'a>(
        &'a self,
        edits: &'a [Edit],
        seen: &'a Arc<Config>,
        operator: &'a Operator,
    ) -> Pending<'a, Result<Vec<Change>, Refusal>> {
        Box::pin(async move {
            let prepared = self.prepare(edits, seen, operator).await?;
            try_http(seen, prepared.config()).await?;
            let changes = self.0.commit(prepared, operator)?;
            // Usually what was answered holds for whatever begins now. It does in the end also where a worker is late.
            if let Err(late) = self.0.wait_until_followed().await {
                tracing::warn!(
                    "a change of the configuration is not in force everywhere yet: {late}"
                );
            }
            Ok(changes)
        })
    }

    fn config_diff(&self) -> Result<Vec<Change>, Refusal> {
        self.0.config_diff()
    }

    fn order<'a>(
        &'a self,
        order: Order,
        operator: &'a Operator,
    ) -> Pending<'a, Result<String, Refusal>> {
        Box::pin(self.0.order(order, operator))
    }

    fn explain(
        &self,
        sql: &str,
        database: Option<&str>,
        user: Option<&str>,
    ) -> Result<Vec<[String; 4]>, Refusal> {
        self.0.explain(sql, database, user)
    }

    fn trace(&self, client: u32) -> Pending<'_, Result<mpsc::Receiver<TraceLine>, Refusal>> {
        Box::pin(self.0.trace(client))
    }
}

/// Refuses to serve HTTP from now on where that is not possible: the page that is served now would be gone for it.
async fn try_http(old: &Config, new: &Config) -> Result<(), Refusal> {
    let (old, new) = (&old.http.listen, &new.http.listen);
    let Some((host, port)) = new.as_ref().filter(|_| old != new) else {
        return Ok(());
    };
    // Closed again at once: who serves it opens it when the change is in force.
    let error = match TcpListener::bind((&**host, *port)).await {
        Ok(_closed) => return Ok(()),
        Err(error) => error,
    };
    // What is served now holds the port, and lets go of it for the other address.
    let is_our_own = old.as_ref().is_some_and(|(_, served)| served == port);
    if is_our_own && error.kind() == ErrorKind::AddrInUse {
        return Ok(());
    }
    Err(Refusal {
        detail: Some(error.to_string()),
        sqlstate: *b"55000",
        message: format!("http.listen: {host}:{port} cannot be listened on"),
        hint: None,
    })
}

fn lost() -> Refusal {
    Refusal {
        sqlstate: *b"XX000",
        message: "the change is lost; nothing has changed".to_owned(),
        detail: None,
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str) -> Config {
        let text = format!(
            "auth.method = 'trust'\n[http]\nlisten = '{listen}'\n[clusters.main]\nbackends = [{{ host = 'h' }}]\n"
        );
        pgweir_config::parse(&text, "t").expect("it is right")
    }

    #[tokio::test]
    async fn http_moves_only_to_where_it_can_be_served() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let (off, here) = (config("off"), config(&address.to_string()));
        let refused = try_http(&off, &here).await.unwrap_err();
        assert_eq!(refused.sqlstate, *b"55000");
        assert!(refused.detail.unwrap().contains("in use"));
        assert_eq!(try_http(&here, &here).await, Ok(()));
        assert_eq!(try_http(&here, &off).await, Ok(()));
        let wider = config(&format!("0.0.0.0:{}", address.port()));
        assert_eq!(try_http(&here, &wider).await, Ok(()), "it is our own");
        drop(taken);
        assert_eq!(try_http(&off, &here).await, Ok(()));
    }
}
