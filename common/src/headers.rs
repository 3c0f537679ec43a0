//! Response headers of the API.

/// The revision of the state that the answer was read from.
pub const REVISION: &str = "ringmaster-revision";
/// The maximum age of that state in milliseconds: 0 if the leader confirmed it, otherwise the time since the node last
/// had contact with a leader. Absent if it never had.
pub const AGE_MS: &str = "ringmaster-age-ms";
/// The id of a write: its idempotency key, or one that the node generated. Logs, events and the audit contain it.
pub const REQUEST_ID: &str = "ringmaster-request-id";
