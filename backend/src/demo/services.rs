//! Sample services behind the demo's proxies: `web`, whose endpoints share the requests, and `payments`, with
//! one primary endpoint.
//!
//! They are configured through the public API; existing configuration is left unchanged. Each endpoint is a
//! process of its own ([`super::sample`]) that may be killed; it restarts after a while.

use super::{fleet::Launcher, home::Home, say};
use crate::out::Out;
use futures::future::join_all;
use rand::random_range;
use ringmaster_client::{Client, ClientError};
use ringmaster_common::error::Code;
use serde_json::{Value, json};
use std::{io, path::PathBuf, time::Duration};
use tokio::{process::Child, time::sleep};

const WEB: &str = "web";
const PAYMENTS: &str = "payments";
/// The services with their numbers of endpoints.
const SERVICES: [(&str, u16); 2] = [(WEB, 3), (PAYMENTS, 2)];
/// The delay before an ended endpoint restarts: long enough to watch the consequences.
const RESTART_AFTER: Duration = Duration::from_secs(15);
/// How often configuring a service is tried.
const MAX_TRIES: u32 = 10;
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The time-out of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// One in this many requests goes to [`PAYMENTS`].
const PAYMENTS_ONE_IN: u32 = 4;

/// One endpoint of a service.
#[derive(Debug)]
pub struct Sample {
    pub service: &'static str,
    pub id: String,
    pub port: u16,
    log: PathBuf,
}

impl Sample {
    fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// All endpoints of all services.
pub fn samples(home: &Home) -> Vec<Sample> {
    let ids = SERVICES.iter().flat_map(|(service, count)| (1..=*count).map(move |nth| (*service, nth)));
    ids.zip(1..)
        .map(|((service, nth), place)| {
            let id = format!("{service}-{nth}");
            let log = home.path().join(format!("{id}.log"));
            Sample { service, id, port: home.sample_port(place), log }
        })
        .collect()
}

/// Runs the endpoints, configures the services, and sends requests, for ever. The endpoints end with the future.
pub async fn run(client: &Client, launcher: &Launcher, samples: &[Sample], proxies: Vec<String>, out: &Out) {
    let endpoints = join_all(samples.iter().map(|sample| keep_running(launcher, sample, out)));
    let requests = async {
        configure(client, samples).await;
        let proxy = &proxies[0];
        say(
            out,
            &format!(
                "Sample services: {proxy}/ ({WEB}) and {proxy}/{PAYMENTS} ({PAYMENTS}), on every node's proxy: {}",
                proxies.join(" ")
            ),
        );
        send_requests(&proxies).await;
    };
    tokio::join!(endpoints, requests);
}

async fn keep_running(launcher: &Launcher, sample: &Sample, out: &Out) {
    let id = &sample.id;
    loop {
        let ended = match start(launcher, sample) {
            Ok(mut child) => child.wait().await,
            Err(error) => Err(error),
        };
        let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        say(out, &format!("Endpoint {id} ended ({how}); it restarts in {} s.", RESTART_AFTER.as_secs()));
        sleep(RESTART_AFTER).await;
    }
}

fn start(launcher: &Launcher, sample: &Sample) -> io::Result<Child> {
    launcher.command(&sample.log)?.args(["sample-endpoint", &sample.id, &sample.addr()]).spawn()
}

async fn configure(client: &Client, samples: &[Sample]) {
    for (service, _) in SERVICES {
        let endpoints: Vec<_> = samples
            .iter()
            .filter(|sample| sample.service == service)
            .map(|sample| json!({ "id": sample.id, "addr": sample.addr() }))
            .collect();
        let upstream = if service == WEB {
            // Every web server answers on this path, so that a registered one passes the check.
            json!({ "policy": "least_connections", "health_check": check("/"), "endpoints": endpoints })
        } else {
            json!({
                "health_check": check("/healthz"),
                "active_standby": { "grace_ms": 2_000, "hold_down_ms": 20_000 },
                "endpoints": endpoints,
            })
        };
        let prefix = if service == WEB { "/".to_owned() } else { format!("/{service}") };
        let route = json!({ "path_prefix": prefix, "upstream": service });
        for (path, body) in [("upstreams", upstream), ("routes", route)] {
            let path = format!("/v1/{path}/{service}");
            if let Err(error) = put_new(client, &path, &body).await {
                tracing::warn!(path, %error, "cannot configure a sample service");
            }
        }
    }
}

fn check(path: &str) -> Value {
    json!({ "type": "http", "path": path, "interval_ms": 1_000, "timeout_ms": 500, "rise": 2, "fall": 2 })
}

/// Creates the object unless it exists.
async fn put_new(client: &Client, path: &str, body: &Value) -> Result<(), ClientError> {
    let mut tries = 0;
    loop {
        let put = match client.get::<Value>(path).await {
            Err(error) if error.is(Code::UnknownUpstream) || error.is(Code::NoSuchRoute) => {
                client.put::<Value>(path, body, None).await
            }
            other => other,
        };
        tries += 1;
        match put {
            Ok(_) => return Ok(()),
            Err(error) if tries == MAX_TRIES => return Err(error),
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

/// Sends a few requests per second through random proxies.
async fn send_requests(proxies: &[String]) {
    let http = super::http(REQUEST_TIMEOUT);
    loop {
        let proxy = &proxies[random_range(0..proxies.len())];
        let path = if random_range(0..PAYMENTS_ONE_IN) == 0 { PAYMENTS } else { "" };
        // Expected if the proxy's node was killed.
        if let Err(error) = http.get(format!("{proxy}/{path}")).send().await {
            tracing::debug!(proxy, %error, "a request failed");
        }
        sleep(Duration::from_millis(random_range(50..300))).await;
    }
}
