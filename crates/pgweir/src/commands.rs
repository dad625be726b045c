//! The commands, one file each.

pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod route;
pub(crate) mod run;
pub(crate) mod top;
