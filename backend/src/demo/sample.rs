//! `ringmaster sample-endpoint`: a tiny web server for the demo's services that answers with its name.
//!
//! It delays each answer by a random time, so that the latency charts have something to show.

use axum::{Router, http::HeaderMap, routing::get};
use clap::Args;
use rand::random_range;
use ringmaster_servers::demo_child;
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, time::sleep};

/// The header with the primary's epoch.
const EPOCH: &str = "ringmaster-epoch";
/// The maximum delay of an answer.
const MAX_DELAY_MS: u64 = 25;

#[derive(Args, Debug)]
pub struct Arguments {
    /// The name in its answers
    id: String,
    /// The address to listen on
    addr: SocketAddr,
}

/// Serves until the demo ends.
pub async fn run(arguments: &Arguments) -> Result<(), String> {
    demo_child::die_with_supervisor()?;
    let failed = |error: std::io::Error| format!("cannot serve on {}: {error}", arguments.addr);
    let listener = TcpListener::bind(arguments.addr).await.map_err(failed)?;
    let id = arguments.id.clone();
    let greet = async move |headers: HeaderMap| {
        sleep(Duration::from_millis(random_range(1..=MAX_DELAY_MS))).await;
        match headers.get(EPOCH).and_then(|epoch| epoch.to_str().ok()) {
            Some(epoch) => format!("Hello from {id}, primary in epoch {epoch}\n"),
            None => format!("Hello from {id}\n"),
        }
    };
    let app = Router::new().route("/healthz", get(async || "ok\n")).fallback(greet);
    axum::serve(listener, app).await.map_err(failed)
}
