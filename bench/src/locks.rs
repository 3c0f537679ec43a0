//! Acquiring and releasing an uncontended lock, beside etcd and Redis, in turns.
//!
//! Ringmaster and etcd have three processes on loopback, Redis has one that syncs every write to disk
//! before it answers. A pair is an acquire and a release, one after the other, each client with names
//! of its own. etcd is spoken to in gRPC with one lease for each client, as its own clients do; Redis
//! by `SET NX PX` and a script that compares and deletes. Redis gives no fencing token, and no
//! guarantee once it fails over; its numbers show what that saves.

use crate::{
    etcd::{Etcd, Session},
    http::{self, Ask, Protocol},
    redis::{self, Redis},
    report::{Report, Times},
    summary::Summary,
    usage,
};
use bytes::Bytes;
use futures::future::try_join_all;
use hyper::Method;
use nix::unistd::Pid;
use ringmaster_common::lock::LockGrant;
use ringmaster_tests::cluster::Program;
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// How long a server rests before its turn: what it writes behind is its own.
const REST: Duration = Duration::from_millis(500);
/// How many names each client goes round.
const NAMES: u64 = 16;
const TTL_MS: u64 = 30_000;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many clients lock at a time, one measurement each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    clients: Vec<u64>,
    /// How long each measurement takes
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often each is repeated, in turns; the medians are reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The binary of etcd 3.5 (Debian: etcd-server)
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,
    /// The binary of Redis (Debian: redis-server)
    #[arg(long, value_name = "PATH")]
    redis: Option<PathBuf>,
}

/// Somebody who is measured.
struct Contender {
    name: &'static str,
    kind: Kind,
    host: String,
    pids: Vec<Pid>,
}

#[derive(Clone, Copy)]
enum Kind {
    Ringmaster,
    Etcd,
    Redis,
}

/// A client of one of them.
enum Client {
    Ringmaster(http::Connection),
    Etcd(Session),
    Redis(redis::Connection),
}

impl Client {
    async fn open(kind: Kind, host: &str) -> Result<Client, String> {
        Ok(match kind {
            Kind::Ringmaster => Client::Ringmaster(http::Connection::open(Protocol::Http1, host).await?),
            Kind::Etcd => Client::Etcd(Session::open(host).await?),
            Kind::Redis => Client::Redis(redis::Connection::open(host).await?),
        })
    }

    /// Acquires and releases.
    async fn pair(&mut self, name: &str, owner: &str) -> Result<bool, String> {
        match self {
            Client::Ringmaster(connection) => {
                let acquire = json!({ "name": name, "owner": owner, "ttl_ms": TTL_MS });
                let (granted, answer) = connection.send(post("acquire", &acquire)).await?;
                if !granted {
                    return Ok(false);
                }
                let grant: LockGrant = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
                let release = json!({ "name": name, "owner": owner, "token": grant.token });
                Ok(connection.send(post("release", &release)).await?.0)
            }
            Client::Etcd(session) => match session.lock(name).await? {
                Some(key) => session.unlock(&key).await,
                None => Ok(false),
            },
            Client::Redis(connection) => {
                Ok(connection.acquire(name, owner).await? && connection.release(name, owner).await?)
            }
        }
    }
}

fn post(what: &str, body: &Value) -> Ask {
    Ask { method: Method::POST, path: format!("/v1/locks/{what}"), body: Bytes::from(body.to_string()) }
}

pub async fn run(program: &Program, arguments: &Arguments) -> Result<Report, String> {
    let mut cluster = crate::start(program).await;
    let leader = cluster.leader().await;
    let host = cluster.node(leader).url.trim_start_matches("http://").to_owned();
    let pids = cluster.nodes.iter_mut().map(|node| node.process().pid()).collect();
    let mut contenders = vec![Contender { name: "ringmaster", kind: Kind::Ringmaster, host, pids }];
    let etcd = match &arguments.etcd {
        Some(binary) => Some(Etcd::start(binary).await?),
        None => None,
    };
    if let Some(etcd) = &etcd {
        let host = etcd.leader().to_owned();
        contenders.push(Contender { name: "etcd", kind: Kind::Etcd, host, pids: etcd.pids() });
    }
    let redis = match &arguments.redis {
        Some(binary) => Some(Redis::start(binary).await?),
        None => None,
    };
    if let Some(redis) = &redis {
        let host = redis.host.clone();
        contenders.push(Contender { name: "redis, one node", kind: Kind::Redis, host, pids: redis.pids() });
    }

    let mut report = Report::new(format!(
        "Pairs of acquire and release, uncontended, medians of {} runs of {} s",
        arguments.rounds, arguments.seconds
    ));
    for clients in &arguments.clients {
        let mut measured = vec![Vec::new(); contenders.len()];
        for _ in 0..arguments.rounds {
            for (contender, measured) in contenders.iter().zip(&mut measured) {
                tokio::time::sleep(REST).await;
                measured.push(measure(contender, *clients, Duration::from_secs(arguments.seconds)).await?);
            }
        }
        let medians: Vec<Summary> = measured.iter().map(|all| Summary::median(all)).collect();
        for (contender, summary) in contenders.iter().zip(&medians) {
            report.row(vec![
                ("clients", json!(clients)),
                ("server", json!(contender.name)),
                ("pairs/s", json!(summary.per_second)),
                ("p50 ms", json!(summary.p50_ms)),
                ("p99 ms", json!(summary.p99_ms)),
                ("CPU µs/pair", json!(summary.cpu_us)),
                ("rate ×", json!(summary.per_second / medians[0].per_second)),
                ("CPU ×", json!(summary.cpu_us / medians[0].cpu_us)),
            ]);
        }
        if etcd.is_some() {
            let [ours, theirs] = [medians[0], medians[1]];
            if *clients == 64 {
                report.check(
                    "etcd's rate at 64 clients, in ours",
                    theirs.per_second / ours.per_second,
                    1.0 / 3.0,
                );
            }
            report.check(format!("p99 at {clients} clients, in etcd's"), ours.p99_ms / theirs.p99_ms, 1.0);
        }
        eprintln!("{clients} clients: done");
    }
    Ok(report)
}

async fn measure(contender: &Contender, clients: u64, duration: Duration) -> Result<Summary, String> {
    let before = usage::cpu(&contender.pids)?;
    let start = Instant::now();
    let one = async |client| {
        let pairs = pairs(contender.kind, contender.host.clone(), client, duration);
        tokio::spawn(pairs).await.map_err(|error| error.to_string())?
    };
    let latencies: Vec<Duration> = try_join_all((0..clients).map(one)).await?.into_iter().flatten().collect();
    let took = start.elapsed();
    let cpu = usage::cpu(&contender.pids)? - before;
    let pairs = latencies.len() as u64;
    Ok(Summary::new(Times::new(latencies), pairs, took, cpu))
}

async fn pairs(kind: Kind, host: String, number: u64, duration: Duration) -> Result<Vec<Duration>, String> {
    let mut client = Client::open(kind, &host).await?;
    let (owner, start) = (format!("bench-{number}"), Instant::now());
    let mut latencies = Vec::new();
    for n in 0u64.. {
        if start.elapsed() >= duration {
            break;
        }
        let name = format!("bench/{number}/{}", n % NAMES);
        let begun = Instant::now();
        if !client.pair(&name, &owner).await? {
            return Err(format!("{host} refused {name}, which no other client requests"));
        }
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}
