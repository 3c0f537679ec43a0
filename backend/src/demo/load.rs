//! Light load: a few workers that take turns with locks, so that the dashboard has something to show.

use rand::random_range;
use ringmaster_client::Client;
use std::time::Duration;
use tokio::{task::JoinSet, time::sleep};

/// A lock with one holder at a time.
pub const REPORT: &str = "demo/report";
/// A semaphore.
pub const UPLOADS: &str = "demo/uploads";
/// The number of workers for each lock.
const WORKERS: usize = 3;
/// The limit of the semaphore.
const SLOTS: u32 = 2;
/// The TTL, short enough to watch an expiry after a worker's node died.
const TTL: Duration = Duration::from_secs(6);
/// How long a worker waits in the queue.
const WAIT: Duration = Duration::from_secs(60);
/// The pause after a refused acquire.
const PAUSE: Duration = Duration::from_secs(2);

/// Runs the workers for ever.
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
            // Expected while there is no leader or nodes die.
            Err(error) => {
                tracing::debug!(owner, lock, %error, "a lock is not acquired");
                sleep(PAUSE).await;
            }
        }
        sleep(Duration::from_millis(random_range(500..3_000))).await;
    }
}
