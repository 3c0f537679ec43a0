//! The command line: commands, exit codes, and their help.
//!
//! Every command except `serve`, `demo` and `recover` is a client of the HTTP API and can do nothing that a
//! browser or a script could not do. Answers go to standard output, errors to standard error. The exit
//! code is 0 for success, 1 for a refusal or failure, 2 for wrong usage, 3 for an unreachable cluster.
//! `lock` and `register` exit with the code of the command that they run, and use 124 to 127 for their
//! own errors, as `timeout` and shells do.

mod action;
mod changes;
mod config;
mod duration;
mod events;
mod lock;
mod progress;
mod queries;
mod recover;
mod register;
mod serve;
mod settings;
mod show;
mod table;

use crate::{
    demo,
    out::{Closed, Out},
};
use clap::{Args, CommandFactory, Parser, Subcommand, builder::StyledStr};
use clap_complete::Shell;
use queries::{Listing, Query, Watching};
use ringmaster_client::{Address, Client, ClientError};
use ringmaster_common::id::OperationId;
use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

const EXAMPLES: &str = "\
Examples:
  ringmaster demo                                      a demo cluster on this machine
  ringmaster serve --data-dir d1 --bootstrap           the first node of a new cluster
  ringmaster serve --data-dir d2 --api-addr 127.0.0.1:7702 --peer-addr 127.0.0.1:7802 \\
                   --join http://127.0.0.1:7701        a further node
  ringmaster status --watch                            the cluster's status, live
  ringmaster plan transfer_leadership --to 2           the plan of a leadership transfer; changes nothing
  ringmaster apply transfer_leadership --to 2          applies it after confirmation
  ringmaster config import traffic.toml                upstreams and routes from a file
  ringmaster lock jobs/nightly -- ./nightly.sh         one run at a time in the whole fleet

Exit codes: 0 success, 1 refused or failed, 2 wrong usage, 3 no node reachable;
            `lock` and `register` document their own in their help.";

/// The control room of a small fleet.
#[derive(Debug, Parser)]
#[command(name = "ringmaster", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a demo cluster on this machine
    Demo(demo::Arguments),
    /// Run a sample endpoint of a demo
    #[command(hide = true)]
    SampleEndpoint(demo::sample::Arguments),
    /// Run a node
    Serve(Box<serve::Arguments>),
    /// Show the cluster's status
    Status(Watching),
    /// List the nodes
    Nodes(Watching),
    /// List operations: running and finished plans
    Operations(Listing),
    /// List events
    Events(events::EventListing),
    /// List audited requests and their outcomes
    Audit(Listing),
    /// Read and write replicated settings
    #[command(subcommand)]
    Settings(settings::Arguments),
    /// Run a command while holding a lock
    Lock(lock::Arguments),
    /// List locks, or show one
    Locks(queries::Locks),
    /// List upstreams, or show one with its endpoints
    Upstreams(queries::Upstreams),
    /// List routes
    Routes(Watching),
    /// Run a command as an endpoint of an upstream
    Register(register::Arguments),
    /// Export or import upstreams and routes
    #[command(subcommand)]
    Config(config::Arguments),
    /// Recover a cluster that has lost its quorum for good, from a stopped node
    Recover(recover::Arguments),
    /// Show the plan of an action; change nothing
    Plan(changes::PlanArguments),
    /// Apply a plan, or plan an action and apply it after confirmation
    Apply(changes::ApplyArguments),
    /// Abort a running operation
    Abort(OneOperation),
    /// Keep the result of an operation that would revert automatically
    Keep(OneOperation),
    /// Plan the inverse of an operation and apply it after confirmation
    Undo(changes::UndoArguments),
    /// Print a shell completion script
    #[command(after_help = "\
Examples:
  source <(ringmaster completions bash)
  ringmaster completions zsh > ~/.zfunc/_ringmaster
  ringmaster completions fish > ~/.config/fish/completions/ringmaster.fish")]
    Completions { shell: Shell },
    /// Print the version
    Version,
}

/// The cluster to connect to.
#[derive(Args, Clone, Debug)]
struct Addresses {
    /// The address of a node; repeat it to name several, which are tried in turn
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

/// The cluster to connect to, and the output format.
#[derive(Args, Clone, Debug)]
struct Target {
    #[command(flatten)]
    addresses: Addresses,
    /// Print the API's JSON, one document per line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Args, Debug)]
struct OneOperation {
    operation: OperationId,
    #[command(flatten)]
    target: Target,
}

/// Why a command failed.
#[derive(Debug)]
enum CliError {
    /// The command line, or a file named in it, is invalid.
    Usage(String),
    /// The request was refused or failed.
    Failed(String),
    /// No node answered.
    Unreachable(String),
    /// The reader of standard output has closed it.
    OutputClosed,
    /// The exit of `lock` and `register`: the code of the command, or one of their own codes.
    Exit { code: u8, message: Option<String> },
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

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            CliError::OutputClosed => 0,
            CliError::Failed(_) => 1,
            CliError::Usage(_) => 2,
            CliError::Unreachable(_) => 3,
            CliError::Exit { code, .. } => *code,
        }
    }

    fn message(&self) -> Option<&str> {
        match self {
            CliError::Usage(message) | CliError::Failed(message) | CliError::Unreachable(message) => {
                Some(message)
            }
            CliError::Exit { message, .. } => message.as_deref(),
            CliError::OutputClosed => None,
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        match error {
            ClientError::Unreachable(_) => {
                CliError::Unreachable(format!("{error}; name a running node with --url or RINGMASTER_URL"))
            }
            ClientError::Problem(_) | ClientError::Protocol { .. } => CliError::Failed(error.to_string()),
        }
    }
}

impl From<Closed> for CliError {
    fn from(Closed(error): Closed) -> CliError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::OutputClosed,
            _ => CliError::Failed(format!("cannot write to standard output: {error}")),
        }
    }
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let out = Out::stdout();
    let command = match CommandLine::try_parse_from(without_help_of_help(env::args_os().collect())) {
        Ok(line) => line.command,
        Err(error) if error.use_stderr() => {
            // If stderr is closed, the exit code still reports the error.
            let _ = error.print();
            return ExitCode::from(usage_code(&error, env::args_os().nth(1)));
        }
        Err(help) => return exit_with(print_help(&help.render(), &out)),
    };
    exit_with(run(command, &out))
}

fn exit_with(outcome: Result<(), CliError>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    if let Some(message) = failure.message() {
        // If stderr is closed, the exit code still reports the error.
        let _ = writeln!(io::stderr(), "ringmaster: {message}");
    }
    ExitCode::from(failure.exit_code())
}

/// `help --help` is `help`, at any level: clap's own command takes no options.
fn without_help_of_help(mut words: Vec<OsString>) -> Vec<OsString> {
    let root = CommandLine::command();
    let mut command = Some(&root);
    // Whether `help` comes where a subcommand does.
    let has_help = words.iter().skip(1).any(|word| {
        let is_help = word == "help" && command.is_some_and(clap::Command::has_subcommands);
        command = command.and_then(|command| command.find_subcommand(word));
        is_help
    });
    if has_help && words.last().is_some_and(|last| last == "--help" || last == "-h") {
        words.pop();
    }
    words
}

fn print_help(help: &StyledStr, out: &Out) -> Result<(), CliError> {
    let text = if out.paint().has_colours() { help.ansi().to_string() } else { help.to_string() };
    Ok(out.text(text)?)
}

/// `lock` and `register` exit with their command's code, so a usage error must not look like one.
fn usage_code(error: &clap::Error, subcommand: Option<OsString>) -> u8 {
    match error.exit_code() {
        0 => 0,
        _ if subcommand.is_some_and(|name| name == "lock" || name == "register") => lock::FAILED,
        _ => 2,
    }
}

fn run(command: Command, out: &Out) -> Result<(), CliError> {
    match command {
        Command::Demo(arguments) => block_on(async {
            demo::run(arguments, out).await.map_err(|error| CliError::Failed(error.to_string()))
        }),
        Command::SampleEndpoint(arguments) => {
            block_on(async { demo::sample::run(&arguments).await.map_err(CliError::Failed) })
        }
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Status(watching) => block_on(queries::run(Query::Status, &watching, out)),
        Command::Nodes(watching) => block_on(queries::run(Query::Nodes, &watching, out)),
        Command::Operations(Listing { limit, watching }) => {
            block_on(queries::run(Query::Operations { limit }, &watching, out))
        }
        Command::Events(arguments) => block_on(events::run(&arguments, out)),
        Command::Audit(Listing { limit, watching }) => {
            block_on(queries::run(Query::Audit { limit }, &watching, out))
        }
        Command::Settings(arguments) => block_on(settings::run(arguments, out)),
        Command::Lock(arguments) => block_on(lock::run(arguments)),
        Command::Locks(arguments) => {
            let (query, watching) = arguments.query();
            block_on(queries::run(query, &watching, out))
        }
        Command::Upstreams(arguments) => {
            let (query, watching) = arguments.query();
            block_on(queries::run(query, &watching, out))
        }
        Command::Routes(watching) => block_on(queries::run(Query::Routes, &watching, out)),
        Command::Register(arguments) => block_on(register::run(arguments)),
        Command::Config(arguments) => block_on(config::run(arguments, out)),
        Command::Recover(arguments) => block_on(recover::run(arguments, out)),
        Command::Plan(arguments) => block_on(changes::plan(arguments, out)),
        Command::Apply(arguments) => block_on(changes::apply(arguments, out)),
        Command::Abort(OneOperation { operation, target }) => {
            block_on(changes::abort(operation, &target, out))
        }
        Command::Keep(OneOperation { operation, target }) => block_on(changes::keep(operation, &target, out)),
        Command::Undo(arguments) => block_on(changes::undo(arguments, out)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "ringmaster", &mut script);
            Ok(out.text(String::from_utf8_lossy(&script))?)
        }
        Command::Version => Ok(out.line(format!("ringmaster {}", env!("CARGO_PKG_VERSION")))?),
    }
}

/// Runs a client command on the main thread. The children of a demo die with the thread that started
/// them, so this must be the thread that ends last.
fn block_on(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("cannot start: {error}")))?
        .block_on(work)
}

#[cfg(test)]
mod tests;
