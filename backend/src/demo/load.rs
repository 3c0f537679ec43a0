//! Gentle load: a setting that is written every now and then, so that there is something to see.

use rand::seq::IndexedRandom;
use serde_json::json;
use std::time::Duration;
use tokio::{sync::watch, time::sleep};

/// The setting that is written.
pub const KEY: &str = "demo.heartbeat";
/// How long to wait between two writes.
pub const PAUSE: Duration = Duration::from_secs(2);
/// How long a write may take; one at a time is under way.
pub const WRITE_WITHIN: Duration = Duration::from_secs(2);

/// Writes through one node or another of those that run, for ever.
pub async fn run(running: watch::Receiver<Vec<String>>) {
    let http = reqwest::Client::builder().no_proxy().timeout(WRITE_WITHIN).build();
    let http = http.expect("the options are constant");
    for beat in 1_u64.. {
        sleep(PAUSE).await;
        let url = running.borrow().choose(&mut rand::rng()).cloned();
        if let Some(url) = url {
            let write = http
                .put(format!("{url}/v1/settings/{KEY}"))
                .header("ringmaster-client", "demo")
                .json(&json!({ "value": { "beat": beat, "through": url } }));
            // Writes fail while there is no leader, or the node dies: that is what a demo shows.
            if let Err(error) = write.send().await {
                tracing::debug!(%error, url, "a beat is lost");
            }
        }
    }
}
