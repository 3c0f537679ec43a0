//! `ringmaster register UPSTREAM --addr HOST:PORT -- COMMAND…`: runs a command as an endpoint.
//!
//! The command starts whether or not a node answers, and is registered once its port accepts connections. While no node
//! answers, it keeps running and the registration is retried: an endpoint survives the control plane. Only a refusal by
//! the cluster is final; then the command is stopped, because it would never receive a request. A signal that ends the
//! command is passed on after the endpoint was deregistered and its requests in flight have ended.
//!
//! Deliberately absent: control over the command after this process was killed with SIGKILL. The registration expires
//! then while the command keeps running.

mod leave;
mod port;

use super::{
    Addresses, CliError, duration,
    lock::{FAILED, ForwardedSignals, NOT_EXECUTABLE, NOT_FOUND, exit, failed, job::Job},
};
use clap::Args;
use nix::sys::signal::Signal;
use ringmaster_client::{Client, ClientError, lock::default_owner, segment};
use ringmaster_common::traffic::{
    register::{Register, Registered, TTL_MS},
    upstream::check_addr,
};
use ringmaster_net::clock;
use serde_json::Value;
use std::{
    ffi::OsString,
    io,
    pin::{Pin, pin},
    process::Command,
    time::{Duration, Instant},
};
use tokio::time::{sleep_until, timeout};

/// The pause before a failed registration is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the start of the command waits for an answer about the upstream.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request to register that is on its way may take once the endpoint is to be deregistered.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
#[command(after_help = "\
COMMAND starts whether or not a node answers, and is registered once it accepts connections at --addr. SIGTERM, SIGINT \
and SIGQUIT deregister the endpoint, wait until no node has a request in flight there (for up to drain_ms of the \
upstream), and are then passed on to COMMAND; a second one is passed on at once. SIGHUP, SIGUSR1 and SIGUSR2 are passed \
on at once, to the process of COMMAND alone, and it stays registered.

Example:
  ringmaster register web --addr 127.0.0.1:8000 -- python3 -m http.server 8000

Exit codes: that of COMMAND, or 128+n if signal n ended it; 125 the cluster refused the registration, for example
            because the upstream does not exist or another endpoint has the id or the address,
            126 COMMAND cannot be executed, 127 COMMAND was not found.")]
pub struct Arguments {
    /// The upstream
    upstream: String,
    /// The command's address for requests, as the nodes reach it
    #[arg(long, value_name = "HOST:PORT")]
    addr: String,
    /// Register once this address accepts connections, if this machine cannot reach --addr [default: --addr]
    #[arg(long, value_name = "HOST:PORT")]
    ready_addr: Option<String>,
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
    let ready_addr = arguments.ready_addr.unwrap_or_else(|| arguments.addr.clone());
    check_addr(&ready_addr).map_err(failed)?;
    let endpoint = Endpoint {
        client: arguments.addresses.client(),
        path: format!("/v1/upstreams/{}", segment(&arguments.upstream)),
        upstream: arguments.upstream,
        register: Register {
            id: arguments.id.unwrap_or_else(|| default_owner().replace(':', "-")),
            addr: arguments.addr,
            weight: arguments.weight,
            ttl_ms: arguments.ttl.as_millis().try_into().unwrap_or(u64::MAX),
        },
    };
    endpoint.register.check().map_err(failed)?;
    endpoint.look_up().await?;
    let mut signals =
        ForwardedSignals::listen().map_err(|error| failed(format!("cannot listen for signals: {error}")))?;
    let mut job = start(&arguments.command)?;
    let code = endpoint.run(&mut job, &mut signals, &ready_addr).await?;
    if code == 0 { Ok(()) } else { Err(exit(code)) }
}

/// The command as an endpoint of an upstream.
struct Endpoint {
    client: Client,
    upstream: String,
    /// Of the upstream, in the API.
    path: String,
    register: Register,
}

/// A request to register, on its way.
type Sending<'a> = Pin<Box<dyn Future<Output = Result<Registered, ClientError>> + Send + 'a>>;

/// The registration, as far as this process knows.
struct Registration<'a> {
    sending: Option<Sending<'a>>,
    sent_at: Instant,
    /// When it is requested or renewed next.
    due: Instant,
    /// It may be in force.
    may_exist: bool,
    /// The last error, which is shown once.
    shown: String,
}

impl Endpoint {
    /// Fails before the command starts if the cluster has no such upstream. Without an answer, the command starts.
    async fn look_up(&self) -> Result<(), CliError> {
        match timeout(LOOKUP_TIMEOUT, self.client.get::<Value>(&self.path)).await {
            Ok(Err(error)) if error.is_final() => Err(failed(error.to_string())),
            _ => Ok(()),
        }
    }

    /// Runs until the command ends; returns its exit code.
    async fn run(
        &self,
        job: &mut Job,
        signals: &mut ForwardedSignals,
        ready_addr: &str,
    ) -> Result<u8, CliError> {
        let mut registration = Registration::new();
        let mut ready = pin!(port::accepts_connections(ready_addr));
        let mut is_ready = false;
        loop {
            let is_sending = registration.sending.is_some();
            tokio::select! {
                code = job.ended() => {
                    registration.settle().await;
                    if registration.may_exist {
                        leave::deregister(self).await;
                    }
                    return Ok(code);
                }
                signal = signals.next() => match signal {
                    Signal::SIGINT | Signal::SIGTERM | Signal::SIGQUIT => {
                        return Ok(self.stop(job, signals, signal, registration).await);
                    }
                    other => job.send_to_command(other),
                },
                () = &mut ready, if !is_ready => {
                    is_ready = true;
                    registration.due = clock::now();
                }
                () = sleep_until(registration.due.into()), if is_ready && !is_sending => {
                    registration.sent_at = clock::now();
                    registration.sending = Some(Box::pin(self.send()));
                }
                answer = registration.answer(), if is_sending => {
                    if let Err(error) = registration.take(self, answer) {
                        eprintln!("ringmaster: {error}; stopping the command");
                        // Another endpoint may have the id, so it is not deregistered here.
                        job.stop().await;
                        return Err(exit(FAILED));
                    }
                }
            }
        }
    }

    async fn send(&self) -> Result<Registered, ClientError> {
        let path = format!("{}/register", self.path);
        let registered = self.client.post(&path, &self.register).await?;
        // Other nodes take the renewals if this one goes. Without their addresses, the next renewal asks again.
        let _ = self.client.discover().await;
        Ok(registered)
    }

    /// Passes on a signal that ends the command, once no request is in flight; a second one at once.
    async fn stop(
        &self,
        job: &mut Job,
        signals: &mut ForwardedSignals,
        mut signal: Signal,
        mut registration: Registration<'_>,
    ) -> u8 {
        let leaving = async {
            registration.settle().await;
            if registration.may_exist {
                leave::drain(self).await;
            }
        };
        tokio::select! {
            code = job.ended() => return code,
            second = signals.next() => signal = second,
            () = leaving => {}
        }
        loop {
            job.send(signal);
            tokio::select! {
                code = job.ended() => return code,
                next = signals.next() => signal = next,
            }
        }
    }
}

impl Registration<'_> {
    fn new() -> Self {
        let now = clock::now();
        Registration { sending: None, sent_at: now, due: now, may_exist: false, shown: String::new() }
    }

    /// The answer to the request on its way; it never comes if there is none.
    async fn answer(&mut self) -> Result<Registered, ClientError> {
        match &mut self.sending {
            Some(sending) => sending.await,
            None => std::future::pending().await,
        }
    }

    /// Takes in an answer. The error is a refusal that is final.
    fn take(
        &mut self,
        endpoint: &Endpoint,
        answer: Result<Registered, ClientError>,
    ) -> Result<(), ClientError> {
        self.sending = None;
        match answer {
            Ok(registered) => {
                if !self.may_exist || !self.shown.is_empty() {
                    let Endpoint { upstream, register, .. } = endpoint;
                    eprintln!(
                        "ringmaster: registered as endpoint {} of {upstream}, at {}",
                        register.id, register.addr
                    );
                }
                self.may_exist = true;
                self.shown.clear();
                self.due = self.sent_at + Duration::from_millis(registered.renew_after_ms);
            }
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                let error = error.to_string();
                if self.shown != error {
                    eprintln!("ringmaster: {error}; retrying while the command runs");
                }
                self.shown = error;
                self.due = clock::now() + RETRY_PAUSE;
            }
        }
        Ok(())
    }

    /// A request on its way must not arrive behind the one that deregisters, so its answer is waited for, for a moment.
    async fn settle(&mut self) {
        if let Some(sending) = self.sending.take() {
            let answer = timeout(LAST_ANSWER_TIMEOUT, sending).await;
            self.may_exist |= !matches!(answer, Ok(Err(_)));
        }
    }
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
