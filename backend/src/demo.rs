//! `ringmaster demo`: a cluster of real node processes on this machine, sample services behind its
//! proxies ([`services`]), and gentle load on both.
//!
//! The supervisor starts this very program once for each node, with `serve` and the flags that an
//! operator would give. Nodes know nothing of it, except that the dashboard may ask it for chaos
//! ([`socket`]), and that they die when it does (`demo_child`).
//!
//! What always holds: whatever ends the supervisor ends its nodes, paused ones too. A node that dies
//! is reported, and deliberately not restarted: what a cluster does then is what a demo is for.

mod fleet;
mod home;
mod load;
pub mod sample;
mod services;
pub mod socket;

use crate::cli::out::{Closed, Out};
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
use ringmaster_servers::demo_child::protocol::{Answer, Request};
use services::Sample;
use socket::{Order, Socket};
use std::{env, io, path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};

/// How long a node may take to answer at all.
pub const LIVE_WITHIN: Duration = Duration::from_secs(20);
/// How long the nodes may take to become a cluster before that is remarked upon.
pub const COMPLETE_WITHIN: Duration = Duration::from_secs(30);
/// How often nodes are asked whether they are there yet.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How many requests of nodes may wait.
const ORDERS: usize = 8;

const EXAMPLES: &str = "\
Examples:
  ringmaster demo                               three nodes; everything is gone at the end
  ringmaster demo --nodes 5 --data-dir ./demo   a cluster that goes on where it stopped

Node I has its API and dashboard on port BASE+I, its peer listener on BASE+100+I and its proxy listener on BASE+200+I.
The endpoints of the sample services are on the ports from BASE+301.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// How many nodes to start
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=MAX_NODES as u64))]
    nodes: u64,
    /// Keep the data here, and go on with it the next time [default: a directory that is removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The port before those of the nodes [default: 7700, or that of the data directory]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=i64::from(home::MAX_BASE_PORT)))]
    base_port: Option<u16>,
    /// Do not open the dashboard in a browser
    #[arg(long)]
    no_open: bool,
    /// No sample services, and no load, not even a gentle one
    #[arg(long)]
    no_load: bool,
}

/// Why there is no demo, or none any longer.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("{0}")]
    Home(#[from] home::HomeError),
    #[error("cannot {doing}: {source}")]
    System { doing: String, source: io::Error },
    #[error("node 1 does not answer after {} s; its log is {log}", LIVE_WITHIN.as_secs())]
    Silent { log: String },
    #[error("no node is left running")]
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
    let (orders, received) = mpsc::channel(ORDERS);
    let socket = Socket::open(orders).map_err(system("open the socket for the nodes"))?;
    let program = env::current_exe().map_err(system("find this program"))?;
    let fleet = Fleet::new(Launcher { program, environment: socket.environment() }, home);
    let mut supervisor = Supervisor { fleet, orders: received, stop, out };

    let outcome = supervisor.run(count, !arguments.no_open, &samples).await;
    supervisor.say("Stopping the nodes.");
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

/// Runs the nodes, does what they ask for, and notes what becomes of them.
struct Supervisor<'a> {
    fleet: Fleet,
    orders: mpsc::Receiver<Order>,
    stop: Stop,
    out: &'a Out,
}

/// Why a demo ends.
enum Ended {
    /// Somebody wants it to.
    Stopped,
    Failed(DemoError),
}

impl Supervisor<'_> {
    /// Without samples there is no load either.
    async fn run(&mut self, count: u64, open: bool, samples: &[Sample]) -> Result<(), Ended> {
        let first = NodeId(1);
        self.say(&format!("Starting {count} nodes; their data is in {}", self.fleet.home().path().display()));
        self.start(first)?;
        let url = self.fleet.home().ports(first).url();
        if !self.during(is_live(&url)).await? {
            let log = self.fleet.home().log(first).display().to_string();
            return Err(Ended::Failed(DemoError::Silent { log }));
        }
        self.say(&format!("Node 1 is up.\nDashboard: {url}"));
        if open {
            open_in_browser(&url);
        }

        for id in (2..=count).map(NodeId) {
            self.start(id)?;
        }
        let out = self.out;
        let urls: Vec<_> = (2..=count).map(|id| (id, self.fleet.home().ports(NodeId(id)).url())).collect();
        let arrivals = join_all(urls.iter().map(async |(id, url)| {
            if is_live(url).await {
                say(out, &format!("Node {id} is up."));
            }
        }));
        let addresses = urls.iter().map(|(_, url)| url).chain([&url]).filter_map(|url| url.parse().ok());
        let client = Client::new(addresses.collect::<Vec<Address>>()).named("demo");
        let completion = is_complete(client.clone(), count);
        let (_, complete) = self.during(async { tokio::join!(arrivals, completion) }).await?;
        match complete {
            Some(voters) => {
                self.say(&format!("The cluster is complete: {count} nodes, {voters} of them voters."))
            }
            None => self.say(&format!(
                "The cluster is still not complete after {} s; the dashboard and the logs tell why.",
                COMPLETE_WITHIN.as_secs()
            )),
        }
        self.say(&format!("For the command line: export RINGMASTER_URL={url}"));
        self.say("Ctrl-C stops the demo.");

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

    /// Waits for `work`, and keeps an eye on everything else meanwhile.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = self.stop.requested() => return Err(Ended::Stopped),
                (id, status) = self.fleet.next_exit() => {
                    let log = self.fleet.home().end_of_log(id);
                    if log.contains(REMOVED) {
                        self.say(&format!("Node {id} was removed from the cluster, and has ended."));
                    } else {
                        self.say(&format!("Node {id} died by itself ({status}); its log ends:\n{log}"));
                    }
                    if self.fleet.is_dead() {
                        return Err(Ended::Failed(DemoError::AllDied));
                    }
                }
                Some(Order { request, reply }) = self.orders.recv() => {
                    let answer = self.obey(request).await;
                    // The node that asked may be the one that was killed.
                    drop(reply.send(answer));
                }
            }
        }
    }

    async fn obey(&mut self, request: Request) -> Answer {
        match request {
            Request::List => Ok(self.fleet.list()),
            Request::Chaos { node, chaos } => {
                let node = self.fleet.inflict(node, chaos).await?;
                let done = match chaos {
                    Chaos::Kill => "was killed",
                    Chaos::Pause => "was paused",
                    Chaos::Resume => "goes on",
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

/// A demo goes on when nobody reads what it has to say.
fn say(out: &Out, text: &str) {
    let (Ok(()) | Err(Closed(_))) = out.line(text);
}

/// A client of what runs on this machine, which has an answer or an error within this time.
fn http(within: Duration) -> reqwest::Client {
    let http = reqwest::Client::builder().no_proxy().timeout(within).build();
    http.expect("the options are constant")
}

/// Asks a node until it answers; false where it does not in time.
async fn is_live(url: &str) -> bool {
    let http = http(Duration::from_secs(1));
    let livez = format!("{url}/livez");
    let answers = async {
        while !http.get(&livez).send().await.is_ok_and(|answer| answer.status().is_success()) {
            sleep(ASK_EVERY).await;
        }
    };
    timeout(LIVE_WITHIN, answers).await.is_ok()
}

/// Asks until all nodes are up and enough of them vote; the number of voters, or nothing where it
/// takes too long.
async fn is_complete(client: Client, count: u64) -> Option<usize> {
    let complete = async {
        loop {
            if let Ok(cluster) = client.get::<Cluster>("/v1/cluster").await
                && let Some(voters) = complete_with(&cluster, count)
            {
                return voters;
            }
            sleep(ASK_EVERY).await;
        }
    };
    timeout(COMPLETE_WITHIN, complete).await.ok()
}

fn complete_with(cluster: &Cluster, count: u64) -> Option<usize> {
    let up = cluster.nodes.iter().filter(|info| info.node.status == NodeStatus::Up).count() as u64;
    let voters = cluster.nodes.iter().filter(|info| info.node.voter).count();
    (up >= count && voters as u64 >= count.min(VOTERS as u64) && cluster.leader.is_some()).then_some(voters)
}

/// Opens the dashboard where there is a desktop to open it on. Whatever comes of that, the URL has
/// been printed.
fn open_in_browser(url: &str) {
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| env::var_os(name).is_some());
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if desktop || cfg!(target_os = "macos") {
        let quiet = || Stdio::null();
        drop(Command::new(opener).arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn());
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
