//! The long runs: what takes minutes to measure, or a peer to compare with.
//!
//! Each command starts real node processes, does one thing to them again and again, and prints what
//! it measured beside what is wanted. It exits with 1 where a target is missed or anything that was
//! acknowledged is lost. The tests of the workspace assert short forms of the same runs.
//!
//! Deliberately absent: installing anything. A command that needs `strace`, `ip` or `etcd` says so.

#![expect(clippy::print_stdout, reason = "a report on standard output is what these commands are for")]

mod chaos;
mod contention;
mod crash_points;
mod elections;
mod endpoints;
mod etcd;
mod http;
mod idle;
mod load;
mod locks;
mod placement;
mod proxy;
mod quiet;
mod redis;
mod report;
mod summary;
mod usage;
mod writes;

use clap::{Parser, Subcommand};
use report::Report;
use ringmaster_tests::{
    cluster::{Cluster, Host, Program},
    process,
};
use std::{path::PathBuf, process::ExitCode};

/// Long runs against real node processes.
#[derive(Debug, Parser)]
#[command(name = "ringmaster-bench", version)]
struct Arguments {
    /// The server to run [default: the one that was built beside this]
    #[arg(long, global = true, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// A further argument of each server, such as --node-arg=--heartbeat-ms=30; may be repeated
    #[arg(long, global = true, value_name = "ARG", allow_hyphen_values = true)]
    node_arg: Vec<String>,
    /// Prints the report as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Takes the leader away again and again, and measures how long writes fail
    Elections(elections::Arguments),
    /// Writes at full speed, and counts needless elections
    Quiet(quiet::Arguments),
    /// Writes per second and CPU per write, beside etcd
    Writes(writes::Arguments),
    /// Requests per second and CPU per request through our proxy, beside HAProxy and nginx
    Proxy(proxy::Arguments),
    /// Measures the cost of three idle nodes
    Idle(idle::Arguments),
    /// Pairs of acquire and release per second and CPU per pair, beside etcd and Redis
    Locks(locks::Arguments),
    /// Pauses holders of locks, kills leaders, has clocks jump, and checks what everybody saw
    Contention(contention::Arguments),
    /// All faults one after the other, at random, while clients write, read and lock; then checks what they saw
    Chaos(chaos::Arguments),
    /// Kills endpoints under load, and counts requests that fail
    Endpoints(endpoints::Arguments),
    /// Balance and moves of the placement of shards when a node joins, beside a plain ring
    Placement,
    /// Kills a node at each of its fsyncs in turn, and looks whether anything was lost
    CrashPoints(crash_points::Arguments),
}

/// How many nodes a cluster has.
const NODES: usize = 3;

/// A cluster of [`NODES`] on loopback.
async fn start(program: &Program) -> Cluster {
    Cluster::start_on(program.clone(), &vec![Host::default(); NODES]).await
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Threads inherit the network namespace: it is entered before there are any.
    let needs_network = match &arguments.command {
        Command::Elections(elections) => elections.needs_network(),
        Command::Chaos(_) => true,
        _ => false,
    };
    if needs_network && let Err(why) = ringmaster_tests::network::enter_namespace() {
        eprintln!("error: {why}");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                outcome = run(&arguments) => outcome,
                // All processes and networks end with the command.
                _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
            }
        }),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(report) => {
            println!("{}", if arguments.json { report.json().to_string() } else { report.to_string() });
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: &Arguments) -> Result<Report, String> {
    let binary = arguments.binary.clone().unwrap_or_else(process::binary);
    if !binary.exists() {
        return Err(format!("{} is not there; build it with cargo build --release", binary.display()));
    }
    let program = Program { binary, options: arguments.node_arg.clone(), proxies: false };
    match &arguments.command {
        Command::Elections(arguments) => elections::run(&program, arguments).await,
        Command::Quiet(arguments) => quiet::run(&program, arguments).await,
        Command::Writes(arguments) => writes::run(&program, arguments).await,
        Command::Proxy(arguments) => proxy::run(&program, arguments).await,
        Command::Idle(arguments) => idle::run(&program, arguments).await,
        Command::Locks(arguments) => locks::run(&program, arguments).await,
        Command::Contention(arguments) => contention::run(&program, arguments).await,
        Command::Chaos(arguments) => chaos::run(&program, arguments).await,
        Command::Endpoints(arguments) => endpoints::run(&program, arguments).await,
        Command::Placement => placement::run(),
        Command::CrashPoints(arguments) => crash_points::run(&program, arguments).await,
    }
}
