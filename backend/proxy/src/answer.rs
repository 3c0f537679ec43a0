//! What the proxy answers by itself: problem documents, as the API's; and how often, where no endpoint had a part in it.

use ringmaster_common::error::Code;
pub use ringmaster_common::error::Refusal;
use ringmaster_common::error::{PROBLEM_JSON, Problem};
use std::{
    io::Write,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Requests that were refused before an endpoint was looked for, by why.
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

    /// One more, for the access log, too. `line` is method and target, where they could be read.
    pub fn note(&self, client: IpAddr, line: &str, refusal: &Refusal) {
        if let Some(at) = Refusals::CODES.iter().position(|code| *code == refusal.code) {
            self.0[at].fetch_add(1, Relaxed);
        }
        tracing::debug!(
            target: "ringmaster::access",
            %client,
            request = line,
            status = refusal.code.status(),
            code = refusal.code.as_str(),
            why = refusal.detail,
        );
    }

    pub fn counts(&self) -> impl Iterator<Item = (Code, u64)> {
        Refusals::CODES.into_iter().zip(&self.0).map(|(code, count)| (code, count.load(Relaxed)))
    }
}

/// Appends an answer to `out`. `head` is the answer to a HEAD: it has no body.
pub fn write(refusal: Refusal, keep_alive: bool, head: bool, out: &mut Vec<u8>) {
    let (status, title, body) = document(refusal);
    let connection = if keep_alive { "" } else { "connection: close\r\n" };
    let retry = if matches!(status, 429 | 503) { "retry-after: 1\r\n" } else { "" };
    // A vector takes all that is written.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {title}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\n{retry}{connection}\r\n",
        body.len()
    );
    if !head {
        out.extend_from_slice(&body);
    }
}

/// Status, reason and body.
pub fn document(refusal: Refusal) -> (u16, String, Vec<u8>) {
    let problem = Problem::from(refusal);
    let body = serde_json::to_vec(&problem).expect("a problem document is plain JSON");
    (problem.status, problem.title, body)
}
