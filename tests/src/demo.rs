//! `ringmaster demo`, as a user starts it.

use crate::{
    SOON, eventually,
    process::{Process, binary, free_base_port},
};
use ringmaster_common::cluster::Cluster;
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A running demo.
#[derive(Debug)]
pub struct Demo {
    pub process: Process,
    /// The dashboard that it printed.
    pub url: String,
    /// How long it took to print that.
    pub url_after: Duration,
    pub base_port: u16,
    pub http: reqwest::Client,
    _log: TempDir,
}

impl Demo {
    pub async fn start(arguments: &[&str]) -> Demo {
        let log = tempfile::tempdir().expect("there is room for a log");
        let base_port = free_base_port();
        let mut command = Command::new(binary());
        command.args(["demo", "--no-open", "--base-port", &base_port.to_string()]).args(arguments);
        let started = Instant::now();
        let process = Process::start(&mut command, &log.path().join("demo.log"));
        let url = eventually("the demo to print its URL", SOON, async || {
            let output = process.output();
            let line = output.lines().find_map(|line| line.strip_prefix("Dashboard: "));
            line.map(str::to_owned).ok_or(output)
        })
        .await;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("no options");
        Demo { process, url, url_after: started.elapsed(), base_port, http, _log: log }
    }

    pub fn node_url(&self, node: u16) -> String {
        format!("http://127.0.0.1:{}", self.base_port + node)
    }

    /// The address of the node's proxy.
    pub fn proxy_url(&self, node: u16) -> String {
        format!("http://127.0.0.1:{}", self.base_port + 200 + node)
    }

    pub async fn cluster(&self, node: u16) -> Result<Cluster, String> {
        let url = format!("{}/v1/cluster", self.node_url(node));
        let response = self.http.get(url).send().await.map_err(|error| error.to_string())?;
        response.json().await.map_err(|error| error.to_string())
    }

    /// Waits until the demo says that its cluster is complete.
    pub async fn wait_complete(&self) {
        eventually("the cluster to be complete", SOON, async || {
            let output = self.process.output();
            if output.contains("The cluster is complete") { Ok(()) } else { Err(output) }
        })
        .await;
    }
}

/// The processes whose environment names this supervisor: its nodes, paused ones among them, and the
/// endpoints of its sample services.
pub fn processes_of(supervisor: i32) -> Vec<i32> {
    let wanted = format!("RINGMASTER_DEMO_SUPERVISOR={supervisor}");
    std::fs::read_dir("/proc")
        .expect("Linux has /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| words(*pid, "environ").contains(&wanted))
        .filter(|pid| *pid != supervisor)
        .collect()
}

/// Those of them that run this subcommand.
pub fn processes_running(supervisor: i32, subcommand: &str) -> Vec<i32> {
    let runs = |pid: &i32| words(*pid, "cmdline").get(1).is_some_and(|word| word == subcommand);
    processes_of(supervisor).into_iter().filter(runs).collect()
}

/// A list that the kernel keeps of a process; empty once the process has ended.
fn words(pid: i32, list: &str) -> Vec<String> {
    let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join(list)).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
