//! The `ringmaster` binary.

mod cli;
mod config;
mod demo;
mod node;
mod out;
mod parse;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
