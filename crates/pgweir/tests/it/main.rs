//! The program as a user runs it: exit codes, what it prints, what it leaves behind.
#[cfg(test)]
mod commands;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod program;
#[cfg(test)]
mod run;
