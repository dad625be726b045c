//! The `pgweir` program: arguments in, a command run, an exit code out.
//!
//! It holds what belongs to a process and to no library: the allocator, signals, logging, the terminal. Exit codes are 0,
//! 1 for a failure at run time, and 2 for wrong usage or a wrong configuration.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod failure;
mod logging;
mod output;
mod signals;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => commands::run::run(&arguments),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Route(arguments) => commands::route::run(&arguments),
        Command::Demo(arguments) => commands::demo::run(&arguments),
        Command::Top(arguments) => commands::top::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            failure.exit_code()
        }
    }
}
