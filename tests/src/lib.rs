//! Ringmaster from the outside: real processes, real signals, real sockets.
//!
//! A [`cluster::Cluster`] is some `ringmaster serve` processes on free ports, with data in a directory of its
//! own; what a test starts ends with the test. Nothing sleeps for a fixed time and hopes:
//! [`eventually`] asks until a deadline, and says what it waited for when that passes.

#[cfg(feature = "browser")]
pub mod browser;
pub mod cluster;
pub mod contention;
pub mod copies;
pub mod crash_points;
pub mod demo;
pub mod network;
pub mod process;
pub mod registers;
pub mod stream;
pub mod traffic;
pub mod writers;

use std::time::{Duration, Instant};

/// How long tests wait for what should come at once. Loose: the machine may be busy.
pub const SOON: Duration = Duration::from_secs(30);
/// How often [`eventually`] asks.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Asks until the answer is `Ok`, or panics with what was waited for and the last answer.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(why) if Instant::now() >= deadline => {
                panic!("waited {within:?} for {what}; the last answer was: {why}")
            }
            Err(_) => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}
