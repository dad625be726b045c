//! A limit on how long an operation may take: every wait has one.

use std::future::Future;
use std::time::Duration;

use crate::error::{NetError, Peer};

/// Runs `future` for at most `limit`; `op` names it in the error.
///
/// # Errors
/// [`NetError::Deadline`] when it was not done in time; the future is dropped then.
///
/// # Cancel safety
/// As cancel safe as `future`.
pub async fn with_deadline<F: Future>(
    op: &'static str,
    limit: Duration,
    future: F,
) -> Result<F::Output, NetError> {
    match tokio::time::timeout(limit, future).await {
        Ok(output) => Ok(output),
        Err(_elapsed) => Err(NetError::Deadline {
            op,
            peer: Peer::Unknown,
            limit,
        }),
    }
}

/// [`with_deadline`] for an operation whose peer is known.
pub(crate) async fn with_deadline_of<T, F>(
    op: &'static str,
    peer: impl FnOnce() -> Peer,
    limit: Duration,
    future: F,
) -> Result<T, NetError>
where
    F: Future<Output = Result<T, NetError>>,
{
    match tokio::time::timeout(limit, future).await {
        Ok(output) => output,
        Err(_elapsed) => Err(NetError::Deadline {
            op,
            peer: peer(),
            limit,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_the_operation_that_was_not_done_in_time() {
        let waited = with_deadline(
            "authenticate",
            Duration::from_millis(1),
            std::future::pending::<()>(),
        )
        .await;
        let error = waited.unwrap_err();
        assert!(matches!(
            error,
            NetError::Deadline {
                op: "authenticate",
                ..
            }
        ));
        assert!(!error.is_disconnect());
    }

    #[tokio::test]
    async fn passes_the_output_through_when_it_is_in_time() {
        assert_eq!(
            with_deadline("add", Duration::from_secs(60), async { 1 + 1 })
                .await
                .unwrap(),
            2
        );
    }
}
