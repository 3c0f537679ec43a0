//! What `apply` compares with, by the cluster's feature level.
//!
//! All members apply the same log, and members of different versions must come to the same state. So `apply` reads no
//! bound and no default from the running binary: it takes them from this table, at the replicated feature level. A
//! version that changes one adds a row; what it changes holds once every member runs that version.
//!
//! The form of a command (the lengths of names, the ranges of times) is deliberately absent from `apply`: the node that
//! accepts a command checks it before it proposes the command ([`crate::command::Command::check_form`]).

use ringmaster_common::{
    error::Code,
    lock,
    setting::{self, Known},
    traffic::{MAX_ENDPOINTS, MAX_HEALTH_HISTORY, MAX_ROUTES, MAX_UPSTREAMS},
    view::VIEW_OPERATIONS,
};
use std::{ops::RangeInclusive, time::Duration};

#[derive(Debug, PartialEq)]
pub struct Limits {
    pub settings: usize,
    /// The longest value of a setting, in bytes of compact JSON.
    pub setting_bytes: usize,
    /// The settings that always exist, with their defaults.
    pub known_settings: &'static [Known],
    pub upstreams: usize,
    /// Last primaries of upstreams that were deleted.
    pub former_primaries: usize,
    /// Of one upstream.
    pub endpoints: usize,
    pub routes: usize,
    /// Changes of opinion about one endpoint.
    pub health_history: usize,
    /// Locks in use, and the size of the requests of all their holders and waiters.
    pub locks: usize,
    pub lock_bytes: u64,
    /// Locks without holder and waiter, which are kept for their history.
    pub free_locks: usize,
    /// Of one lock.
    pub waiters: usize,
    pub holders: u32,
    /// How often one owner may enter a lock that it holds.
    pub lock_depth: u32,
    /// The code that more is refused with.
    pub lock_depth_code: Code,
    /// Entries of the history of one lock.
    pub lock_records: usize,
    /// For how long ends of leases are remembered, to answer requests that are repeated; and how many, and their size as
    /// they are encoded.
    pub ended_for: Duration,
    pub ended_leases: usize,
    pub ended_bytes: u64,
    /// How many locks are looked after in one log entry because something of theirs was due.
    pub due_locks: usize,
    /// How long a grant to a waiter is kept for its node to claim it.
    pub claim_within: Duration,
    /// How long a waiter whose node is gone keeps its place, for its client to come back by another.
    pub reconnect_within: Duration,
    /// The latest plans.
    pub plans: usize,
    /// The latest operations.
    pub operations: usize,
    /// The latest operations that the view shows, beside those that are unfinished.
    pub shown_operations: usize,
    /// Operations that run or wait to be kept at a time.
    pub unfinished_operations: usize,
    /// The time that an operator may take before keeping an operation.
    pub keep_within: RangeInclusive<Duration>,
    /// Revisions with events that the history holds, and the size of these events as they are encoded.
    pub history_revisions: usize,
    pub history_bytes: u64,
    /// The latest entries of the audit.
    pub audit_entries: usize,
    /// For how long answers under ids that clients chose are remembered; and how many, and their size as they are
    /// encoded.
    pub repeatable_for: Duration,
    pub repeatable_answers: usize,
    pub repeatable_bytes: u64,
    /// The same for ids that nodes made up. They matter only while the node itself tries again.
    pub plain_for: Duration,
    pub plain_answers: usize,
    pub plain_bytes: u64,
    /// The size at which a refusal counts among the answers, whatever its words are. Nearly all have less.
    pub refusal_bytes: u64,
    /// What an answer or the end of a lease counts beside its encoded size: its id and its place in the table.
    pub entry_bytes: u64,
    /// How many answers or ends of leases one log entry forgets because of their age.
    pub forgotten_at_once: usize,
}

const FIRST: Limits = Limits {
    settings: setting::MAX_SETTINGS,
    setting_bytes: setting::MAX_VALUE_BYTES,
    known_settings: setting::KNOWN,
    upstreams: MAX_UPSTREAMS,
    former_primaries: MAX_UPSTREAMS,
    endpoints: MAX_ENDPOINTS,
    routes: MAX_ROUTES,
    health_history: MAX_HEALTH_HISTORY,
    locks: 200_000,
    lock_bytes: 256 << 20,
    free_locks: 4_096,
    waiters: 1_000,
    holders: lock::MAX_HOLDERS,
    lock_depth: 64,
    lock_depth_code: Code::LimitReached,
    lock_records: 32,
    ended_for: Duration::from_secs(10 * 60),
    ended_leases: 131_072,
    ended_bytes: 32 << 20,
    due_locks: 1_000,
    claim_within: Duration::from_secs(2),
    reconnect_within: Duration::from_secs(2),
    plans: 256,
    operations: 1_000,
    shown_operations: VIEW_OPERATIONS,
    unfinished_operations: 16,
    keep_within: Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60),
    history_revisions: 8_192,
    history_bytes: 64 << 20,
    audit_entries: 8_192,
    repeatable_for: Duration::from_secs(10 * 60),
    repeatable_answers: 262_144,
    repeatable_bytes: 64 << 20,
    plain_for: Duration::from_secs(60),
    plain_answers: 2_048,
    plain_bytes: 16 << 20,
    refusal_bytes: 512,
    entry_bytes: 128,
    forgotten_at_once: 16,
};

/// Played by the build feature: a lock can be entered twice more, and beyond that has a code of its own.
#[cfg(feature = "next-version")]
const NEXT: Limits =
    Limits { lock_depth: FIRST.lock_depth + 2, lock_depth_code: Code::LockDepthReached, ..FIRST };

/// Each row holds from its feature level on.
static TABLE: &[(u32, Limits)] = &[
    (0, FIRST),
    #[cfg(feature = "next-version")]
    (crate::version::FEATURE_LEVEL, NEXT),
];

impl Limits {
    /// Those of a cluster at this feature level.
    pub fn at(feature_level: u32) -> &'static Limits {
        let row = TABLE.iter().rev().find(|(from, _)| *from <= feature_level);
        &row.unwrap_or(&TABLE[0]).1
    }
}
