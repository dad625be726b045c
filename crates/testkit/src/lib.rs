//! Tools for tests on real servers: a raw protocol client, protocol transcripts, a checker of histories, patience, seeds.
//!
//! A driver hides what the protocol does; these tools show each message, and send what no driver
//! would. They block and use nothing but `std`, so a test needs no runtime and reads from top to
//! bottom. Never linked into the binary.
//!
//! ```no_run
//! use pgweir_testkit::{Client, Login};
//!
//! let login = Login::new("app", "app").password("secret");
//! let mut client = Client::open("127.0.0.1:6432", &login)?;
//! let answer = client.query("SELECT 1")?;
//! assert_eq!(answer.rows(), [[Some("1".to_owned())]]);
//! # Ok::<(), pgweir_testkit::ClientError>(())
//! ```

#![forbid(unsafe_code)]

mod browser;
mod client;
pub mod history;
mod login;
mod message;
pub mod patience;
pub mod script;
mod seed;
pub mod transcript;

pub use browser::{Browser, BrowserError};
pub use client::{
    Client, ClientError, append_bound, append_execute, append_parse, append_undescribed,
};
pub use login::Login;
pub use message::{Answer, Message};
pub use seed::Rng;
pub use transcript::Transcript;
