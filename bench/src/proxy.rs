//! HTTP through our proxy, beside HAProxy and nginx: the same endpoints, the same load, one after the other.
//!
//! The load generator, the endpoints and the proxy share the cores, so what counts is the CPU that the proxy
//! itself takes for a request. Ours is a whole node that checks its endpoints and counts what it does: all of that,
//! and what Raft costs meanwhile, is in its numbers.

use crate::{report::Report, usage};
use hyper::Method;
use nix::unistd::Pid;
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Host, Program},
    eventually,
    process::{Process, free_ports},
};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tokio::net::TcpStream;

/// As large as the answers of a small API.
const BODY_BYTES: usize = 128;
const CONNECTIONS: [u32; 2] = [64, 256];
/// How much more CPU a request may cost than with HAProxy.
const TARGET: f64 = 1.25;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long, value_name = "PATH", default_value = "/usr/sbin/haproxy")]
    haproxy: PathBuf,
    #[arg(long, value_name = "PATH", default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    #[arg(long, value_name = "PATH", default_value = "wrk")]
    wrk: PathBuf,
    /// Of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// How often all are measured in turns; the medians count
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// One that is measured.
struct Peer {
    name: &'static str,
    port: u16,
    pids: Vec<Pid>,
}

/// The result of one measurement.
#[derive(Clone, Copy, Debug)]
struct Run {
    per_s: f64,
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
}

pub async fn run(program: &Program, arguments: &Arguments) -> Result<Report, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let ports: [u16; 6] = free_ports();
    let [origins @ .., haproxy, nginx, ours] = ports;
    let _origin = start_nginx(&arguments.nginx, dir.path(), "origin", &origin_config(&origins))?;
    let (mut haproxy_process, nginx_process) = (
        start_haproxy(&arguments.haproxy, dir.path(), haproxy, &origins)?,
        start_nginx(&arguments.nginx, dir.path(), "proxy", &proxy_config(nginx, &origins))?,
    );
    let mut program = program.clone();
    program.options.push(format!("--proxy-addr=127.0.0.1:{ours}"));
    let mut cluster = Cluster::start_on(program, &[Host::default()]).await;
    configure(&cluster, &origins).await?;
    for port in ports {
        eventually("all to listen", SOON, async || {
            TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
    let peers = [
        Peer { name: "HAProxy", port: haproxy, pids: vec![haproxy_process.pid()] },
        Peer { name: "nginx", port: nginx, pids: workers_of(nginx_process.pid())? },
        Peer { name: "Ringmaster", port: ours, pids: vec![cluster.node_mut(1).process().pid()] },
    ];
    let mut report =
        Report::new(format!("HTTP through a proxy, {} endpoints, {BODY_BYTES} bytes", origins.len()));
    for connections in CONNECTIONS {
        let mut runs = vec![Vec::new(); peers.len()];
        for _ in 0..arguments.rounds.max(1) {
            for (peer, runs) in peers.iter().zip(&mut runs) {
                runs.push(measure(arguments, peer, connections)?);
            }
        }
        let medians: Vec<_> = runs.iter().map(|runs| median(runs)).collect();
        for (peer, run) in peers.iter().zip(&medians) {
            report.row(vec![
                ("proxy", json!(peer.name)),
                ("connections", json!(connections)),
                ("requests/s", json!(run.per_s)),
                ("CPU µs/request", json!(run.cpu_us)),
                ("p50 ms", json!(run.p50_ms)),
                ("p99 ms", json!(run.p99_ms)),
            ]);
        }
        let [haproxy, nginx, ours] = medians[..] else {
            return Err("a contender was not measured".to_owned());
        };
        let ratio = ours.cpu_us / haproxy.cpu_us;
        report.check(format!("CPU per request against HAProxy's, {connections} connections"), ratio, TARGET);
        let ratio = nginx.per_s / ours.per_s;
        report.check(format!("nginx's requests/s against ours, {connections} connections"), ratio, 1.0);
    }
    haproxy_process.kill();
    Ok(report)
}

async fn configure(cluster: &Cluster, origins: &[u16]) -> Result<(), String> {
    let endpoint =
        |(n, port): (usize, &u16)| json!({"id": format!("e{n}"), "addr": format!("127.0.0.1:{port}")});
    let endpoints: Vec<_> = origins.iter().enumerate().map(endpoint).collect();
    let health_check = json!({"type": "http", "path": "/", "interval_ms": 1000, "timeout_ms": 500});
    let upstream = json!({"policy": "round_robin", "endpoints": endpoints, "health_check": health_check});
    for (path, body) in
        [("/v1/upstreams/bench", upstream), ("/v1/routes/bench", json!({"upstream": "bench"}))]
    {
        let response = cluster.send(1, Method::PUT, path, Some(body)).await?;
        if !response.status().is_success() {
            return Err(format!("{path}: {}", response.status()));
        }
    }
    Ok(())
}

fn start_haproxy(binary: &Path, dir: &Path, port: u16, origins: &[u16]) -> Result<Process, String> {
    let servers: String = origins.iter().map(|port| format!("  server s{port} 127.0.0.1:{port}\n")).collect();
    let config = format!(
        "global\n  nbthread 2\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  \
         timeout server 60s\n  option forwardfor\n  http-reuse always\nlisten bench\n  bind 127.0.0.1:{port}\n  \
         balance roundrobin\n{servers}"
    );
    let path = dir.join("haproxy.cfg");
    fs::write(&path, config).map_err(|error| error.to_string())?;
    Ok(Process::start(Command::new(binary).arg("-db").arg("-f").arg(&path), &dir.join("haproxy.log")))
}

fn start_nginx(binary: &Path, dir: &Path, name: &str, http: &str) -> Result<Process, String> {
    let log = dir.join(format!("{name}.log"));
    let config = format!(
        "daemon off; worker_processes 2; pid {0}/{name}.pid; error_log {1}; events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000; {http} }}\n",
        dir.display(),
        log.display()
    );
    let path = dir.join(format!("{name}.conf"));
    fs::write(&path, config).map_err(|error| error.to_string())?;
    Ok(Process::start(Command::new(binary).arg("-c").arg(&path), &log))
}

fn origin_config(ports: &[u16]) -> String {
    let listen: String = ports.iter().map(|port| format!("listen 127.0.0.1:{port}; ")).collect();
    format!("server {{ {listen} location / {{ return 200 \"{}\"; }} }}", "x".repeat(BODY_BYTES))
}

fn proxy_config(port: u16, origins: &[u16]) -> String {
    let servers: String = origins.iter().map(|port| format!("server 127.0.0.1:{port}; ")).collect();
    format!(
        "upstream bench {{ {servers} keepalive 256; keepalive_requests 100000000; }} server {{ listen 127.0.0.1:{port}; \
         location / {{ proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_set_header X-Forwarded-For $remote_addr; }} }}"
    )
}

/// nginx serves in processes of its own.
fn workers_of(master: Pid) -> Result<Vec<Pid>, String> {
    let path = format!("/proc/{master}/task/{master}/children");
    let mut workers = String::new();
    // They come a moment after their master.
    for _ in 0..100 {
        workers = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        if workers.split_whitespace().count() >= 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    workers
        .split_whitespace()
        .map(|pid| pid.parse().map(Pid::from_raw).map_err(|_| workers.clone()))
        .collect()
}

fn measure(arguments: &Arguments, peer: &Peer, connections: u32) -> Result<Run, String> {
    let before = usage::cpu(&peer.pids)?;
    let output = Command::new(&arguments.wrk)
        .args(["--threads", "1", "--latency", "--connections", &connections.to_string()])
        .args(["--duration", &format!("{}s", arguments.seconds)])
        .arg(format!("http://127.0.0.1:{}/", peer.port))
        .output()
        .map_err(|error| format!("{}: {error}", arguments.wrk.display()))?;
    let cpu = usage::cpu(&peer.pids)? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let wrong = || format!("wrk says of {}: {text}", peer.name);
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(wrong());
    }
    let lines = || text.lines().map(str::trim);
    let requests = lines().find(|line| line.contains("requests in"));
    let requests: f64 = requests.and_then(|line| line.split(' ').next()?.parse().ok()).ok_or_else(wrong)?;
    let quantile = |name: &str| {
        let line = lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| millis(value.trim())).ok_or_else(wrong)
    };
    Ok(Run {
        per_s: requests / f64::from(arguments.seconds),
        cpu_us: cpu.as_secs_f64() * 1e6 / requests,
        p50_ms: quantile("50%")?,
        p99_ms: quantile("99%")?,
    })
}

/// `1.25ms`, `830.00us` or `1.02s`.
fn millis(text: &str) -> Option<f64> {
    let (number, factor) = [("us", 0.001), ("ms", 1.0), ("s", 1_000.0)]
        .into_iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

/// By CPU.
fn median(runs: &[Run]) -> Run {
    let mut runs = runs.to_vec();
    runs.sort_by(|one, other| one.cpu_us.total_cmp(&other.cpu_us));
    runs[runs.len() / 2]
}
