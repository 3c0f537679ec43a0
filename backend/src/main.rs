//! The `ringmaster` binary.

mod api;
mod cli;
mod clock;
mod config;
mod controllers;
mod data_dir;
mod demo;
mod descriptors;
mod dns;
mod durable;
mod heartbeats;
mod journal;
mod latencies;
mod metrics;
mod node;
mod peer;
mod proxy;
mod raft;
mod state;
mod telemetry;
mod version;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
