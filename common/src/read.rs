//! What every answer that was read from the replicated state says of it.

/// The revision that the answering node had applied.
pub const REVISION_HEADER: &str = "ringmaster-revision";
/// How old that may be, in milliseconds: 0 where the leader vouched for it, else how long ago the node last
/// heard of a leader. Left out where it never did.
pub const AGE_HEADER: &str = "ringmaster-age-ms";
