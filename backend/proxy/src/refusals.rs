//! What the proxy answers itself: problem documents, as the API does; and counters of requests that were refused before
//! an endpoint was chosen.

use ringmaster_common::error::{Code, PROBLEM_JSON, Problem, Refusal};
use std::{
    io::Write,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Counters of requests that were refused before an endpoint was chosen, by code.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusals::CODES.len()]);

impl Refusals {
    pub const CODES: [Code; 7] = [
        Code::InvalidRequest,
        Code::NoRoute,
        Code::MethodNotAllowed,
        Code::RequestTimeout,
        Code::BodyTooLarge,
        Code::RateLimited,
        Code::HeadTooLarge,
    ];

    /// Counts a refusal, and writes it to the access log. `line` is method and target, if they could be read.
    pub fn record(&self, client: IpAddr, line: &str, refusal: &Refusal) {
        if let Some(at) = Refusals::CODES.iter().position(|code| *code == refusal.code) {
            self.0[at].fetch_add(1, Relaxed);
        }
        tracing::debug!(
            target: "ringmaster::access",
            %client,
            request = line,
            status = refusal.code.status(),
            code = refusal.code.as_str(),
            detail = refusal.detail,
        );
    }

    pub fn counts(&self) -> impl Iterator<Item = (Code, u64)> {
        Refusals::CODES.into_iter().zip(&self.0).map(|(code, count)| (code, count.load(Relaxed)))
    }
}

/// Appends an HTTP/1 response to `out`, without a body if `is_head`. `connection` is what that header says.
pub fn write(refusal: Refusal, connection: Option<&str>, is_head: bool, out: &mut Vec<u8>) {
    let (status, title, body) = document(refusal);
    let connection = connection.map(|option| format!("connection: {option}\r\n")).unwrap_or_default();
    let retry = if matches!(status, 429 | 503) { "retry-after: 1\r\n" } else { "" };
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {title}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\n{retry}{connection}\r\n",
        body.len()
    );
    if !is_head {
        out.extend_from_slice(&body);
    }
}

/// Status, reason and body.
pub fn document(refusal: Refusal) -> (u16, String, Vec<u8>) {
    let problem = Problem::from(refusal);
    let body = serde_json::to_vec(&problem).expect("a problem document is plain JSON");
    (problem.status, problem.title, body)
}
