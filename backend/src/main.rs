//! The `ringmaster` binary.
#![allow(dead_code)]

mod api;
mod client;
mod clock;
mod config;
mod controllers;
mod data_dir;
mod demo;
mod journal;
mod node;
mod peer;
mod raft;
mod state;
mod telemetry;

use clap::Parser;
#[derive(Parser)]
enum Cmd {
    Serve {
        #[command(flatten)]
        o: config::NodeOptions,
    },
}
#[tokio::main]
async fn main() {
    let Cmd::Serve { o } = Cmd::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let r = node::run(o.complete().expect("config")).await;
    if let Err(e) = r {
        tracing::error!("{e}");
        std::process::exit(1);
    }
}
