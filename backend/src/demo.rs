//! `ringmaster demo`: a cluster of real node processes on this machine, sample services behind its
//! proxies ([`services`]), and light load on both.
//!
//! The supervisor starts this program once for each node, with `serve` and the flags that an operator
//! would pass. Nodes know two things about it: the dashboard can request chaos from it ([`socket`]), and
//! they die with it (`demo_child`).
//!
//! What always holds: the nodes, paused ones included, end when the supervisor ends, however it ends. A
//! node that dies is reported and deliberately not restarted: the demo shows how a cluster reacts.

mod fleet;
mod home;
mod load;
pub mod sample;
mod services;
pub mod socket;

use crate::out::{Closed, Out};
use clap::Args;
use fleet::{Fleet, Launcher};
use futures::future::join_all;
use home::Home;
use ringmaster_client::{Address, Client};
use ringmaster_common::{
    cluster::{Cluster, MAX_NODES, NodeStatus, VOTERS},
    demo::{Chaos, REMOVED},
    error::{Code, Refusal},
    id::NodeId,
};
use ringmaster_net::clock;
use ringmaster_servers::demo_child::protocol::{Answer, Request};
use services::Sample;
use socket::{PendingRequest, Socket};
use std::{
    env, io,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};

/// How long the first node may take to answer.
pub const LIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the nodes may take to form a cluster before the demo reports a delay.
pub const COMPLETE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often starting nodes are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How many requests from nodes may be queued.
const MAX_QUEUED: usize = 8;

const EXAMPLES: &str = "\
Examples:
  ringmaster demo                               three nodes; all data is removed at the end
  ringmaster demo --nodes 5 --data-dir ./demo   a cluster that keeps its data

Node I has its API and dashboard on port BASE+I, its peer listener on BASE+100+I and its proxy listener on BASE+200+I.
The endpoints of the sample services are on the ports from BASE+301.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The number of nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=MAX_NODES as u64))]
    nodes: u64,
    /// Keep the data in this directory and reuse it the next time [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The base of all ports [default: 7700, or the one stored in the data directory]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=i64::from(home::MAX_BASE_PORT)))]
    base_port: Option<u16>,
    /// Do not open the dashboard in a browser
    #[arg(long)]
    no_open: bool,
    /// Run without sample services and without load
    #[arg(long)]
    no_load: bool,
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("{0}")]
    Home(#[from] home::HomeError),
    #[error("cannot {doing}: {source}")]
    System { doing: String, source: io::Error },
    #[error("node 1 does not answer after {} s; see its log {log}", LIVE_TIMEOUT.as_secs())]
    Silent { log: String },
    #[error("all nodes have ended")]
    AllDied,
}

pub async fn run(arguments: Arguments, out: &Out) -> Result<(), DemoError> {
    let home = Home::open(arguments.data_dir, arguments.base_port)?;
    let count = arguments.nodes.max(home.known_nodes());
    for id in (1..=count).map(NodeId) {
        home.ports(id).check_free(id)?;
    }
    let samples = if arguments.no_load { Vec::new() } else { services::samples(&home) };
    for sample in &samples {
        home::check_free(sample.port, || format!("sample endpoint {}", sample.id))?;
    }
    let stop = Stop::listen().map_err(system("listen for signals"))?;
    let (sender, requests) = mpsc::channel(MAX_QUEUED);
    let socket = Socket::open(sender).map_err(system("open the socket for the nodes"))?;
    let program = env::current_exe().map_err(system("find this program"))?;
    let fleet = Fleet::new(Launcher { program, environment: socket.environment() }, home);
    let mut supervisor = Supervisor { fleet, requests, stop, out };

    let outcome = supervisor.run(count, !arguments.no_open, &samples).await;
    supervisor.say("Stopping all nodes.");
    let Supervisor { mut fleet, mut stop, .. } = supervisor;
    fleet.stop(stop.requested()).await;
    match outcome {
        Ok(()) | Err(Ended::Stopped) => Ok(()),
        Err(Ended::Failed(error)) => Err(error),
    }
}

fn system(doing: &str) -> impl FnOnce(io::Error) -> DemoError {
    let doing = doing.to_owned();
    move |source| DemoError::System { doing, source }
}

/// Runs the nodes, executes their requests, and reports their exits.
struct Supervisor<'a> {
    fleet: Fleet,
    requests: mpsc::Receiver<PendingRequest>,
    stop: Stop,
    out: &'a Out,
}

/// Why a demo ends.
enum Ended {
    /// The user has stopped it.
    Stopped,
    Failed(DemoError),
}

impl Supervisor<'_> {
    /// Runs the phases of the demo. Without samples there is no load.
    async fn run(&mut self, count: u64, open: bool, samples: &[Sample]) -> Result<(), Ended> {
        let first = NodeId(1);
        let out = self.out;
        let mut phase = Phases::new(out, if samples.is_empty() { 2 } else { 3 });
        phase.begin(&format!("Starting node 1; data directory: {}", self.fleet.home().path().display()));
        self.start(first)?;
        let url = self.fleet.home().ports(first).url();
        if !self.during(is_live(&url)).await? {
            let log = self.fleet.home().log(first).display().to_string();
            return Err(Ended::Failed(DemoError::Silent { log }));
        }
        say(out, &format!("Dashboard: {url}"));
        if open {
            open_in_browser(&url);
        }

        phase.begin(&format!("Starting the other nodes ({count} in total) and joining them"));
        for id in (2..=count).map(NodeId) {
            self.start(id)?;
        }
        let urls: Vec<_> = (2..=count).map(|id| (id, self.fleet.home().ports(NodeId(id)).url())).collect();
        let arrivals = join_all(urls.iter().map(async |(id, url)| {
            if is_live(url).await {
                say(out, &format!("Node {id} answers."));
            }
        }));
        let addresses = urls.iter().map(|(_, url)| url).chain([&url]).filter_map(|url| url.parse().ok());
        let client = Client::new(addresses.collect::<Vec<Address>>()).named("demo");
        let completion = is_complete(client.clone(), count);
        let (_, complete) = self.during(async { tokio::join!(arrivals, completion) }).await?;
        match complete {
            Some(voters) => {
                say(out, &format!("The cluster is complete: {count} nodes, {voters} of them voters."))
            }
            None => say(
                out,
                &format!(
                    "The cluster is incomplete after {} s; see the dashboard and the logs.",
                    COMPLETE_TIMEOUT.as_secs()
                ),
            ),
        }
        if samples.is_empty() {
            phase.end();
        } else {
            phase.begin("Starting the sample services and the load");
        }
        say(out, &format!("For the command line: export RINGMASTER_URL={url}\nCtrl-C stops the demo."));

        let launcher = self.fleet.launcher().clone();
        let proxies = (1..=count).map(|id| self.fleet.home().ports(NodeId(id)).proxy_url()).collect();
        let load = async {
            if !samples.is_empty() {
                tokio::join!(
                    services::run(&client, &launcher, samples, proxies, out),
                    load::run(client.clone())
                );
            }
            std::future::pending::<()>().await;
        };
        self.during(load).await
    }

    fn start(&mut self, id: NodeId) -> Result<(), Ended> {
        self.fleet
            .start(id)
            .map_err(|source| Ended::Failed(DemoError::System { doing: format!("start node {id}"), source }))
    }

    /// Waits for `work` while handling signals, exits of nodes, and requests.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = self.stop.requested() => return Err(Ended::Stopped),
                (id, status) = self.fleet.next_exit() => {
                    let log = self.fleet.home().end_of_log(id);
                    if log.contains(REMOVED) {
                        self.say(&format!("Node {id} was removed from the cluster and has ended."));
                    } else {
                        self.say(&format!("Node {id} ended unexpectedly ({status}). The end of its log:\n{log}"));
                    }
                    if self.fleet.is_dead() {
                        return Err(Ended::Failed(DemoError::AllDied));
                    }
                }
                Some(PendingRequest { request, reply }) = self.requests.recv() => {
                    let answer = self.execute(request).await;
                    // The requesting node may be the one that was killed.
                    drop(reply.send(answer));
                }
            }
        }
    }

    async fn execute(&mut self, request: Request) -> Answer {
        match request {
            Request::List => Ok(self.fleet.list()),
            Request::Chaos { node, chaos } => {
                let node = self.fleet.inflict(node, chaos).await?;
                let done = match chaos {
                    Chaos::Kill => "was killed",
                    Chaos::Pause => "was paused",
                    Chaos::Resume => "was resumed",
                    Chaos::Restart => "was restarted",
                };
                self.say(&format!("Node {} {done}.", node.node));
                Ok(vec![node])
            }
            Request::AddNode => {
                let id = self.fleet.next_id()?;
                let refuse = |error: String| Refusal::new(Code::DemoFailed, error);
                self.fleet.home().ports(id).check_free(id).map_err(|error| refuse(error.to_string()))?;
                self.fleet.start(id).map_err(|error| refuse(format!("cannot start node {id}: {error}")))?;
                self.say(&format!("Node {id} was added."));
                Ok(vec![self.fleet.show(id)])
            }
        }
    }

    fn say(&self, text: &str) {
        say(self.out, text);
    }
}

/// Prints a line; the demo continues if its output is closed.
fn say(out: &Out, text: &str) {
    let (Ok(()) | Err(Closed(_))) = out.line(text);
}

/// An HTTP client for this machine with this time-out.
fn http(request_timeout: Duration) -> reqwest::Client {
    let http = reqwest::Client::builder().no_proxy().timeout(request_timeout).build();
    http.expect("the options are constant")
}

/// Polls a node until it answers; returns false after [`LIVE_TIMEOUT`].
async fn is_live(url: &str) -> bool {
    let http = http(Duration::from_secs(1));
    let livez = format!("{url}/livez");
    let answers = async {
        while !http.get(&livez).send().await.is_ok_and(|answer| answer.status().is_success()) {
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(LIVE_TIMEOUT, answers).await.is_ok()
}

/// Polls until all nodes are up with enough voters; returns the number of voters, or nothing after
/// [`COMPLETE_TIMEOUT`].
async fn is_complete(client: Client, count: u64) -> Option<usize> {
    let complete = async {
        loop {
            if let Ok(cluster) = client.get::<Cluster>("/v1/cluster").await
                && let Some(voters) = complete_with(&cluster, count)
            {
                return voters;
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(COMPLETE_TIMEOUT, complete).await.ok()
}

fn complete_with(cluster: &Cluster, count: u64) -> Option<usize> {
    let up = cluster.nodes.iter().filter(|info| info.node.status == NodeStatus::Up).count() as u64;
    let voters = cluster.nodes.iter().filter(|info| info.node.voter).count();
    (up >= count && voters as u64 >= count.min(VOTERS as u64) && cluster.leader.is_some()).then_some(voters)
}

/// Opens the dashboard if there is a desktop. Errors are ignored, because the URL is printed anyway.
fn open_in_browser(url: &str) {
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| env::var_os(name).is_some());
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if desktop || cfg!(target_os = "macos") {
        let quiet = || Stdio::null();
        drop(Command::new(opener).arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn());
    }
}

/// Prints the phases of the start with their durations.
struct Phases<'a> {
    out: &'a Out,
    count: u32,
    current: u32,
    began: Instant,
}

impl<'a> Phases<'a> {
    fn new(out: &'a Out, count: u32) -> Phases<'a> {
        Phases { out, count, current: 0, began: clock::now() }
    }

    /// Ends the current phase and starts the next one.
    fn begin(&mut self, title: &str) {
        self.end();
        self.current += 1;
        self.began = clock::now();
        say(self.out, &format!("[{}/{}] {title}", self.current, self.count));
    }

    fn end(&self) {
        if self.current > 0 {
            let took = clock::now().saturating_duration_since(self.began).as_secs_f64();
            say(self.out, &format!("[{}/{}] done in {took:.1} s", self.current, self.count));
        }
    }
}

/// The signals that end a demo.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stop {
    fn listen() -> io::Result<Stop> {
        Ok(Stop {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
