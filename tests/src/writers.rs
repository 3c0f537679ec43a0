//! Clients that write all the while, and remember what was acknowledged.
//!
//! A write that timed out, or whose answer was lost, is *unknown*: it may be there or not. Only what
//! was acknowledged must be there.

use crate::cluster::Cluster;
use reqwest::{Client, StatusCode};
use ringmaster_common::setting::Setting;
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// How long a writer waits for one answer, by default.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many keys each writer goes round.
const KEYS: u64 = 8;
/// How often [`Writers::first_after`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Writers that run until they are stopped.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    acks: Acks,
    tasks: Vec<JoinHandle<Record>>,
}

/// When an acknowledged write was begun, and when its acknowledgement came.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub begun: Instant,
    pub came: Instant,
}

type Acks = Arc<Mutex<Vec<Ack>>>;

/// The writes of all writers, and their outcomes.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The last acknowledged value of each key.
    pub acknowledged: BTreeMap<String, u64>,
    /// Values whose fate is unknown. One may take effect late, even after a later one was acknowledged.
    pub unknown: BTreeMap<String, Vec<u64>>,
    pub acknowledgements: u64,
    pub unknowns: u64,
    /// The longest time between two acknowledgements.
    pub longest_gap: Duration,
}

impl Writers {
    /// Each writer has its own keys, and writes growing numbers to each of them.
    pub fn start(cluster: &Cluster, count: usize) -> Writers {
        Writers::start_patient(cluster, count, WRITE_TIMEOUT)
    }

    /// The same, where a writer turns to the next node if one does not answer for so long.
    pub fn start_patient(cluster: &Cluster, count: usize, patience: Duration) -> Writers {
        let (stop, acks) = (Arc::new(AtomicBool::new(false)), Acks::default());
        let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url.clone()).collect();
        let start = |writer| write(writer, patience, urls.clone(), stop.clone(), acks.clone());
        let tasks = (0..count).map(|writer| tokio::spawn(start(writer))).collect();
        Writers { stop, acks, tasks }
    }

    /// The first acknowledgement of a write that was begun after `instant`: of one that was begun
    /// before, it is unknown on which side of it the write took effect.
    pub async fn first_after(&self, instant: Instant, within: Duration) -> Option<Ack> {
        let first = || {
            let acks = lock(&self.acks);
            let since = acks.iter().rev().take_while(|ack| ack.came > instant);
            since.filter(|ack| ack.begun > instant).last().copied()
        };
        let found = timeout(within, async {
            loop {
                if let Some(ack) = first() {
                    return ack;
                }
                sleep(LOOK_EVERY).await;
            }
        });
        found.await.ok()
    }

    /// The longest time without any acknowledgement, from the last before `instant` up to now.
    pub fn longest_gap_since(&self, instant: Instant) -> Duration {
        let acks = lock(&self.acks);
        let mut longest = Duration::ZERO;
        let mut after = Instant::now();
        for ack in acks.iter().rev() {
            longest = longest.max(after - ack.came);
            if ack.came <= instant {
                break;
            }
            after = ack.came;
        }
        longest
    }

    pub async fn stop(self) -> Record {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Record::default();
        for task in self.tasks {
            all.add(task.await.expect("a writer does not panic"));
        }
        all
    }
}

async fn write(
    writer: usize,
    patience: Duration,
    urls: Vec<String>,
    stop: Arc<AtomicBool>,
    acks: Acks,
) -> Record {
    let http = Client::builder().timeout(patience).build().expect("the client needs nothing");
    let mut record = Record::default();
    let mut last = Instant::now();
    let mut target = writer;
    for value in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("writer-{writer}/{}", value % KEYS);
        let url = format!("{}/v1/settings/{key}", urls[target % urls.len()]);
        let begun = Instant::now();
        match http.put(url).json(&json!({ "value": value })).send().await {
            Ok(response) if response.status().is_success() => {
                record.longest_gap = record.longest_gap.max(last.elapsed());
                last = acknowledged(&acks, begun);
                record.acknowledge(key, value);
            }
            Ok(response) if is_certain_failure(response.status()) => {
                panic!("a write was refused: {:?}", response.text().await)
            }
            Ok(_) | Err(_) => {
                record.lose_track(key, value);
                target += 1;
            }
        }
    }
    record
}

/// Remembered under the lock, so that acknowledgements are in the order in which they came.
fn acknowledged(acks: &Acks, begun: Instant) -> Instant {
    let mut acks = lock(acks);
    let came = Instant::now();
    acks.push(Ack { begun, came });
    came
}

fn lock(acks: &Acks) -> MutexGuard<'_, Vec<Ack>> {
    acks.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_certain_failure(status: StatusCode) -> bool {
    status.is_client_error()
}

impl Record {
    /// Takes in what another writer did, to other keys.
    pub fn add(&mut self, other: Record) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.acknowledgements += other.acknowledgements;
        self.unknowns += other.unknowns;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }

    fn acknowledge(&mut self, key: String, value: u64) {
        self.acknowledgements += 1;
        self.acknowledged.insert(key, value);
    }

    /// Not answered, or answered that the outcome is unknown: it may be there all the same.
    fn lose_track(&mut self, key: String, value: u64) {
        self.unknowns += 1;
        self.unknown.entry(key).or_default().push(value);
    }

    /// Writes once, and returns whether that was acknowledged.
    pub async fn put(&mut self, cluster: &Cluster, node: u64, key: &str, value: u64) -> bool {
        let acknowledged = cluster.put_setting(node, key, json!(value)).await.is_ok();
        if acknowledged {
            self.acknowledge(key.to_owned(), value);
        } else {
            self.lose_track(key.to_owned(), value);
        }
        acknowledged
    }

    /// Acknowledged writes that are not on this node, and were not overwritten by one whose fate was
    /// unknown: a sentence for each.
    pub async fn losses(&self, cluster: &Cluster, node: u64) -> Vec<String> {
        let mut losses = Vec::new();
        for (key, value) in &self.acknowledged {
            let path = format!("/v1/settings/{key}?consistency=stale");
            let found = match cluster.get::<Setting>(node, &path).await {
                Ok(setting) => setting.value.as_u64(),
                Err(why) => {
                    losses.push(format!("node {node} lost {key} = {value}: {why}"));
                    continue;
                }
            };
            let unknown = self.unknown.get(key).map(Vec::as_slice).unwrap_or_default();
            if found != Some(*value) && !unknown.iter().any(|value| found == Some(*value)) {
                losses.push(format!(
                    "node {node} has {key} = {found:?}; {value} was acknowledged, and {unknown:?} are unknown"
                ));
            }
        }
        losses
    }

    /// Fails if an acknowledged write is lost on this node.
    pub async fn check(&self, cluster: &Cluster, node: u64) {
        let losses = self.losses(cluster, node).await;
        assert!(losses.is_empty(), "{}", losses.join("\n"));
    }
}
