//! The fingerprint of a request that its client may repeat.
//!
//! It is computed once, by the node that received the request, from the bytes that the client sent, and travels with the
//! command into the log: so a repeat has the same one at every node, whatever version it runs. Requests without an
//! Idempotency-Key have none.

use axum::http::{HeaderMap, HeaderName, header, request::Parts};
use ringmaster_cluster::request::fingerprint;

/// The header with the id that the client chose.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Stands among the extensions of a request that may be repeated.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint(pub u32);

impl Fingerprint {
    /// That of a request with this body.
    pub fn of(parts: &Parts, body: &[u8]) -> Fingerprint {
        let header = |name: HeaderName| parts.headers.get(name).map_or(&[][..], |value| value.as_bytes());
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let preconditions = [header(header::IF_MATCH), header(header::IF_NONE_MATCH)];
        let of_bytes =
            [parts.method.as_str().as_bytes(), target.as_bytes(), preconditions[0], preconditions[1], body];
        Fingerprint(fingerprint(&of_bytes))
    }
}

pub fn is_repeatable(headers: &HeaderMap) -> bool {
    headers.contains_key(IDEMPOTENCY_KEY)
}
