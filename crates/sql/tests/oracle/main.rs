//! PostgreSQL's own grammar (pg_query) as the oracle of the two readings.
//!
//! What the crate vouches for as a read must be a read in PostgreSQL's tree, and the tables and functions that it reports must
//! be the tree's: `judge` has the exact demands. Statements come from the case files, from a list for every command of the
//! reference, from a grammar, and from tampering with all of these. `SEED=` makes other statements (or the same again),
//! `COUNT=` more or fewer of them.

#[cfg(test)]
mod checks;
#[cfg(test)]
mod cost;
#[cfg(test)]
mod generate;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod names;
#[cfg(test)]
mod tally;
#[cfg(test)]
mod tree;
