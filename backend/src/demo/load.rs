//! Gentle load: a few workers who take turns with locks, so that there is something to see.

use rand::random_range;
use ringmaster_client::Client;
use std::time::Duration;
use tokio::{task::JoinSet, time::sleep};

/// The lock that one worker at a time holds.
pub const REPORT: &str = "demo/report";
/// The lock that some of them hold at a time.
pub const UPLOADS: &str = "demo/uploads";
/// How many workers there are for each.
const WORKERS: usize = 3;
/// How many may upload at a time.
const SLOTS: u32 = 2;
/// The lease: it runs out in sight where a worker's node dies with it.
const TTL: Duration = Duration::from_secs(6);
/// How long a worker queues.
const WAIT: Duration = Duration::from_secs(60);
/// How long a worker rests, having been refused.
const PAUSE: Duration = Duration::from_secs(2);

/// Works, for ever, with whatever nodes there are.
pub async fn run(client: Client) {
    let mut workers = JoinSet::new();
    for number in 1..=WORKERS {
        workers.spawn(work(client.clone(), format!("reporter-{number}"), REPORT, 1));
        workers.spawn(work(client.clone(), format!("uploader-{number}"), UPLOADS, SLOTS));
    }
    workers.join_all().await;
}

async fn work(client: Client, owner: String, lock: &'static str, slots: u32) {
    loop {
        let request = client.lock(lock).owner(&owner).ttl(TTL).wait(WAIT).meta("why", "the demo's load");
        let request = if slots > 1 { request.limit(slots) } else { request };
        match request.acquire().await {
            Ok(guard) => {
                tokio::select! {
                    () = sleep(Duration::from_millis(random_range(4_000..9_000))) => {}
                    loss = guard.lost() => tracing::debug!(owner, lock, %loss, "a lock is lost"),
                }
                if let Err(error) = guard.release().await {
                    tracing::debug!(owner, lock, %error, "a lock is not released");
                }
            }
            // It fails while there is no leader, or the nodes die: that is what a demo shows.
            Err(error) => {
                tracing::debug!(owner, lock, %error, "a lock is not acquired");
                sleep(PAUSE).await;
            }
        }
        sleep(Duration::from_millis(random_range(500..3_000))).await;
    }
}
