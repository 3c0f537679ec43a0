//! A node that is killed at its k-th fsync, for every k.
//!
//! `strace` kills it as it enters the call. It counts the calls of each thread separately, and the node
//! has two ways to disk: the journal (votes, entries, membership), which calls `fdatasync` on one
//! thread of its own, and whole files (identity, new segments, snapshots), which call `fsync`. So
//! either is counted alone. After each kill the node is started again without `strace`, and must have
//! everything that was acknowledged.

use crate::{
    SOON,
    cluster::{Cluster, Host, Program},
    eventually,
    process::Process,
    writers::Record,
};
use futures::future::join_all;
use nix::{sys::signal::Signal, unistd::Pid};
use ringmaster_common::{
    action::Action,
    id::{GroupId, NodeId},
};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// How many writes a run makes where it counts no other work.
const WRITES: u64 = 12;
/// How many clients write for a snapshot, which takes thousands of entries.
const CLIENTS: u64 = 64;
/// After how many entries the node takes a snapshot then.
const SNAPSHOT_EVERY: &str = "--snapshot-every=5000";
/// A snapshot has come before each of the clients has written so often.
const WRITES_FOR_A_SNAPSHOT: u64 = 400;
/// How long `strace` may take to attach.
const ATTACH: Duration = Duration::from_secs(10);

/// The work of the node when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Its first start: the files that say who it is.
    Birth,
    /// Votes, the first membership, entries: the journal of a node alone.
    Append,
    /// A second node becomes a learner, then a voter.
    Membership,
    /// A follower: it appends, is elected, leads, and hands over.
    Vote,
    /// A snapshot is taken.
    Snapshot,
}

/// The outcome of one run.
#[derive(Clone, Debug)]
pub struct Crash {
    /// False if the work was done before there was a k-th call.
    pub killed: bool,
    pub acknowledged: u64,
    /// A sentence for each acknowledged write that is not there.
    pub losses: Vec<String>,
}

impl Work {
    pub const ALL: [Work; 5] = [Work::Birth, Work::Append, Work::Membership, Work::Vote, Work::Snapshot];

    fn call(self) -> &'static str {
        match self {
            Work::Birth | Work::Snapshot => "fsync",
            Work::Append | Work::Membership | Work::Vote => "fdatasync",
        }
    }

    /// The words before a command that kill it at the `nth` call.
    fn strace(self, nth: u32) -> Vec<String> {
        let call = self.call();
        [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &format!("inject={call}:signal=KILL:when={nth}"),
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// Whether `strace` is there.
pub fn check_strace() -> Result<(), String> {
    let version = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match version {
        Ok(status) if status.success() => Ok(()),
        _ => Err("strace is missing; install it (Debian: apt-get install strace)".to_owned()),
    }
}

/// Runs the work with a kill at the `nth` call, in a cluster of its own. The node that is killed is
/// node 1, or node 2 of three for [`Work::Vote`].
pub async fn crash(mut program: Program, work: Work, nth: u32) -> Crash {
    if work == Work::Snapshot {
        program.options.push(SNAPSHOT_EVERY.to_owned());
    }
    let mut cluster = match work {
        Work::Vote => Cluster::start_on(program, &[Host::default(), Host::default(), Host::default()]).await,
        _ => Cluster::empty(program),
    };
    let mut record = Record::default();
    let victim = if work == Work::Vote { 2 } else { 1 };
    match work {
        Work::Birth | Work::Append => {
            cluster.add_on(&Host { enter: work.strace(nth), ..Host::default() }).start();
            write_until_dead(&mut cluster, victim, &mut record).await;
        }
        Work::Membership => {
            cluster.add();
            cluster.wait_formed(1).await;
            restart_traced(&mut cluster, victim, work, nth);
            cluster.add();
            write_until_dead(&mut cluster, victim, &mut record).await;
            // It has joined, or waits for node 1 to come back.
            settle(&mut cluster, victim).await;
        }
        Work::Vote => {
            move_to(&cluster, 1).await;
            restart_traced(&mut cluster, victim, work, nth);
            lead_for_a_while(&mut cluster, victim, &mut record).await;
        }
        Work::Snapshot => {
            cluster.add();
            cluster.wait_formed(1).await;
            take_a_snapshot(&mut cluster, work, nth, &mut record).await;
        }
    }

    let killed = !ended_well(&mut cluster, victim);
    let node = cluster.node_mut(victim);
    node.kill();
    node.enter.clear();
    node.start();
    cluster.wait_formed(cluster.nodes.len() as u64).await;
    cluster.wait_level().await;
    let mut losses = Vec::new();
    for node in &cluster.nodes {
        losses.extend(record.losses(&cluster, node.id).await);
    }
    Crash { killed, acknowledged: record.acknowledgements, losses }
}

/// Stops a node, and starts it again under `strace`.
fn restart_traced(cluster: &mut Cluster, node: u64, work: Work, nth: u32) {
    let node = cluster.node_mut(node);
    tokio::task::block_in_place(|| node.terminate());
    node.enter = work.strace(nth);
    node.start();
}

/// Stops the node, unless it is dead: its background work has fsyncs, too.
fn ended_well(cluster: &mut Cluster, node: u64) -> bool {
    let process = cluster.node_mut(node).process();
    if process.running() {
        process.signal(Signal::SIGTERM);
    }
    tokio::task::block_in_place(|| process.wait(SOON)).success()
}

/// One write after the other, until all are acknowledged or the node has died.
async fn write_until_dead(cluster: &mut Cluster, node: u64, record: &mut Record) {
    let mut value = 0;
    eventually("the writes to be done, or the node to die", SOON, async || {
        while cluster.node_mut(node).process().running() && value < WRITES {
            if record.put(cluster, node, "crash/one", value).await {
                value += 1;
            } else {
                return Err(format!("{value} of {WRITES} are written"));
            }
        }
        Ok(())
    })
    .await;
}

/// Waits until the second node votes or the first has died.
async fn settle(cluster: &mut Cluster, node: u64) {
    let nodes = cluster.nodes.len();
    eventually("the second node to vote, or the first to die", SOON, async || {
        if !cluster.node_mut(node).process().running() {
            return Ok(());
        }
        let body = cluster.cluster(node).await?;
        let voting = body.nodes.iter().filter(|info| info.node.voter).count();
        if voting == nodes { Ok(()) } else { Err(format!("{voting} of {nodes} vote")) }
    })
    .await;
}

/// The node catches up, leads, writes, and hands over; or dies on the way.
async fn lead_for_a_while(cluster: &mut Cluster, node: u64, record: &mut Record) {
    for value in 0..WRITES {
        record.put(cluster, 1, "crash/follower", value).await;
    }
    move_to(cluster, node).await;
    for value in 0..WRITES {
        record.put(cluster, 1, "crash/leader", value).await;
    }
    move_to(cluster, 1).await;
    for value in 0..WRITES {
        record.put(cluster, 1, "crash/after", value).await;
    }
}

/// Asks for leadership to move. That it may be refused or fail is part of the run: the target may be
/// dead by now.
async fn move_to(cluster: &Cluster, to: u64) {
    let leader = cluster.leader_of(1).await;
    if leader == to {
        return;
    }
    let action = Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(to) };
    let plan = match cluster.plan(1, &action).await {
        Ok(plan) if plan.blockers.is_empty() => plan,
        _ => return,
    };
    if let Ok(operation) = cluster.apply(1, &plan).await {
        cluster.outcome(1, &operation).await;
    }
}

/// Writes until there is a new snapshot or the node has died.
async fn take_a_snapshot(cluster: &mut Cluster, work: Work, nth: u32, record: &mut Record) {
    let snapshots = cluster.data_dir(1).join("snapshots");
    let (before, pid) = (files(&snapshots), cluster.node_mut(1).process().pid());
    // To trace it from its start would count what it does at its start, on another thread.
    let tracer = attach(cluster, work, nth, pid).await;
    let (shared, snapshots) = (&*cluster, &snapshots);
    let write = |client: u64| {
        let before = &before;
        async move {
            let mut record = Record::default();
            for value in 0..WRITES_FOR_A_SNAPSHOT {
                let written = record.put(shared, 1, &format!("crash/{client}"), value).await;
                if !written || files(snapshots) != *before {
                    break;
                }
            }
            record
        }
    };
    for one in join_all((0..CLIENTS).map(write)).await {
        record.add(one);
    }
    eventually("a snapshot, or the node's death", SOON, async || {
        let done = files(snapshots).iter().any(|name| name.ends_with(".snap") && !before.contains(name));
        let dead = !cluster.node_mut(1).process().running();
        if done || dead { Ok(()) } else { Err("neither".to_owned()) }
    })
    .await;
    drop(tracer);
}

async fn attach(cluster: &Cluster, work: Work, nth: u32, pid: Pid) -> Process {
    let [first, rest @ ..] = &work.strace(nth)[..] else { unreachable!("there is a first word") };
    let mut command = Command::new(first);
    command.args(rest).args(["-p", &pid.to_string()]);
    let tracer = Process::start(&mut command, &cluster.dir().join("strace.log"));
    let traced = format!("/proc/{pid}/status");
    eventually("strace to attach", ATTACH, async || {
        let status = std::fs::read_to_string(&traced).map_err(|error| error.to_string())?;
        let line = status.lines().find(|line| line.starts_with("TracerPid:")).unwrap_or_default();
        if line.ends_with("\t0") { Err(tracer.output()) } else { Ok(()) }
    })
    .await;
    tracer
}

/// The names in a directory.
fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}
