//! Whole files: what they become, and what is said of those that are wrong.

mod defaults;
mod document;
mod errors;
mod reload;
mod rules;
mod upstream;
