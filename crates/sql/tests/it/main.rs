//! The crate from outside: data files of SQL and what must become of it, and properties over generated SQL.
mod cases;
mod data;
mod decisions;
mod properties;
mod routing;
mod state;
mod state_oracle;
mod verdict;
