//! Every fault that the tests know, at random, one after the other, while clients write and read registers and contend for
//! locks. Afterwards it is checked whether what all of them saw can have been.

use crate::{
    NODES,
    report::{Report, Times},
};
use nix::sys::signal::{Signal, kill};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ringmaster_common::{
    action::Action,
    cluster::NodeStatus,
    id::{GroupId, NodeId},
};
use ringmaster_tests::{
    cluster::{Cluster, Program},
    contention::{Contenders, checker as lock_checker, record::Deed},
    copies::Copies,
    network::Network,
    registers::{Registers, checker},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::{task::block_in_place, time::sleep};

const REGISTERS: u64 = 5;
const REGISTER_CLIENTS: u64 = 8;
const CONTENDERS: usize = 6;
const LOCKS: usize = 2;
const TTL: Duration = Duration::from_millis(500);
/// How long a node may take to say that it has lost entries, or to have them again.
const NOTICE_WITHIN: Duration = Duration::from_secs(2);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(20);
/// The words in a node's log by which it says so.
const LOST: &str = "this node has lost log entries that it had acknowledged";
const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::Pause,
    Fault::CutOff,
    Fault::LoseOneWay,
    Fault::Transfer,
    Fault::Term,
    Fault::PauseHolder,
    Fault::PutBack,
];

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 15)]
    minutes: u64,
    /// Of the faults and the times between them [default: chosen at random, and printed]
    #[arg(long)]
    seed: Option<u64>,
    /// The faults [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Fault {
    /// kill -9 of a node
    Kill,
    /// A node stands still for up to 3 s
    Pause,
    /// A node is cut off from everybody for 0.4 to 1 s
    CutOff,
    /// What one node sends to another gets lost for 0.4 to 1 s
    LoseOneWay,
    /// The leadership is transferred
    Transfer,
    /// SIGTERM of a node
    Term,
    /// A client that may hold a lock stands still for three times its TTL
    PauseHolder,
    /// A follower's data directory is put back to an older copy
    PutBack,
}

struct Chaos<'a> {
    cluster: Cluster,
    network: &'a Network,
    contenders: Contenders,
    copies: Copies,
    random: StdRng,
    /// How long followers that were put back took to say so.
    notices: Vec<Duration>,
    /// Those that had it all again before they could say so.
    unnoticed: u32,
}

pub async fn run(program: &Program, arguments: &Arguments) -> Result<Report, String> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    eprintln!("--seed {seed}");
    let network = Network::create(NODES)?;
    let cluster = Cluster::start_on(program.clone(), &network.hosts()).await;
    let contenders = Contenders::start(&cluster, CONTENDERS, LOCKS, TTL, false).await;
    let registers = Registers::start(&cluster, REGISTERS, REGISTER_CLIENTS);
    let mut chaos = Chaos {
        cluster,
        network: &network,
        contenders,
        copies: Copies::default(),
        random: StdRng::seed_from_u64(seed),
        notices: Vec::new(),
        unnoticed: 0,
    };
    let faults = if arguments.faults.is_empty() { FAULTS.to_vec() } else { arguments.faults.clone() };
    if faults.contains(&Fault::PutBack) {
        chaos.copy().await;
    }
    let mut counts: BTreeMap<Fault, u32> = BTreeMap::new();
    let end = Instant::now() + Duration::from_secs(60 * arguments.minutes);
    while Instant::now() < end {
        sleep(chaos.between(500, 3_000)).await;
        let fault = faults[chaos.random.random_range(0..faults.len())];
        chaos.strike(fault).await?;
        let count = counts.entry(fault).or_default();
        *count += 1;
        eprintln!(
            "{:>4} s left: {fault:?}, for the {count}. time",
            end.saturating_duration_since(Instant::now()).as_secs()
        );
    }
    chaos.cluster.wait_healthy().await;
    sleep(Duration::from_secs(1)).await;
    let calls = registers.stop().await;
    let Chaos { cluster, contenders, notices, unnoticed, .. } = chaos;
    let seen = contenders.finish();
    let found = checker::check(&calls);
    let locks = lock_checker::check(&seen.deeds, &seen.writes);
    ringmaster_tests::stream::agreement(&cluster).await;

    let mut report = Report::new(format!("Chaos for {} minutes, seed {seed}", arguments.minutes));
    let reads = calls.iter().filter(|call| matches!(call, checker::Call::Read { .. })).count();
    let unanswered =
        calls.iter().filter(|call| matches!(call, checker::Call::Write { ended: None, .. })).count();
    let grants = seen.deeds.iter().flatten().filter(|deed| matches!(deed, Deed::Granted { .. })).count();
    for (fault, count) in &counts {
        report.note(format!("{fault:?}: {count}"));
    }
    let notices = Times::new(notices);
    report.row(vec![
        ("faults", json!(counts.values().sum::<u32>())),
        ("writes", json!(calls.len() - reads)),
        ("unanswered", json!(unanswered)),
        ("reads", json!(reads)),
        ("grants", json!(grants)),
        ("resource writes", json!(seen.writes.len())),
        ("said to have lost entries after, p50 s", json!(notices.quantile(0.5).as_secs_f64())),
        ("max s", json!(notices.quantile(1.0).as_secs_f64())),
        ("had them before", json!(unnoticed)),
    ]);
    report.check(
        "seconds until a node says that it has lost entries",
        notices.quantile(1.0).as_secs_f64(),
        NOTICE_WITHIN.as_secs_f64(),
    );
    let kinds = [
        ("contradictions in the history of registers", &found),
        ("holders that overlap", &locks.overlaps),
        ("tokens out of order", &locks.disorder),
        ("refusals without ground", &locks.groundless),
        ("stale writes that were taken", &locks.stale_writes),
    ];
    for (what, found) in kinds {
        report.check(what, found.len() as f64, 0.0);
        for finding in found {
            report.note(finding);
        }
    }
    Ok(report)
}

impl Chaos<'_> {
    fn between(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(self.random.random_range(least_ms..=most_ms))
    }

    fn any_node(&mut self) -> u64 {
        self.random.random_range(1..=NODES as u64)
    }

    /// One fault, from its beginning to its end. The cluster need not be whole again after it.
    async fn strike(&mut self, fault: Fault) -> Result<(), String> {
        let node = self.any_node();
        match fault {
            Fault::Kill => {
                block_in_place(|| self.cluster.node_mut(node).kill());
                sleep(self.between(0, 2_000)).await;
                self.cluster.node_mut(node).start();
            }
            Fault::Term => {
                block_in_place(|| self.cluster.node_mut(node).terminate());
                sleep(self.between(0, 1_000)).await;
                self.cluster.node_mut(node).start();
            }
            Fault::Pause => {
                self.cluster.node_mut(node).pause();
                sleep(self.between(100, 3_000)).await;
                self.cluster.node_mut(node).resume();
            }
            Fault::CutOff => {
                self.network.cut_off(node)?;
                sleep(self.between(400, 1_000)).await;
                self.network.heal(node)?;
            }
            Fault::LoseOneWay => {
                let to = node % NODES as u64 + 1;
                self.network.lose(node, to)?;
                sleep(self.between(400, 1_000)).await;
                self.network.unmute(node)?;
            }
            Fault::Transfer => self.transfer(node).await,
            Fault::PauseHolder => {
                let pids = self.contenders.pids();
                let pid = pids[self.random.random_range(0..pids.len())];
                kill(pid, Signal::SIGSTOP).map_err(|error| error.to_string())?;
                sleep(TTL * 3).await;
                kill(pid, Signal::SIGCONT).map_err(|error| error.to_string())?;
            }
            Fault::PutBack => self.put_back().await?,
        }
        Ok(())
    }

    /// It may fail where another fault has just passed.
    async fn transfer(&mut self, to: u64) {
        let action = Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(to) };
        if let Ok(plan) = self.cluster.plan(to, &action).await
            && let Err(why) = self.cluster.apply(to, &plan).await
        {
            eprintln!("no transfer: {why}");
        }
    }

    /// A copy of each node's data directory, one after the other.
    async fn copy(&mut self) {
        for node in 1..=NODES as u64 {
            self.cluster.wait_healthy().await;
            block_in_place(|| self.cluster.node_mut(node).terminate());
            self.copies.take(&self.cluster, node);
            self.cluster.node_mut(node).start();
        }
        self.cluster.wait_healthy().await;
    }

    /// A follower, while the others are whole: Raft promises nothing where a majority forgets.
    async fn put_back(&mut self) -> Result<(), String> {
        let leader = self.cluster.wait_healthy().await;
        let node = leader % NODES as u64 + 1;
        block_in_place(|| self.cluster.node_mut(node).terminate());
        self.copies.put_back(&self.cluster, node);
        let said_before = self.cluster.node(node).log().matches(LOST).count();
        self.cluster.node_mut(node).start();
        let started = Instant::now();
        let is_ready = async |cluster: &Cluster| {
            let answer = cluster.send(node, hyper::Method::GET, "/readyz", None).await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        loop {
            if self.cluster.node(node).log().matches(LOST).count() > said_before {
                self.notices.push(started.elapsed());
                break;
            }
            if is_ready(&self.cluster).await {
                self.unnoticed += 1;
                break;
            }
            if started.elapsed() > CATCH_UP_WITHIN {
                return Err(format!(
                    "node {node} was put back and is not ready:\n{}",
                    self.cluster.node(node).log()
                ));
            }
            sleep(ASK_EVERY).await;
        }
        while !is_ready(&self.cluster).await {
            if started.elapsed() > CATCH_UP_WITHIN {
                return Err(format!("node {node} does not catch up:\n{}", self.cluster.node(node).log()));
            }
            sleep(ASK_EVERY).await;
        }
        self.cluster.wait_status(leader, node, NodeStatus::Up).await;
        // The next faults may be anywhere: its own log has to be enough.
        let (leader, other) = (self.cluster.leader().await, self.any_node());
        if other == leader {
            block_in_place(|| self.cluster.node_mut(leader).kill());
            sleep(self.between(500, 1_500)).await;
            self.cluster.node_mut(leader).start();
        }
        Ok(())
    }
}
