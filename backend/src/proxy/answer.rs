//! What the proxy answers by itself: problem documents, as the API's.

pub use ringmaster_common::error::Refusal;
use ringmaster_common::error::{PROBLEM_JSON, Problem};
use std::io::Write;

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
