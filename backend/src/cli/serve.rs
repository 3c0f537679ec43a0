//! `ringmaster serve`: assembles the configuration of a node and runs it.

use super::CliError;
use crate::config::{LogFormat, NodeOptions};
use crate::node;
use clap::Args;
use ringmaster_storage::data_dir::{DataDir, Identity};
use std::{io, num::NonZero, path::PathBuf, thread};
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
The file is TOML with the same names, written with _ instead of -:
  data_dir = \"/var/lib/ringmaster\"
  api_addr = \"127.0.0.1:7702\"
  join = [\"http://127.0.0.1:7701\"]

RUST_LOG sets the log filter, for example RUST_LOG=debug.";

/// The minimum number of threads that serve requests.
const MIN_WORKERS: usize = 2;

/// The log filter without `RUST_LOG`.
const DEFAULT_LOG: &str = "info,openraft=error";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A TOML file with any of the options below; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: NodeOptions,
}

pub fn run(arguments: Arguments) -> Result<(), CliError> {
    // First, and on the main thread: the kernel drops this setting with the thread that made it.
    ringmaster_servers::demo_child::die_with_supervisor().map_err(CliError::Failed)?;
    let usage = |error: crate::config::ConfigError| CliError::Usage(error.to_string());
    let file = match &arguments.config {
        Some(path) => NodeOptions::read(path).map_err(usage)?,
        None => NodeOptions::default(),
    };
    let options = arguments.options.or(file);
    let stored = match &options.data_dir {
        Some(dir) => DataDir::identity_of(dir).map_err(|error| CliError::Failed(error.to_string()))?,
        None => None,
    };
    let config = options.or(stored.map(as_options).unwrap_or_default()).complete().map_err(usage)?;
    log_to_stderr(config.log_format);
    let failed = |error| CliError::Failed(format!("cannot start: {error}"));
    // Consensus consists of many small tasks that wake each other. On one thread a wake-up costs almost
    // nothing, and no request delays a heartbeat.
    let consensus = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("consensus")
        .enable_all()
        .build()
        .map_err(failed)?;
    // With more than two cores, one core is left to consensus. Fewer threads also cause fewer wake-ups.
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(MIN_WORKERS))
        .enable_all()
        .build()
        .map_err(failed)?;
    let ended = runtime.block_on(node::run(config, consensus.handle()));
    if ended.is_err() {
        // A task that blocks its thread must not keep a failed node alive.
        runtime.shutdown_background();
        consensus.shutdown_background();
    }
    ended.map_err(|error| CliError::Failed(error.to_string()))
}

/// The options that a restarted node takes from its data directory.
fn as_options(Identity { addresses, .. }: Identity) -> NodeOptions {
    // One that was not given follows from the API address, which may be another one now.
    let public_url =
        Some(addresses.public_url).filter(|url| *url != format!("http://{}", addresses.api_addr));
    NodeOptions {
        api_addr: Some(addresses.api_addr),
        peer_addr: Some(addresses.peer_addr),
        public_url,
        ..NodeOptions::default()
    }
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => subscriber.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
