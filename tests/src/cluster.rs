//! A cluster of real processes.

use crate::{
    SOON, eventually,
    process::{Process, binary, free_ports},
};
use nix::sys::signal::Signal;
use reqwest::{Client, Method, Response, StatusCode};
use ringmaster_common::{
    action::Action,
    cluster::{Cluster as ClusterBody, NodeStatus},
    error::Problem,
    id::NodeId,
    operation::Operation,
    plan::Plan,
    setting::Setting,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// How long a single request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Some nodes, the first of which has bootstrapped the cluster. Nodes count from 1.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub http: Client,
    program: Program,
    dir: TempDir,
}

/// The host of a node.
#[derive(Clone, Debug)]
pub struct Host {
    pub ip: String,
    /// The words before a command that runs it there, such as `ip netns exec NAME`.
    pub enter: Vec<String>,
}

/// The program that every node runs.
#[derive(Clone, Debug)]
pub struct Program {
    pub binary: PathBuf,
    /// Further options of `serve`.
    pub options: Vec<String>,
    /// Whether each node has a proxy's listener of its own.
    pub proxies: bool,
}

impl Default for Program {
    fn default() -> Self {
        Program { binary: binary(), options: Vec::new(), proxies: false }
    }
}

impl Default for Host {
    fn default() -> Self {
        Host { ip: "127.0.0.1".to_owned(), enter: Vec::new() }
    }
}

/// One `ringmaster serve`.
#[derive(Debug)]
pub struct Node {
    pub id: u64,
    pub url: String,
    pub api_port: u16,
    pub peer_port: u16,
    /// Taken where the program says so ([`Program::proxies`]).
    pub proxy_port: u16,
    /// The program; it may be another version.
    pub binary: PathBuf,
    /// The words that the command line begins with. They may be changed while the node does not run.
    pub enter: Vec<String>,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

impl Cluster {
    /// Starts nodes, and waits until all are up and the first three vote.
    pub async fn start(count: u64) -> Cluster {
        Cluster::start_with(count, &[]).await
    }

    /// The same, with more options for each node.
    pub async fn start_with(count: u64, options: &[&str]) -> Cluster {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let hosts: Vec<Host> = (0..count).map(|_| Host::default()).collect();
        Cluster::start_on(Program { options, ..Program::default() }, &hosts).await
    }

    /// The same, with one node on each of these hosts.
    pub async fn start_on(program: Program, hosts: &[Host]) -> Cluster {
        let mut cluster = Cluster::empty(program);
        for host in hosts {
            cluster.add_on(host).start();
        }
        cluster.wait_formed(hosts.len() as u64).await;
        cluster
    }

    /// A cluster of no nodes yet.
    pub fn empty(program: Program) -> Cluster {
        let dir = tempfile::tempdir().expect("there is room for a test's data");
        // A pool would hold connections to processes that were killed.
        let http = Client::builder().timeout(REQUEST_TIMEOUT).build().expect("the client needs nothing");
        Cluster { nodes: Vec::new(), http, program, dir }
    }

    /// Starts one more node.
    pub fn add(&mut self) {
        self.add_on(&Host::default()).start();
    }

    /// One more node, which does not run yet.
    pub fn add_on(&mut self, host: &Host) -> &mut Node {
        let id = self.nodes.len() as u64 + 1;
        let [api_port, peer_port, proxy_port] = free_ports();
        let data = self.dir.path().join(format!("node-{id}"));
        let mut arguments: Vec<String> = [
            "serve",
            "--id",
            &id.to_string(),
            "--name",
            &format!("test-{id}"),
            "--data-dir",
            &data.display().to_string(),
            "--api-addr",
            &format!("{}:{api_port}", host.ip),
            "--peer-addr",
            &format!("{}:{peer_port}", host.ip),
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend_from_slice(&self.program.options);
        if self.program.proxies {
            arguments.push(format!("--proxy-addr={}:{proxy_port}", host.ip));
        }
        if host.ip != Host::default().ip {
            arguments.push("--insecure".to_owned());
        }
        match self.nodes.first() {
            None => arguments.push("--bootstrap".to_owned()),
            Some(first) => arguments.extend(["--join".to_owned(), first.url.clone()]),
        }
        self.nodes.push(Node {
            id,
            url: format!("http://{}:{api_port}", host.ip),
            api_port,
            peer_port,
            proxy_port,
            binary: self.program.binary.clone(),
            enter: host.enter.clone(),
            arguments,
            log: self.dir.path().join(format!("node-{id}.log")),
            process: None,
        });
        self.node_mut(id)
    }

    pub async fn wait_formed(&self, count: u64) {
        let voters = count.min(3) as usize;
        eventually("the cluster to form", SOON, async || {
            let body = self.cluster(1).await?;
            let up = body.nodes.iter().filter(|info| info.node.status == NodeStatus::Up).count();
            let voting = body.nodes.iter().filter(|info| info.node.voter).count();
            let idle = self.idle().await?;
            if up == count as usize && voting == voters && idle {
                Ok(())
            } else {
                Err(format!("{up} of {count} nodes are up, {voting} of {voters} vote, idle: {idle}"))
            }
        })
        .await;
    }

    async fn idle(&self) -> Result<bool, String> {
        let operations: Value = self.get(1, "/v1/operations").await?;
        let items = operations["items"].as_array().cloned().unwrap_or_default();
        Ok(items.iter().all(|operation| operation["status"] != "running"))
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[id as usize - 1]
    }

    pub fn node_mut(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    /// The data directory of a node.
    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.dir().join(format!("node-{id}"))
    }

    /// Removes all that a node has on disk.
    pub fn wipe(&self, id: u64) {
        assert!(!self.node(id).is_running(), "its files would be open");
        std::fs::remove_dir_all(self.data_dir(id)).expect("the data is there");
    }

    /// Kills all nodes at once, as a power cut does, starts them again, and waits until each has applied
    /// everything that was acknowledged before.
    pub async fn power_cycle(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        for node in &mut self.nodes {
            node.start();
        }
        self.wait_level().await;
    }

    /// Waits until every node has applied what is written now.
    pub async fn wait_level(&self) {
        let mark = eventually("the cluster to take writes", SOON, async || {
            self.put_setting(1, "mark", json!("level")).await
        })
        .await;
        for node in &self.nodes {
            eventually("the node to have applied all", SOON, async || {
                let revision = self.cluster(node.id).await?.revision;
                if revision >= mark.version {
                    Ok(())
                } else {
                    Err(format!("node {} is at {revision}", node.id))
                }
            })
            .await;
        }
    }

    /// Waits until all nodes agree on a leader, and all are up in its view.
    pub async fn wait_healthy(&self) -> u64 {
        let leader = self.leader().await;
        for node in &self.nodes {
            self.wait_status(leader, node.id, NodeStatus::Up).await;
        }
        self.wait_level().await;
        leader
    }

    /// Any node that runs.
    pub fn living(&self) -> u64 {
        self.nodes.iter().find(|node| node.process.is_some()).expect("a node runs").id
    }

    /// Sends a request, with a JSON body where one is given.
    pub async fn send(
        &self,
        node: u64,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Response, String> {
        let mut request = self.http.request(method, format!("{}{path}", self.node(node).url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.map_err(|error| format!("node {node}, {path}: {error:?}"))
    }

    pub async fn get<T: DeserializeOwned>(&self, node: u64, path: &str) -> Result<T, String> {
        parse(self.send(node, Method::GET, path, None).await?).await
    }

    pub async fn cluster(&self, node: u64) -> Result<ClusterBody, String> {
        self.get(node, "/v1/cluster").await
    }

    pub async fn put_setting(&self, node: u64, key: &str, value: Value) -> Result<Setting, String> {
        let body = json!({ "value": value });
        parse(self.send(node, Method::PUT, &format!("/v1/settings/{key}"), Some(body)).await?).await
    }

    pub async fn plan(&self, node: u64, action: &Action) -> Result<Plan, String> {
        let body = json!({ "action": action });
        parse(self.send(node, Method::POST, "/v1/plans", Some(body)).await?).await
    }

    pub async fn apply(&self, node: u64, plan: &Plan) -> Result<Operation, String> {
        let path = format!("/v1/plans/{}/apply", plan.id);
        parse(self.send(node, Method::POST, &path, Some(json!({}))).await?).await
    }

    /// Waits until the operation is final, or waits to be kept.
    pub async fn outcome(&self, node: u64, operation: &Operation) -> Operation {
        let path = format!("/v1/operations/{}", operation.id);
        eventually("the operation to end", SOON, async || {
            let now: Operation = self.get(node, &path).await?;
            if now.status == ringmaster_common::operation::OperationStatus::Running {
                return Err(format!("{now:?}"));
            }
            Ok(now)
        })
        .await
    }

    /// The leader that all running nodes agree on.
    pub async fn leader(&self) -> u64 {
        eventually("all running nodes to agree on a leader", SOON, async || {
            let mut leaders = Vec::new();
            for node in self.nodes.iter().filter(|node| node.process.is_some()) {
                leaders.push(self.cluster(node.id).await?.leader);
            }
            match leaders.split_first() {
                Some((Some(leader), rest)) if rest.iter().all(|other| other == &Some(*leader)) => {
                    let running = self.nodes.iter().any(|node| node.id == leader.0 && node.process.is_some());
                    running.then_some(leader.0).ok_or_else(|| format!("{leader} was killed"))
                }
                _ => Err(format!("{leaders:?}")),
            }
        })
        .await
    }

    /// The leader that `observer` knows.
    pub async fn leader_of(&self, observer: u64) -> u64 {
        eventually("a node to know the leader", SOON, async || {
            self.cluster(observer).await?.leader.map(|leader| leader.0).ok_or_else(|| "none".to_owned())
        })
        .await
    }

    /// Waits until `node` has this status in the view of `observer`.
    pub async fn wait_status(&self, observer: u64, node: u64, status: NodeStatus) {
        // A node that came and went often is held back for up to half a minute.
        eventually(&format!("node {node} to be {status:?}"), SOON * 2, async || {
            let body = self.cluster(observer).await?;
            let info = body.nodes.into_iter().find(|info| info.node.id == NodeId(node));
            let now = info.map(|info| (info.node.status, info.node.status_reason));
            if now.as_ref().is_some_and(|(now, _)| *now == status) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }
}

impl Node {
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "node {} runs already", self.id);
        let mut command = match self.enter.split_first() {
            None => Command::new(&self.binary),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.binary);
                command
            }
        };
        command.args(&self.arguments);
        self.process = Some(Process::start(&mut command, &self.log));
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node runs")
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub fn pause(&mut self) {
        self.process().signal(Signal::SIGSTOP);
    }

    pub fn resume(&mut self) {
        self.process().signal(Signal::SIGCONT);
    }

    /// SIGTERM, and gone when this returns.
    pub fn terminate(&mut self) {
        let process = self.process();
        process.signal(Signal::SIGTERM);
        let status = process.wait(SOON);
        assert!(status.success(), "node {} ended with {status}:\n{}", self.id, self.log());
        self.process = None;
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The address of its proxy.
    pub fn proxy_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy_port)
    }

    /// Gives it other addresses from its next start on.
    pub fn move_to(&mut self, api_port: u16, peer_port: u16) {
        for (flag, port) in [("--api-addr", api_port), ("--peer-addr", peer_port)] {
            let at =
                self.arguments.iter().position(|argument| argument == flag).expect("it has the flag") + 1;
            self.arguments[at] = format!("127.0.0.1:{port}");
        }
        (self.api_port, self.peer_port) = (api_port, peer_port);
        self.url = format!("http://127.0.0.1:{api_port}");
    }

    /// Has it start with these options instead of those with which it began: it has its identity.
    pub fn set_options(&mut self, options: &[String]) {
        let at =
            self.arguments.iter().position(|argument| argument == "--peer-addr").expect("it has the flag");
        self.arguments.truncate(at + 2);
        self.arguments.extend_from_slice(options);
    }

    /// Has it start with the addresses in its data directory.
    pub fn forget_addresses(&mut self) {
        let at =
            self.arguments.iter().position(|argument| argument == "--api-addr").expect("it has the flag");
        self.arguments.truncate(at);
    }

    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = node.log();
                let lines: Vec<_> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(30)..];
                eprintln!("--- the end of the log of node {}:\n{}", node.id, tail.join("\n"));
            }
        }
    }
}

/// The body of a success, or the problem.
pub async fn parse<T: DeserializeOwned>(response: Response) -> Result<T, String> {
    let (status, url) = (response.status(), response.url().path().to_owned());
    let text = response.text().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{url} answered {status}: {text}"));
    }
    serde_json::from_str(&text).map_err(|error| format!("{url} answered {text}: {error}"))
}

/// A problem document, checked for what all of them have in common.
pub async fn problem(response: Response) -> Problem {
    let status: StatusCode = response.status();
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    assert_eq!(kind, "application/problem+json", "status {status}");
    let problem: Problem = response.json().await.expect("a problem document");
    assert_eq!(problem.status, status.as_u16());
    assert!(!problem.detail.is_empty() && !problem.title.is_empty());
    problem
}
