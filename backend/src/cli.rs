//! The command line: what an operator types, and what the program answers.
//!
//! Every command but `serve` and `demo` is a client of the HTTP API, and can do nothing that a
//! browser or a script could not. Answers go to standard output, errors to standard error. The exit
//! code is 0 where it is done, 1 where it was refused or failed, 2 where the command line is wrong,
//! 3 where no node could be reached. `lock` and `register` have the codes of the command that they run,
//! and, as `timeout` and shells do, 124 to 127 for its own.

mod action;
mod changes;
mod config;
mod duration;
mod lock;
pub mod out;
mod progress;
mod queries;
mod register;
mod serve;
mod settings;
mod show;
mod table;

use crate::demo;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use out::{Closed, Out};
use queries::{Listing, Query, Watching};
use ringmaster_client::{Address, Client, ClientError};
use ringmaster_common::id::OperationId;
use std::{env, ffi::OsString, io, process::ExitCode};

const EXAMPLES: &str = "\
Examples:
  ringmaster demo                                      a cluster on this machine, to look around
  ringmaster serve --data-dir d1 --bootstrap           the first node of a new cluster
  ringmaster serve --data-dir d2 --api-addr 127.0.0.1:7702 --peer-addr 127.0.0.1:7802 \\
                   --join http://127.0.0.1:7701        another one
  ringmaster status --watch                            how the cluster is, as it changes
  ringmaster plan transfer_leadership --to 2           what handing over would do; changes nothing
  ringmaster apply transfer_leadership --to 2          do it, once you have confirmed
  ringmaster config import traffic.toml                upstreams and routes, from a file
  ringmaster lock jobs/nightly -- ./nightly.sh         one at a time in the whole fleet

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no node could be reached;
            those of lock and register are in their own help.";

/// The control room of a small fleet.
#[derive(Debug, Parser)]
#[command(name = "ringmaster", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster on this machine, with chaos at hand
    Demo(demo::Arguments),
    /// Run a sample endpoint of a demo
    #[command(hide = true)]
    SampleEndpoint(demo::sample::Arguments),
    /// Run a node
    Serve(Box<serve::Arguments>),
    /// Show how the cluster is
    Status(Watching),
    /// List the members, and what is known of each
    Nodes(Watching),
    /// List operations: plans that run, or ran
    Operations(Listing),
    /// List what happened
    Events(queries::EventListing),
    /// List who asked for what, and what came of it
    Audit(Listing),
    /// Read and write what the whole cluster agrees on
    #[command(subcommand)]
    Settings(settings::Arguments),
    /// Run a command while a lock is held
    Lock(lock::Arguments),
    /// List the locks in use, or show one
    Locks(queries::Locks),
    /// List the upstreams, or show one with its endpoints
    Upstreams(queries::Upstreams),
    /// List the routes: which requests go to which upstream
    Routes(Watching),
    /// Run a command as an endpoint of an upstream
    Register(register::Arguments),
    /// Write upstreams and routes to a file, or put those of a file
    #[command(subcommand)]
    Config(config::Arguments),
    /// Show what an action would do, and change nothing
    Plan(changes::PlanArguments),
    /// Apply a plan, or plan an action and apply it once confirmed
    Apply(changes::ApplyArguments),
    /// Abort a running operation, where there is a way back
    Abort(OneOperation),
    /// Keep what an operation did, before it reverts by itself
    Keep(OneOperation),
    /// Plan to take back what an operation did, and apply that once confirmed
    Undo(changes::UndoArguments),
    /// Print what teaches a shell to complete commands
    #[command(after_help = "\
Examples:
  source <(ringmaster completions bash)
  ringmaster completions zsh > ~/.zfunc/_ringmaster
  ringmaster completions fish > ~/.config/fish/completions/ringmaster.fish")]
    Completions { shell: Shell },
    /// Print the version
    Version,
}

/// Which cluster to ask.
#[derive(Args, Clone, Debug)]
struct Addresses {
    /// The address of a node; may be repeated, to be tried in turn
    #[arg(
        long,
        global = true,
        value_name = "URL",
        value_delimiter = ',',
        env = "RINGMASTER_URL",
        default_value = "http://127.0.0.1:7701,http://127.0.0.1:7702,http://127.0.0.1:7703"
    )]
    url: Vec<Address>,
}

/// Which cluster to ask, and how to print its answers.
#[derive(Args, Clone, Debug)]
struct Target {
    #[command(flatten)]
    addresses: Addresses,
    /// Print the API's JSON, one document a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Args, Debug)]
struct OneOperation {
    operation: OperationId,
    #[command(flatten)]
    target: Target,
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
enum Failure {
    /// The command line, or a file that it names, is wrong.
    Usage(String),
    /// It was refused, or it failed.
    Failed(String),
    /// No node answers.
    Unreachable(String),
    /// Nobody reads the answer any more.
    Closed,
    /// What `lock` ends with: the code of its command, or one that says why there is none.
    Lock { code: u8, message: Option<String> },
}

impl Addresses {
    fn client(&self) -> Client {
        Client::new(self.url.iter().cloned()).named("cli")
    }
}

impl Target {
    fn client(&self) -> Client {
        self.addresses.client()
    }
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Closed => 0,
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Lock { code, .. } => *code,
        }
    }

    fn message(&self) -> Option<&str> {
        match self {
            Failure::Usage(message) | Failure::Failed(message) | Failure::Unreachable(message) => {
                Some(message)
            }
            Failure::Lock { message, .. } => message.as_deref(),
            Failure::Closed => None,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::Unreachable(_) => {
                Failure::Unreachable(format!("{error}; name a living node with --url or RINGMASTER_URL"))
            }
            ClientError::Problem(_) | ClientError::Protocol { .. } => Failure::Failed(error.to_string()),
        }
    }
}

impl From<Closed> for Failure {
    fn from(Closed(error): Closed) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Failed(format!("cannot write to standard output: {error}")),
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let out = Out::stdout();
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        Err(error) => {
            // Where nobody reads it, the code still tells.
            let _ = error.print();
            return ExitCode::from(usage_code(&error, env::args_os().nth(1)));
        }
    };
    match run(command, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                eprintln!("ringmaster: {message}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Whoever reads the code of `lock` must not take a wrong command line for what their command said.
fn usage_code(error: &clap::Error, subcommand: Option<OsString>) -> u8 {
    match error.exit_code() {
        0 => 0,
        _ if subcommand.is_some_and(|name| name == "lock" || name == "register") => lock::FAILED,
        _ => 2,
    }
}

fn run(command: Command, out: &Out) -> Result<(), Failure> {
    match command {
        Command::Demo(arguments) => on_this_thread(async {
            demo::run(arguments, out).await.map_err(|error| Failure::Failed(error.to_string()))
        }),
        Command::SampleEndpoint(arguments) => {
            on_this_thread(async { demo::sample::run(&arguments).await.map_err(Failure::Failed) })
        }
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Status(watching) => on_this_thread(queries::run(Query::Status, &watching, out)),
        Command::Nodes(watching) => on_this_thread(queries::run(Query::Nodes, &watching, out)),
        Command::Operations(Listing { limit, watching }) => {
            on_this_thread(queries::run(Query::Operations { limit }, &watching, out))
        }
        Command::Events(arguments) => on_this_thread(queries::events(&arguments, out)),
        Command::Audit(Listing { limit, watching }) => {
            on_this_thread(queries::run(Query::Audit { limit }, &watching, out))
        }
        Command::Settings(arguments) => on_this_thread(settings::run(arguments, out)),
        Command::Lock(arguments) => on_this_thread(lock::run(arguments)),
        Command::Locks(arguments) => {
            let (query, watching) = arguments.query();
            on_this_thread(queries::run(query, &watching, out))
        }
        Command::Upstreams(arguments) => {
            let (query, watching) = arguments.query();
            on_this_thread(queries::run(query, &watching, out))
        }
        Command::Routes(watching) => on_this_thread(queries::run(Query::Routes, &watching, out)),
        Command::Register(arguments) => on_this_thread(register::run(arguments)),
        Command::Config(arguments) => on_this_thread(config::run(arguments, out)),
        Command::Plan(arguments) => on_this_thread(changes::plan(arguments, out)),
        Command::Apply(arguments) => on_this_thread(changes::apply(arguments, out)),
        Command::Abort(OneOperation { operation, target }) => {
            on_this_thread(changes::abort(operation, &target, out))
        }
        Command::Keep(OneOperation { operation, target }) => {
            on_this_thread(changes::keep(operation, &target, out))
        }
        Command::Undo(arguments) => on_this_thread(changes::undo(arguments, out)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "ringmaster", &mut script);
            Ok(out.text(String::from_utf8_lossy(&script))?)
        }
        Command::Version => Ok(out.line(format!("ringmaster {}", env!("CARGO_PKG_VERSION")))?),
    }
}

/// Runs what is no server. The children of a demo die with the thread that started them: this one,
/// which ends last.
fn on_this_thread(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?
        .block_on(work)
}

#[cfg(test)]
mod tests;
