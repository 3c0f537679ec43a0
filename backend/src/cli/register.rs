//! `ringmaster register UPSTREAM --addr HOST:PORT -- COMMAND…`: runs a command as an endpoint.
//!
//! The command is started, then registered, and deregistered before this process ends. While no node answers, the
//! command keeps running and the registration is retried: an endpoint survives the control plane. If the cluster
//! refuses the registration for good, the command is stopped, because it would never receive a request.

use super::{
    Addresses, CliError, duration,
    lock::{FAILED, ForwardedSignals, NOT_EXECUTABLE, NOT_FOUND, exit, failed, job::Job},
};
use clap::Args;
use ringmaster_client::{Client, lock::default_owner, segment};
use ringmaster_common::traffic::register::{Deregister, Register, Registered, TTL_MS};
use ringmaster_net::clock;
use serde_json::Value;
use std::{ffi::OsString, io, process::Command, time::Duration};
use tokio::time::sleep_until;

/// The pause before a failed registration is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  ringmaster register web --addr 127.0.0.1:8000 -- python3 -m http.server 8000

Exit codes: that of COMMAND, or 128+n if signal n ended it; 125 the registration was refused, for example
            because the upstream does not exist or another endpoint has the id or the address,
            126 COMMAND cannot be executed, 127 COMMAND was not found.")]
pub struct Arguments {
    /// The upstream
    upstream: String,
    /// The command's address for requests, as the nodes reach it
    #[arg(long, value_name = "HOST:PORT")]
    addr: String,
    /// The endpoint's id [default: HOST-PROCESS_ID]
    #[arg(long)]
    id: Option<String>,
    /// The endpoint's relative share of requests
    #[arg(long, default_value_t = 1)]
    weight: u32,
    /// How long the endpoint stays registered if this process dies; it is renewed while COMMAND runs
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_ttl)]
    ttl: Duration,
    #[command(flatten)]
    addresses: Addresses,
    /// The command to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    duration::parse_within(text, *TTL_MS.start(), *TTL_MS.end())
}

pub async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.addresses.client();
    let path = format!("/v1/upstreams/{}", segment(&arguments.upstream));
    let register = Register {
        id: arguments.id.unwrap_or_else(|| default_owner().replace(':', "-")),
        addr: arguments.addr,
        weight: arguments.weight,
        ttl_ms: arguments.ttl.as_millis().try_into().unwrap_or(u64::MAX),
    };
    register.check().map_err(failed)?;
    // Fail before the command starts if the upstream does not exist.
    client.get::<Value>(&path).await.map_err(|error| failed(error.to_string()))?;
    let mut signals =
        ForwardedSignals::listen().map_err(|error| failed(format!("cannot listen for signals: {error}")))?;
    let mut job = start(&arguments.command)?;
    let mut renew_at = clock::now();
    let mut is_registered = false;
    let code = loop {
        tokio::select! {
            code = job.ended() => break code,
            signal = signals.next() => {
                // Deregister first, so that no new request arrives while the command ends.
                if is_registered {
                    deregister(&client, &path, &register.id).await;
                }
                job.send(signal);
                break job.ended().await;
            }
            () = sleep_until(renew_at.into()) => {
                let sent = clock::now();
                let renewed = client.post::<Registered>(&format!("{path}/register"), &register).await;
                renew_at = match renewed {
                    Ok(registered) => {
                        if !is_registered {
                            eprintln!(
                                "ringmaster: registered as endpoint {} of {}, at {}",
                                register.id, arguments.upstream, register.addr
                            );
                        }
                        is_registered = true;
                        sent + Duration::from_millis(registered.renew_after_ms)
                    }
                    // Another endpoint may have the id, so it is not deregistered here.
                    Err(error) if error.is_final() => {
                        eprintln!("ringmaster: {error}; stopping the command");
                        job.stop().await;
                        return Err(exit(FAILED));
                    }
                    Err(error) => {
                        eprintln!("ringmaster: {error}; retrying");
                        clock::now() + RETRY_PAUSE
                    }
                };
            }
        }
    };
    if is_registered {
        deregister(&client, &path, &register.id).await;
    }
    if code == 0 { Ok(()) } else { Err(exit(code)) }
}

fn start(command: &[OsString]) -> Result<Job, CliError> {
    let [program, arguments @ ..] = command else {
        return Err(failed("no command given".to_owned()));
    };
    Job::start(Command::new(program).args(arguments)).map_err(|error| CliError::Exit {
        code: match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        },
        message: Some(format!("{}: {error}", program.to_string_lossy())),
    })
}

/// Without an answer, the registration expires after its TTL.
async fn deregister(client: &Client, path: &str, id: &str) {
    let _: Result<Value, _> =
        client.post(&format!("{path}/deregister"), &Deregister { id: id.to_owned() }).await;
}
