//! Serves the page with made-up numbers that move, to be looked at: `cargo run -p pgweir-admin --example page`.
//!
//! One replica is stopped for twenty seconds of each minute. An address as the first argument replaces 127.0.0.1:9632.

use std::sync::Arc;
use std::time::Duration;

#[path = "../tests/it/sample.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "written for tests, in which these are allowed"
)]
mod sample;

use sample::{Sample, SampleControl};

/// Time between two steps.
const STEP: Duration = Duration::from_millis(250);

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:9632");
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(address, "serving");
    let control = SampleControl::new(Sample::new(1));
    let moved = Arc::clone(&control);
    let moving = async {
        let mut clock = tokio::time::interval(STEP);
        for steps in 0_u64.. {
            clock.tick().await;
            let mut sample = moved
                .sample
                .lock()
                .unwrap_or_else(|broken| broken.into_inner());
            sample.stop_replica((80..160).contains(&(steps % 240)));
            sample.step(STEP.as_secs_f64());
        }
    };
    tokio::join!(pgweir_admin::http::serve(listener, control), moving);
    Ok(())
}
