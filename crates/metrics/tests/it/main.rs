//! What is made from the catalogue, or has to agree with it: the documentation, the dashboard, the alerts.

#[cfg(test)]
mod deploy;
#[cfg(test)]
mod promql;
