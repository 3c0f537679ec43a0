//! The node processes of a demo: start, signal, wait.
//!
//! One task both waits for a process and signals it, so a signal never reaches another process that
//! reuses the id of a node that has ended.

use super::home::Home;
use futures::future::select_all;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ringmaster_common::{
    cluster::MAX_NODES,
    demo::{Chaos, DemoNode, ProcessState},
    error::{Code, Refusal},
    id::NodeId,
};
use ringmaster_servers::demo_child;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// How long nodes may take to stop before they are killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the kernel may take to end a killed process.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// The zones, assigned to nodes in turn.
const ZONES: [&str; 3] = ["a", "b", "c"];

/// How to start a process of the demo.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// This program.
    pub program: PathBuf,
    pub environment: Vec<(&'static str, String)>,
}

impl Launcher {
    /// A command of this program that appends its output to `log`. The child can tie itself to this
    /// process ([`demo_child::die_with_supervisor`]).
    pub fn command(&self, log: &Path) -> io::Result<Command> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&self.program);
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(demo_child::SUPERVISOR, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C on the terminal reaches only the supervisor.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }
}

#[derive(Debug)]
pub struct Fleet {
    launcher: Launcher,
    home: Home,
    /// Every node that was ever started; `None` if its process has ended.
    nodes: BTreeMap<NodeId, Option<Process>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    pid: Pid,
    paused: bool,
}

impl Fleet {
    pub fn new(launcher: Launcher, home: Home) -> Fleet {
        Fleet { launcher, home, nodes: BTreeMap::new() }
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    pub fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    pub fn is_dead(&self) -> bool {
        self.nodes.values().all(Option::is_none)
    }

    /// The id of the next node.
    pub fn next_id(&self) -> Result<NodeId, Refusal> {
        let last = self.nodes.keys().next_back().map_or(0, |id| id.0);
        if last >= MAX_NODES as u64 {
            return Err(Refusal::new(Code::LimitReached, format!("a demo has at most {MAX_NODES} nodes")));
        }
        Ok(NodeId(last + 1))
    }

    /// Starts a node that is not running.
    pub fn start(&mut self, id: NodeId) -> io::Result<()> {
        fs::create_dir_all(self.home.node(id))?;
        let child = self.launcher.command(&self.home.log(id))?.args(self.flags(id)).spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it has not been waited for");
        self.nodes.insert(id, Some(Process { child, pid: Pid::from_raw(pid), paused: false }));
        Ok(())
    }

    /// The flags of `ringmaster serve` for the node.
    fn flags(&self, id: NodeId) -> Vec<String> {
        let ports = self.home.ports(id);
        let zone = ZONES[usize::try_from(id.0 - 1).expect("a demo has few nodes") % ZONES.len()];
        let mut flags: Vec<String> = vec![
            "serve".to_owned(),
            format!("--id={id}"),
            format!("--data-dir={}", self.home.node(id).display()),
            format!("--api-addr=127.0.0.1:{}", ports.api),
            format!("--peer-addr=127.0.0.1:{}", ports.peer),
            format!("--proxy-addr=127.0.0.1:{}", ports.proxy),
            format!("--zone={zone}"),
            "--cluster-name=demo".to_owned(),
        ];
        // The first node creates the cluster, unless it has lost its data while the others have kept theirs.
        if id == NodeId(1) && (self.home.has_identity(id) || self.home.known_nodes() == 0) {
            flags.push("--bootstrap".to_owned());
        } else {
            let others = (1..=MAX_NODES as u64).map(NodeId).filter(|other| *other != id);
            let known =
                others.filter(|other| self.nodes.contains_key(other) || self.home.has_identity(*other));
            flags.extend(known.map(|other| format!("--join={}", self.home.ports(other).url())));
        }
        flags
    }

    /// Applies chaos to a node.
    pub async fn inflict(&mut self, id: NodeId, chaos: Chaos) -> Result<DemoNode, Refusal> {
        let failed = |why: String| Refusal::new(Code::DemoFailed, why);
        let Some(slot) = self.nodes.get_mut(&id) else {
            let known: Vec<_> = self.nodes.keys().map(NodeId::to_string).collect();
            let known = known.join(", ");
            return Err(Refusal::new(
                Code::UnknownNode,
                format!("node {id} is not part of this demo; its nodes are {known}"),
            ));
        };
        match (chaos, slot.as_mut()) {
            (Chaos::Restart, None) => {}
            (Chaos::Kill | Chaos::Pause | Chaos::Resume, None) => {
                return Err(failed(format!("node {id} is not running; restart it first")));
            }
            (Chaos::Kill | Chaos::Restart, Some(process)) => {
                process.signal(Signal::SIGKILL).map_err(failed)?;
                timeout(KILL_TIMEOUT, process.child.wait())
                    .await
                    .map_err(|_| failed(format!("node {id} has not ended after SIGKILL")))?
                    .map_err(|error| failed(format!("cannot wait for node {id}: {error}")))?;
                *slot = None;
            }
            (Chaos::Pause, Some(process)) => {
                process.signal(Signal::SIGSTOP).map_err(failed)?;
                process.paused = true;
            }
            (Chaos::Resume, Some(process)) => {
                process.signal(Signal::SIGCONT).map_err(failed)?;
                process.paused = false;
            }
        }
        if chaos == Chaos::Restart {
            self.start(id).map_err(|error| failed(format!("cannot start node {id}: {error}")))?;
        }
        Ok(self.show(id))
    }

    /// Waits until a process ends unexpectedly.
    ///
    /// Dropping the future loses no exit.
    pub async fn next_exit(&mut self) -> (NodeId, ExitStatus) {
        loop {
            let exits: Vec<_> = self
                .nodes
                .iter_mut()
                .filter_map(|(id, slot)| slot.as_mut().map(|process| (*id, process)))
                .map(|(id, process)| Box::pin(async move { (id, process.child.wait().await) }))
                .collect();
            if exits.is_empty() {
                std::future::pending::<()>().await;
            }
            let ((id, status), ..) = select_all(exits).await;
            self.nodes.insert(id, None);
            match status {
                Ok(status) => return (id, status),
                Err(error) => tracing::error!(node = %id, %error, "cannot wait for the process"),
            }
        }
    }

    /// Stops all nodes, and kills the rest after [`STOP_TIMEOUT`] or when `hurry` completes.
    pub async fn stop(&mut self, hurry: impl Future<Output = ()>) {
        for process in self.nodes.values_mut().flatten() {
            // A paused process handles SIGTERM only after SIGCONT.
            let sent = process.signal(Signal::SIGTERM).and_then(|()| process.signal(Signal::SIGCONT));
            if let Err(why) = sent {
                tracing::error!(why);
            }
        }
        let mut hurry = pin!(hurry);
        let mut deadline = pin!(sleep(STOP_TIMEOUT));
        while !self.is_dead() {
            tokio::select! {
                _ = self.next_exit() => {}
                () = &mut hurry => break,
                () = &mut deadline => break,
            }
        }
        for (id, slot) in &mut self.nodes {
            if let Some(process) = slot
                && let Err(error) = process.child.kill().await
            {
                tracing::error!(node = %id, %error, "cannot kill the process");
            }
        }
    }

    pub fn list(&self) -> Vec<DemoNode> {
        self.nodes.keys().map(|id| self.show(*id)).collect()
    }

    pub fn show(&self, id: NodeId) -> DemoNode {
        let process = self.nodes.get(&id).and_then(Option::as_ref);
        DemoNode {
            node: id,
            state: match process {
                None => ProcessState::Exited,
                Some(process) if process.paused => ProcessState::Paused,
                Some(_) => ProcessState::Running,
            },
            pid: process.map(|process| process.pid.as_raw().cast_unsigned()),
            url: self.home.ports(id).url(),
        }
    }
}

impl Process {
    fn signal(&self, signal: Signal) -> Result<(), String> {
        kill(self.pid, signal)
            .map_err(|error| format!("cannot send {signal} to process {}: {error}", self.pid))
    }
}

#[cfg(test)]
mod tests;
