//! Contention for locks, with everything that goes wrong: holders that are paused for longer than
//! their TTL, leaders that are killed or paused, a wall clock that jumps.
//!
//! Contenders and the resource are processes of their own, so that a pause is a real one. Each writes
//! down what it saw ([`record`]); afterwards it is checked whether that can have been ([`checker`]).

pub mod checker;
mod contenders;
pub mod record;

use crate::cluster::{Cluster, Host, Program};
use checker::Findings;
pub use contenders::{Contenders, Seen};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use record::Deed;
use reqwest::Client;
use ringmaster_common::lock::LockDetail;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};

const NODES: usize = 3;
/// How far the wall clock jumps, as libfaketime reads it.
const JUMP: &str = "+2h";
/// Longer than it takes the others to elect a leader and to grant locks that the paused leader still takes for held.
const LEADER_PAUSE: Duration = Duration::from_secs(2);
/// Longer than any pause takes to come about.
const PAUSE_LIMIT: Duration = Duration::from_secs(60);

/// The plan of a run.
#[derive(Clone, Debug)]
pub struct Contention {
    pub contenders: usize,
    pub locks: usize,
    pub ttl: Duration,
    /// How often a holder is paused for three times the TTL.
    pub pauses: u32,
    /// After so many pauses each, the leader is killed and started again, or paused for longer than an
    /// election takes, in turns.
    pub strike_every: Option<u32>,
    /// Has the leader's wall clock jump each time.
    pub clock_jumps: bool,
    /// Planted: the resource looks at no token.
    pub unchecked_resource: bool,
    /// Planted: the nodes' monotonic clocks run by a quarter too fast, so that leases end a fifth early.
    pub fast_clocks: bool,
}

/// The record of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub pauses: u32,
    pub kills: u32,
    pub leader_pauses: u32,
    pub jumps: u32,
    pub grants: usize,
    pub unknown: usize,
    pub writes: usize,
    /// Writes that the resource refused, for it had seen a higher token.
    pub refused_writes: usize,
    pub findings: Findings,
}

/// The path of libfaketime.
fn faketime() -> PathBuf {
    let places = fs::read_dir("/usr/lib").expect("a system has libraries");
    let candidates = places.flatten().map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    let found = candidates.into_iter().find(|path| path.exists());
    found.expect("libfaketime is not installed (Debian: apt-get install faketime)")
}

impl Contention {
    pub async fn run(&self, program: Program) -> Outcome {
        let mut cluster = Cluster::empty(program);
        let dir = cluster.dir().to_owned();
        for id in 1..=NODES {
            let enter = self.clock(&dir, id);
            let node = cluster.add_on(&Host::default());
            node.enter = enter;
            node.start();
        }
        cluster.wait_formed(NODES as u64).await;

        let contenders =
            Contenders::start(&cluster, self.contenders, self.locks, self.ttl, self.unchecked_resource).await;
        let urls: Vec<_> = cluster.nodes.iter().map(|node| node.url.clone()).collect();
        let pids = contenders.pids();

        let pauses = Arc::new(AtomicU32::new(0));
        let pausers: Vec<_> = (0..self.locks)
            .map(|number| {
                let pauser = Pauser {
                    lock: contenders::lock(number),
                    urls: urls.clone(),
                    pids: pids.clone(),
                    length: self.ttl * 3,
                    wanted: self.pauses,
                    pauses: pauses.clone(),
                };
                tokio::spawn(pauser.run())
            })
            .collect();
        let (mut kills, mut leader_pauses, mut jumps) = (0, 0, 0);
        while !pausers.iter().all(tokio::task::JoinHandle::is_finished) {
            sleep(Duration::from_millis(20)).await;
            let strikes = kills + leader_pauses;
            let due = self
                .strike_every
                .is_some_and(|every| pauses.load(Ordering::Relaxed) >= (strikes + 1) * every);
            if !due {
                continue;
            }
            let leader = cluster.leader().await;
            if self.clock_jumps {
                // One after the other, there and back.
                let clock = if jumps % 2 == 0 { JUMP } else { "+0" };
                fs::write(clock_file(&dir, leader as usize), clock).expect("the file can be written");
                jumps += 1;
                sleep(self.ttl).await;
            }
            let node = cluster.node_mut(leader);
            if strikes % 2 == 0 {
                node.kill();
                kills += 1;
                sleep(self.ttl).await;
                node.start();
            } else {
                node.pause();
                leader_pauses += 1;
                sleep(LEADER_PAUSE).await;
                node.resume();
            }
        }
        for pauser in pausers {
            pauser.await.expect("a pauser does not panic");
        }
        cluster.leader().await;
        let seen = contenders.finish();
        let count = |is: fn(&Deed) -> bool| seen.deeds.iter().flatten().filter(|deed| is(deed)).count();
        Outcome {
            pauses: pauses.load(Ordering::Relaxed),
            kills,
            leader_pauses,
            jumps,
            grants: count(|deed| matches!(deed, Deed::Granted { .. })),
            unknown: count(|deed| matches!(deed, Deed::Unknown { .. })),
            writes: seen.writes.len(),
            refused_writes: seen.writes.iter().filter(|write| !write.accepted).count(),
            findings: checker::check(&seen.deeds, &seen.writes),
        }
    }

    /// The words that a node's command line begins with, which give it its clock.
    fn clock(&self, dir: &Path, id: usize) -> Vec<String> {
        let preload = || format!("LD_PRELOAD={}", faketime().display());
        if self.fast_clocks {
            return vec!["env".to_owned(), preload(), "FAKETIME=+0 x1.25".to_owned()];
        }
        if !self.clock_jumps {
            return Vec::new();
        }
        let file = clock_file(dir, id);
        fs::write(&file, "+0").expect("the file can be written");
        vec![
            "env".to_owned(),
            preload(),
            format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            // Monotonic clocks do not jump.
            "DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }
}

fn clock_file(dir: &Path, id: usize) -> PathBuf {
    dir.join(format!("clock-{id}"))
}

/// Pauses the holder of one lock, again and again.
struct Pauser {
    lock: String,
    urls: Vec<String>,
    pids: Vec<Pid>,
    length: Duration,
    wanted: u32,
    pauses: Arc<AtomicU32>,
}

impl Pauser {
    async fn run(self) {
        let http =
            Client::builder().timeout(Duration::from_secs(1)).build().expect("the client needs nothing");
        let mut last = Instant::now();
        while self.pauses.load(Ordering::Relaxed) < self.wanted {
            assert!(last.elapsed() < PAUSE_LIMIT, "{} has had no holder for {PAUSE_LIMIT:?}", self.lock);
            let Some(holder) = self.holder(&http).await else {
                sleep(Duration::from_millis(5)).await;
                continue;
            };
            let _ = kill(self.pids[holder], Signal::SIGSTOP);
            // It may have passed the lock on before it stopped: that is no pause of a holder.
            let held = self.holder(&http).await == Some(holder);
            if held {
                sleep(self.length).await;
            }
            let _ = kill(self.pids[holder], Signal::SIGCONT);
            if !held {
                continue;
            }
            self.pauses.fetch_add(1, Ordering::Relaxed);
            last = Instant::now();
            // It continues with the work that it finds when it wakes up.
            sleep(self.length / 6).await;
        }
    }

    async fn holder(&self, http: &Client) -> Option<usize> {
        for url in &self.urls {
            let url = format!("{url}/v1/locks/{}?consistency=stale", self.lock);
            let Ok(response) = http.get(url).send().await else { continue };
            let Ok(detail) = response.json::<LockDetail>().await else { continue };
            let owner = detail.lock.holders.first()?.owner.clone();
            return owner.strip_prefix("contender-")?.parse().ok();
        }
        None
    }
}
