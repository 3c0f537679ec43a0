//! `ringmaster lock NAME -- COMMAND…`: a command that runs while a lock is held.
//!
//! What always holds: the command starts only while the lock is held, and is stopped if the lock is lost.
//! Stopping takes a moment in which another owner may already hold the lock, so the command receives the
//! fencing token for its resources to check.
//!
//! Deliberately absent: control over the command after this process was killed with SIGKILL. The lease
//! expires then while the command keeps running; only the token protects the resource.

pub mod job;

use super::{
    Addresses, CliError,
    duration::{self, show_ms},
};
use clap::Args;
use job::Job;
use nix::sys::signal::Signal;
use ringmaster_client::{
    Client, ClientError, LockError, LockGuard, LockRequest, NO_LEADER_PAUSE, lock::default_owner,
};
use ringmaster_common::{
    duration::millis,
    error::Code,
    lock::{MAX_TTL_MS, MAX_WAIT_MS, MIN_TTL_MS},
};
use ringmaster_net::clock;
use std::{env, ffi::OsString, io, process::Command, time::Duration};
use tokio::{
    signal::unix::{Signal as Signals, SignalKind, signal},
    time::sleep,
};

/// The wait ended without the lock.
const WAIT_ENDED: u8 = 124;
/// Any other error outside the command, or a lost lock.
pub const FAILED: u8 = 125;
/// The command exists but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
pub const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the command.
const BY_SIGNAL: u8 = 128;

const TOKEN_VARIABLE: &str = "RINGMASTER_LOCK_TOKEN";
const NAME_VARIABLE: &str = "RINGMASTER_LOCK_NAME";

#[derive(Args, Debug)]
#[command(after_help = "\
COMMAND receives its fencing token in RINGMASTER_LOCK_TOKEN and the lock's name in RINGMASTER_LOCK_NAME. Tokens only \
grow: the resource that COMMAND changes should store the highest token it has seen and reject lower ones. Without that, \
a lock is only advice: if this program itself is killed (kill -9), COMMAND keeps running, and another owner gets the \
lock after the TTL.

Examples:
  ringmaster lock jobs/nightly -- ./nightly.sh
  ringmaster lock deploy --wait 10m --ttl 30s -- sh -c 'deploy --fence $RINGMASTER_LOCK_TOKEN'
  ringmaster lock uploads --limit 3 -- upload file

Exit codes: that of COMMAND, or 128+n if signal n ended it; 124 the wait ended, 125 the lock was lost or
            not acquired, 126 COMMAND cannot be executed, 127 COMMAND was not found.")]
pub struct Arguments {
    /// The name of the lock
    #[arg(allow_hyphen_values = true)]
    name: String,
    /// How long the lock stays held if this process dies; it is renewed while COMMAND runs
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_ttl)]
    ttl: Duration,
    /// How long to wait for the lock; 0s tries once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_wait)]
    wait: Duration,
    /// The owner that others see [default: HOST:PROCESS_ID]
    #[arg(long)]
    owner: Option<String>,
    /// Share the lock with other shared holders
    #[arg(long)]
    shared: bool,
    /// Use the lock as a semaphore with N holders
    #[arg(long, value_name = "N", conflicts_with = "shared")]
    limit: Option<u32>,
    #[command(flatten)]
    addresses: Addresses,
    /// The command to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    duration::parse_within(text, MIN_TTL_MS, MAX_TTL_MS)
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    duration::parse_within(text, 0, MAX_WAIT_MS)
}

pub async fn run(arguments: Arguments) -> Result<(), CliError> {
    let mut signals =
        ForwardedSignals::listen().map_err(|error| failed(format!("cannot listen for signals: {error}")))?;
    let guard = tokio::select! {
        outcome = acquire(&arguments) => outcome.map_err(not_acquired)?,
        signal = signals.next() => return Err(exit(BY_SIGNAL + signal as u8)),
    };
    let outcome = run_while_held(&guard, &arguments.command, &mut signals).await;
    match (guard.release().await, outcome) {
        (_, Err(failure)) => Err(failure),
        (Err(LockError::Lost(loss)), Ok(_)) => Err(failed(loss.to_string())),
        (released, Ok(code)) => {
            if let Err(error) = released {
                eprintln!("ringmaster: {error}; the lock expires after its TTL");
            }
            if code == 0 { Ok(()) } else { Err(exit(code)) }
        }
    }
}

/// Acquires the lock. Within the wait, the cluster may still be starting.
async fn acquire(arguments: &Arguments) -> Result<LockGuard, LockError> {
    let (client, began) = (arguments.addresses.client(), clock::now());
    let mut is_reported = false;
    loop {
        let left = arguments.wait.saturating_sub(began.elapsed());
        match client.discover().await {
            Err(error @ ClientError::Unreachable(_)) if left > NO_LEADER_PAUSE => {
                if !std::mem::replace(&mut is_reported, true) {
                    eprintln!("ringmaster: {error}; trying again for {}", show_ms(millis(arguments.wait)));
                }
                sleep(NO_LEADER_PAUSE).await;
            }
            _ => return request(arguments, &client).wait(left).acquire().await,
        }
    }
}

fn request(arguments: &Arguments, client: &Client) -> LockRequest {
    let mut request = client
        .lock(&arguments.name)
        .owner(arguments.owner.clone().unwrap_or_else(default_owner))
        .ttl(arguments.ttl);
    // The program name only: arguments may contain secrets.
    if let Some(program) = arguments.command.first() {
        request = request.meta("command", program.to_string_lossy());
    }
    if let Ok(user) = env::var("USER") {
        request = request.meta("user", user);
    }
    if arguments.shared {
        request = request.shared();
    }
    match arguments.limit {
        Some(limit) => request.limit(limit),
        None => request,
    }
}

/// Runs the command, and returns its exit code unless the lock is lost first.
async fn run_while_held(
    guard: &LockGuard,
    command: &[OsString],
    signals: &mut ForwardedSignals,
) -> Result<u8, CliError> {
    let [program, arguments @ ..] = command else {
        return Err(failed("no command given".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments).env(TOKEN_VARIABLE, guard.token().to_string()).env(NAME_VARIABLE, guard.name());
    let mut job = Job::start(&mut command).map_err(|error| CliError::Exit {
        code: match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        },
        message: Some(format!("{}: {error}", program.to_string_lossy())),
    })?;
    loop {
        tokio::select! {
            code = job.ended() => return Ok(code),
            signal = signals.next() => match signal {
                Signal::SIGUSR1 | Signal::SIGUSR2 => job.send_to_command(signal),
                other => job.send(other),
            },
            loss = guard.lost() => {
                eprintln!("ringmaster: {loss}; stopping {}", program.to_string_lossy());
                job.stop().await;
                return Err(exit(FAILED));
            }
        }
    }
}

fn not_acquired(error: LockError) -> CliError {
    let code = if error.is(Code::LockHeld) { WAIT_ENDED } else { FAILED };
    CliError::Exit { code, message: Some(error.to_string()) }
}

pub fn failed(message: String) -> CliError {
    CliError::Exit { code: FAILED, message: Some(message) }
}

/// An exit without a message.
pub fn exit(code: u8) -> CliError {
    CliError::Exit { code, message: None }
}

/// The signals that this process forwards to the command.
pub struct ForwardedSignals {
    interrupt: Signals,
    terminate: Signals,
    quit: Signals,
    hang_up: Signals,
    user_1: Signals,
    user_2: Signals,
}

impl ForwardedSignals {
    pub fn listen() -> io::Result<ForwardedSignals> {
        Ok(ForwardedSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.quit.recv() => Signal::SIGQUIT,
            _ = self.hang_up.recv() => Signal::SIGHUP,
            _ = self.user_1.recv() => Signal::SIGUSR1,
            _ = self.user_2.recv() => Signal::SIGUSR2,
        }
    }
}
