//! Empty: a package needs a library or a binary, and all that is here is one test binary (`main.rs`).
