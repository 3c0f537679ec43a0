//! Headers of ours, in answers of the API.

/// The revision that the answering node had applied when it read what it answers with.
pub const REVISION: &str = "ringmaster-revision";
/// How old that may be, in milliseconds: 0 where the leader vouched for it, else how long ago the node last
/// heard of a leader. Left out where it never did.
pub const AGE_MS: &str = "ringmaster-age-ms";
/// The id of a request that changes something: its idempotency key, or the one that the node made up. Logs,
/// events and the audit name it.
pub const REQUEST_ID: &str = "ringmaster-request-id";
