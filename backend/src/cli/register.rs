//! `ringmaster register UPSTREAM --addr HOST:PORT -- COMMAND…`: a command that is an endpoint for as long as it runs.
//!
//! The command is started first, then registered, and taken out before this process ends. While no node answers it
//! runs on, and registering is tried again: an endpoint outlives the control plane. Where the cluster refuses it for
//! good, the command is ended: nobody would ever send it anything.

use super::{
    Addresses, Failure, duration,
    lock::{FAILED, NOT_EXECUTABLE, NOT_FOUND, Orders, failed, job::Job, quietly},
};
use clap::Args;
use ringmaster_client::{Client, lock::this_process, segment};
use ringmaster_common::traffic::register::{Deregister, Register, Registered};
use ringmaster_net::clock;
use serde_json::Value;
use std::{ffi::OsString, io, process::Command, time::Duration};
use tokio::time::sleep_until;

/// How long to wait before trying again what failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  ringmaster register web --addr 127.0.0.1:8000 -- python3 -m http.server 8000

Exit codes: those of COMMAND, 128+n where signal n ended it; 125 the registration was refused, as
            where the upstream is not known or another endpoint has the id or address, 126 COMMAND cannot be executed, 127 COMMAND was not found.")]
pub struct Arguments {
    /// The upstream
    upstream: String,
    /// Where the command takes requests, as the nodes reach it
    #[arg(long, value_name = "HOST:PORT")]
    addr: String,
    /// The endpoint's id [default: HOST-PROCESS_ID]
    #[arg(long)]
    id: Option<String>,
    /// Its share of requests, against others'
    #[arg(long, default_value_t = 1)]
    weight: u32,
    /// How long it is kept after this process was killed; it is renewed in time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    ttl: Duration,
    #[command(flatten)]
    addresses: Addresses,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.addresses.client();
    let path = format!("/v1/upstreams/{}", segment(&arguments.upstream));
    let register = Register {
        id: arguments.id.unwrap_or_else(|| this_process().replace(':', "-")),
        addr: arguments.addr,
        weight: arguments.weight,
        ttl_ms: arguments.ttl.as_millis().try_into().unwrap_or(u64::MAX),
    };
    register.check().map_err(failed)?;
    // What is refused now would be refused later, too.
    client.get::<Value>(&path).await.map_err(|error| failed(error.to_string()))?;
    let mut orders =
        Orders::listen().map_err(|error| failed(format!("cannot listen to signals: {error}")))?;
    let mut job = start(&arguments.command)?;
    let mut renew_at = clock::now();
    let mut is_registered = false;
    let code = loop {
        tokio::select! {
            code = job.ended() => break code,
            order = orders.next() => {
                // Nothing new comes while it ends.
                if is_registered {
                    deregister(&client, &path, &register.id).await;
                }
                job.send(order);
                break job.ended().await;
            }
            () = sleep_until(renew_at.into()) => {
                let asked = clock::now();
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
                        asked + Duration::from_millis(registered.renew_after_ms)
                    }
                    // Who has the id may be somebody else, who must not be taken out.
                    Err(error) if error.is_final() => {
                        eprintln!("ringmaster: {error}; the command is ended");
                        job.stop().await;
                        return Err(quietly(FAILED));
                    }
                    Err(error) => {
                        eprintln!("ringmaster: {error}; trying again");
                        clock::now() + TRY_AGAIN_AFTER
                    }
                };
            }
        }
    };
    if is_registered {
        deregister(&client, &path, &register.id).await;
    }
    if code == 0 { Ok(()) } else { Err(quietly(code)) }
}

fn start(command: &[OsString]) -> Result<Job, Failure> {
    let [program, arguments @ ..] = command else {
        return Err(failed("there is no command".to_owned()));
    };
    Job::start(Command::new(program).args(arguments)).map_err(|error| Failure::Lock {
        code: match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        },
        message: Some(format!("{}: {error}", program.to_string_lossy())),
    })
}

/// Where nobody hears it, the registration runs out by itself.
async fn deregister(client: &Client, path: &str, id: &str) {
    let _: Result<Value, _> =
        client.post(&format!("{path}/deregister"), &Deregister { id: id.to_owned() }).await;
}
