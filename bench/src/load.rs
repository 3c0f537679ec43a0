//! Clients that write as fast as they are answered, each over a connection of its own.

use crate::{
    http::{Ask, Connection, Protocol},
    report::Times,
};
use futures::future::try_join_all;
use std::time::{Duration, Instant};

/// The size of what is written.
pub const VALUE_BYTES: usize = 256;
/// How many keys each client goes round.
const KEYS: u64 = 2;

/// The outcome.
#[derive(Debug)]
pub struct Load {
    pub writes: u64,
    /// Answers that were no success. None of them counts as a write.
    pub failures: u64,
    pub took: Duration,
    pub latencies: Times,
}

impl Load {
    pub fn per_second(&self) -> f64 {
        self.writes as f64 / self.took.as_secs_f64()
    }
}

/// The target of the writes, and how to write.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`
    pub host: String,
    pub protocol: Protocol,
    /// Makes a request from a key and a value.
    pub ask: fn(&str, &str) -> Ask,
}

pub async fn run(target: &Target, clients: u64, duration: Duration) -> Result<Load, String> {
    let start = Instant::now();
    let one = async |client| {
        let writes = write(target.clone(), client, start, duration);
        tokio::spawn(writes).await.map_err(|error| error.to_string())?
    };
    let results = try_join_all((0..clients).map(one)).await?;
    let took = start.elapsed();
    let failures = results.iter().map(|(_, failures)| failures).sum();
    let latencies: Vec<Duration> = results.into_iter().flat_map(|(latencies, _)| latencies).collect();
    Ok(Load { writes: latencies.len() as u64, failures, took, latencies: Times::new(latencies) })
}

async fn write(
    target: Target,
    client: u64,
    start: Instant,
    duration: Duration,
) -> Result<(Vec<Duration>, u64), String> {
    let mut connection = Connection::open(target.protocol, &target.host).await?;
    let value = "v".repeat(VALUE_BYTES);
    let (mut latencies, mut failures) = (Vec::new(), 0);
    for n in 0u64.. {
        if start.elapsed() >= duration {
            break;
        }
        let request = (target.ask)(&format!("bench/{client}/{}", n % KEYS), &value);
        let sent = Instant::now();
        let (succeeded, _) = connection.send(request).await?;
        if succeeded {
            latencies.push(sent.elapsed());
        } else {
            failures += 1;
        }
    }
    Ok((latencies, failures))
}
