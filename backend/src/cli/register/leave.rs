//! How an endpoint leaves: it is deregistered, and its requests in flight may end.
//!
//! The nodes cut off what is still in flight when `drain_ms` of the upstream have passed. Without an answer, the
//! registration ends with its TTL, and nothing is waited for.

use super::Endpoint;
use ringmaster_client::ClientError;
use ringmaster_common::traffic::{live::Draining, register::Deregister};
use ringmaster_net::clock;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long the nodes may take to take the endpoint out.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one node may take to answer what is in flight.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How much later than the nodes cut off requests the wait ends: they learn of the end at different times.
const MARGIN: Duration = Duration::from_secs(1);
/// As long as no node has answered what the upstream's `drain_ms` is.
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// Takes the endpoint out. Returns whether the cluster knows of it no more.
pub async fn deregister(endpoint: &Endpoint) -> bool {
    let body = Deregister { id: endpoint.register.id.clone() };
    let path = format!("{}/deregister", endpoint.path);
    let sent = timeout(DEREGISTER_TIMEOUT, endpoint.client.post::<Value>(&path, &body)).await;
    let error = match sent {
        Ok(Ok(_)) => return true,
        // It has ended already, or the upstream is gone.
        Ok(Err(error)) if error.is_final() => return true,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", DEREGISTER_TIMEOUT.as_secs()),
    };
    eprintln!("ringmaster: cannot deregister: {error}; the registration ends after its TTL");
    false
}

/// Takes the endpoint out, and waits until no node has a request in flight there, or the time for that is up.
pub async fn drain(endpoint: &Endpoint) {
    if !deregister(endpoint).await {
        return;
    }
    let (start, mut drain, mut is_shown) = (clock::now(), DEFAULT_DRAIN, false);
    loop {
        let mut in_flight = None;
        match timeout(ANSWER_TIMEOUT, still_draining(endpoint)).await {
            Ok(Ok(draining)) => {
                drain = Duration::from_millis(draining.drain_ms);
                let count = draining.in_flight(&endpoint.register.id, &endpoint.register.addr);
                match (count, draining.unconfirmed.is_empty()) {
                    (0, true) => return,
                    (0, false) => {}
                    (count, _) => in_flight = Some(count),
                }
            }
            // The upstream is gone.
            Ok(Err(error)) if error.is_final() => return,
            Ok(Err(_)) | Err(_) => {}
        }
        let left = (drain + MARGIN).saturating_sub(clock::now().saturating_duration_since(start));
        if left.is_zero() {
            match in_flight {
                Some(count) => {
                    eprintln!("ringmaster: {count} requests are still in flight; waiting no longer")
                }
                None => {
                    eprintln!("ringmaster: no node says how many requests are in flight; waiting no longer")
                }
            }
            return;
        }
        if let Some(count) = in_flight.filter(|count| *count > 0 && !is_shown) {
            eprintln!(
                "ringmaster: deregistered; waiting for {count} requests in flight, for up to {} s",
                drain.as_secs_f32()
            );
            is_shown = true;
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn still_draining(endpoint: &Endpoint) -> Result<Draining, ClientError> {
    endpoint.client.get(&format!("{}/draining", endpoint.path)).await
}
