//! `ringmaster sample-endpoint`: a tiny web server that says who it is, for the demo's services.
//!
//! It takes its time, though not much, so that latencies have something to show.

use axum::{Router, http::HeaderMap, routing::get};
use clap::Args;
use rand::random_range;
use ringmaster_servers::demo_child;
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, time::sleep};

/// The header that tells a primary its epoch.
const EPOCH: &str = "ringmaster-epoch";
/// How long an answer takes at the most.
const SLOWEST_MS: u64 = 25;

#[derive(Args, Debug)]
pub struct Arguments {
    /// What it calls itself
    id: String,
    /// Where it takes requests
    addr: SocketAddr,
}

/// Serves until the demo ends.
pub async fn run(arguments: &Arguments) -> Result<(), String> {
    demo_child::die_with_supervisor()?;
    let failed = |error: std::io::Error| format!("cannot serve on {}: {error}", arguments.addr);
    let listener = TcpListener::bind(arguments.addr).await.map_err(failed)?;
    let id = arguments.id.clone();
    let greet = async move |headers: HeaderMap| {
        sleep(Duration::from_millis(random_range(1..=SLOWEST_MS))).await;
        match headers.get(EPOCH).and_then(|epoch| epoch.to_str().ok()) {
            Some(epoch) => format!("Hello from {id}, primary in epoch {epoch}\n"),
            None => format!("Hello from {id}\n"),
        }
    };
    let app = Router::new().route("/healthz", get(async || "ok\n")).fallback(greet);
    axum::serve(listener, app).await.map_err(failed)
}
