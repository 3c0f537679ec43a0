//! `ringmaster lock NAME -- COMMAND…`: a command that runs while a lock is held.
//!
//! What always holds: the command is started only with the lock, and is stopped once the lock is lost.
//! Stopping takes a moment, in which somebody else may hold the lock already; so the command is given
//! the token, for whatever it changes to check.
//!
//! Deliberately absent: any hold over the command once this process was killed with SIGKILL. The lease
//! runs out then, and the command goes on; the token is what protects from it.

pub mod job;

use super::{Addresses, Failure, duration};
use clap::Args;
use job::Job;
use ringmaster_client::{LockError, LockGuard, LockRequest, lock::this_process};
use ringmaster_common::error::Code;
use std::{env, ffi::OsString, io, process::Command, time::Duration};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

/// The wait has passed.
const TIMED_OUT: u8 = 124;
/// Anything else went wrong that was not the command's doing, or the lock was lost.
pub const FAILED: u8 = 125;
/// The command is there, and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
pub const NOT_FOUND: u8 = 127;
/// What is added to the number of the signal that ended a command.
const BY_SIGNAL: u8 = 128;

const TOKEN_VARIABLE: &str = "RINGMASTER_LOCK_TOKEN";
const NAME_VARIABLE: &str = "RINGMASTER_LOCK_NAME";

#[derive(Args, Debug)]
#[command(after_help = "\
The command finds its fencing token in RINGMASTER_LOCK_TOKEN, and the lock's name in RINGMASTER_LOCK_NAME. Tokens \
only grow: have whatever the command changes keep the highest one it has seen, and refuse lower ones. Without that, a \
lock is advice: where this program itself is killed (kill -9), COMMAND runs on, and somebody else gets the lock after \
the TTL.

Examples:
  ringmaster lock jobs/nightly -- ./nightly.sh
  ringmaster lock deploy --wait 10m --ttl 30s -- sh -c 'deploy --fence $RINGMASTER_LOCK_TOKEN'
  ringmaster lock uploads --limit 3 -- upload file

Exit codes: those of COMMAND, 128+n where signal n ended it; 124 the wait has passed, 125 the lock was lost or
            could not be asked for, 126 COMMAND cannot be executed, 127 COMMAND was not found.")]
pub struct Arguments {
    /// The lock
    #[arg(allow_hyphen_values = true)]
    name: String,
    /// How long the lock stays held by one that dies; it is renewed in time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    ttl: Duration,
    /// How long to wait for it; 0s asks once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    wait: Duration,
    /// Who holds it, as others see it [default: HOST:PROCESS_ID]
    #[arg(long)]
    owner: Option<String>,
    /// Together with others who share it
    #[arg(long)]
    shared: bool,
    /// As one of so many at a time
    #[arg(long, value_name = "N", conflicts_with = "shared")]
    limit: Option<u32>,
    #[command(flatten)]
    addresses: Addresses,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut orders =
        Orders::listen().map_err(|error| failed(format!("cannot listen to signals: {error}")))?;
    let guard = tokio::select! {
        outcome = request(&arguments).acquire() => outcome.map_err(not_acquired)?,
        order = orders.next() => return Err(quietly(BY_SIGNAL + order as u8)),
    };
    let outcome = run_under(&guard, &arguments.command, &mut orders).await;
    match (guard.release().await, outcome) {
        (_, Err(failure)) => Err(failure),
        (Err(LockError::Lost(loss)), Ok(_)) => Err(failed(loss.to_string())),
        (released, Ok(code)) => {
            if let Err(error) = released {
                eprintln!("ringmaster: {error}; the lock runs out by itself");
            }
            if code == 0 { Ok(()) } else { Err(quietly(code)) }
        }
    }
}

fn request(arguments: &Arguments) -> LockRequest {
    let mut request = arguments
        .addresses
        .client()
        .lock(&arguments.name)
        .owner(arguments.owner.clone().unwrap_or_else(this_process))
        .ttl(arguments.ttl)
        .wait(arguments.wait);
    // No more than the program: arguments may hold what is nobody's business.
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

/// The command's exit code, once it has ended by itself.
async fn run_under(guard: &LockGuard, command: &[OsString], orders: &mut Orders) -> Result<u8, Failure> {
    let [program, arguments @ ..] = command else {
        return Err(failed("there is no command".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments).env(TOKEN_VARIABLE, guard.token().to_string()).env(NAME_VARIABLE, guard.name());
    let mut job = Job::start(&mut command).map_err(|error| Failure::Lock {
        code: match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        },
        message: Some(format!("{}: {error}", program.to_string_lossy())),
    })?;
    loop {
        tokio::select! {
            code = job.ended() => return Ok(code),
            order = orders.next() => job.send(order),
            loss = guard.lost() => {
                eprintln!("ringmaster: {loss}; stopping {}", program.to_string_lossy());
                job.stop().await;
                return Err(quietly(FAILED));
            }
        }
    }
}

fn not_acquired(error: LockError) -> Failure {
    let code = if error.is(Code::LockHeld) { TIMED_OUT } else { FAILED };
    Failure::Lock { code, message: Some(error.to_string()) }
}

pub fn failed(message: String) -> Failure {
    Failure::Lock { code: FAILED, message: Some(message) }
}

/// Where nothing is left to say.
pub fn quietly(code: u8) -> Failure {
    Failure::Lock { code, message: None }
}

/// The signals that are meant for the command.
pub struct Orders {
    interrupt: Signals,
    terminate: Signals,
    hang_up: Signals,
}

impl Orders {
    pub fn listen() -> io::Result<Orders> {
        Ok(Orders {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) -> nix::sys::signal::Signal {
        tokio::select! {
            _ = self.interrupt.recv() => nix::sys::signal::Signal::SIGINT,
            _ = self.terminate.recv() => nix::sys::signal::Signal::SIGTERM,
            _ = self.hang_up.recv() => nix::sys::signal::Signal::SIGHUP,
        }
    }
}
