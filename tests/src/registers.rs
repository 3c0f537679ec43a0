//! Clients that write and read a few registers all the while, through any node, and write down what they saw.
//!
//! A register is a setting. Each write has a value of its own, so that a read says which write it saw. Afterwards
//! [`checker`] says whether the history is linearizable.

pub mod checker;

use crate::{cluster::Cluster, contention::record::Moment};
use checker::Call;
use rand::RngExt;
use reqwest::{Client, StatusCode};
use ringmaster_common::setting::Setting;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinHandle, time::sleep};

/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long it waits where it was refused.
const PAUSE: Duration = Duration::from_millis(10);

/// Clients that run until they are stopped.
#[derive(Debug)]
pub struct Registers {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Call>>>,
}

impl Registers {
    pub fn start(cluster: &Cluster, registers: u64, clients: u64) -> Registers {
        let stop = Arc::new(AtomicBool::new(false));
        let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url.clone()).collect();
        let start = |client| tokio::spawn(run(client, registers, urls.clone(), stop.clone()));
        let clients = (0..clients).map(start).collect();
        Registers { stop, clients }
    }

    /// What all of them saw.
    pub async fn stop(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        let mut calls = Vec::new();
        for client in self.clients {
            calls.extend(client.await.expect("a client does not panic"));
        }
        calls
    }
}

async fn run(client: u64, registers: u64, urls: Vec<String>, stop: Arc<AtomicBool>) -> Vec<Call> {
    let http = Client::builder().timeout(TIMEOUT).build().expect("the client needs nothing");
    let mut calls = Vec::new();
    for number in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let register = rand::random_range(0..registers);
        let base = &urls[rand::random_range(0..urls.len())];
        let url = format!("{base}/v1/settings/register-{register}");
        if rand::rng().random_bool(0.5) {
            let value = client << 32 | number;
            let begun = Moment::now();
            let answer = http.put(&url).json(&json!({ "value": value })).send().await;
            let status = answer.map(|answer| answer.status());
            let ended = match status {
                Ok(StatusCode::OK | StatusCode::CREATED) => Some(Moment::now()),
                // It was not carried out.
                Ok(status) if status.is_client_error() => {
                    sleep(PAUSE).await;
                    continue;
                }
                Ok(_) | Err(_) => None,
            };
            calls.push(Call::Write { register, value, begun, ended });
        } else {
            let begun = Moment::now();
            let Some(value) = read(&http, &url).await else {
                sleep(PAUSE).await;
                continue;
            };
            calls.push(Call::Read { register, value, begun, ended: Moment::now() });
        }
    }
    calls
}

/// None where there is no answer; a register that was never written has no value.
async fn read(http: &Client, url: &str) -> Option<Option<u64>> {
    let answer = http.get(url).send().await.ok()?;
    match answer.status() {
        StatusCode::OK => {
            let setting: Setting = answer.json().await.ok()?;
            Some(Some(setting.value.as_u64().expect("registers hold numbers")))
        }
        StatusCode::NOT_FOUND => Some(None),
        _ => None,
    }
}
