//! Clients that write all the while, and remember what was acknowledged.
//!
//! A write that timed out, or whose answer was lost, is *unknown*: it may be there or not. Only what
//! was acknowledged must be there.

use crate::cluster::Cluster;
use reqwest::{Client, StatusCode};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// How long a writer waits for one answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many keys each writer goes round.
const KEYS: u64 = 8;

/// Writers that run until they are stopped.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Record>>,
}

/// What writers did, and what came of it.
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
        let stop = Arc::new(AtomicBool::new(false));
        let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url.clone()).collect();
        let tasks =
            (0..count).map(|writer| tokio::spawn(write(writer, urls.clone(), stop.clone()))).collect();
        Writers { stop, tasks }
    }

    pub async fn stop(self) -> Record {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Record::default();
        for task in self.tasks {
            let one = task.await.expect("a writer does not panic");
            all.acknowledged.extend(one.acknowledged);
            all.unknown.extend(one.unknown);
            all.acknowledgements += one.acknowledgements;
            all.unknowns += one.unknowns;
            all.longest_gap = all.longest_gap.max(one.longest_gap);
        }
        all
    }
}

async fn write(writer: usize, urls: Vec<String>, stop: Arc<AtomicBool>) -> Record {
    let http = Client::builder().timeout(WRITE_TIMEOUT).build().expect("the client needs nothing");
    let mut record = Record::default();
    let mut last = Instant::now();
    let mut target = writer;
    for value in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("writer-{writer}/{}", value % KEYS);
        let url = format!("{}/v1/settings/{key}", urls[target % urls.len()]);
        match http.put(url).json(&json!({ "value": value })).send().await {
            Ok(response) if response.status().is_success() => {
                record.longest_gap = record.longest_gap.max(last.elapsed());
                last = Instant::now();
                record.acknowledgements += 1;
                record.acknowledged.insert(key, value);
            }
            Ok(response) if is_certain_failure(response.status()) => {
                panic!("a write was refused: {:?}", response.text().await)
            }
            // Not answered, or answered that the outcome is unknown: it may be there all the same.
            Ok(_) | Err(_) => {
                record.unknowns += 1;
                record.unknown.entry(key).or_default().push(value);
                target += 1;
            }
        }
    }
    record
}

fn is_certain_failure(status: StatusCode) -> bool {
    status.is_client_error()
}

impl Record {
    /// Every acknowledged write is on this node, or was overwritten by one whose fate was unknown.
    pub async fn check(&self, cluster: &Cluster, node: u64) {
        for (key, value) in &self.acknowledged {
            let setting: ringmaster_common::setting::Setting = cluster
                .get(node, &format!("/v1/settings/{key}?consistency=stale"))
                .await
                .unwrap_or_else(|why| panic!("node {node} lost {key} = {value}: {why}"));
            let found = setting.value.as_u64();
            let unknown =
                self.unknown.get(key).is_some_and(|values| values.iter().any(|value| found == Some(*value)));
            assert!(
                found == Some(*value) || unknown,
                "node {node} has {key} = {found:?}; {value} was acknowledged, and {:?} are unknown",
                self.unknown.get(key)
            );
        }
    }
}
