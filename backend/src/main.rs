//! The `ringmaster` binary.
#![allow(dead_code)]

mod cli;
mod client;
mod config;
mod demo;
mod node;
mod raft;
mod state;

fn main() -> std::process::ExitCode {
    cli::main()
}
