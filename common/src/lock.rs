//! Locks: holders, leases and queues of waiters.
//!
//! A grant is a lease with a fencing token. Tokens come from one counter of the whole cluster and only
//! grow, so a resource that stores the highest token it has seen can reject holders that were replaced
//! while they were paused or disconnected. Without such a resource a lock is only advice: no lease can
//! stop a holder that does not know that its lease has expired.
//!
//! The client counts the TTL from before it sent the request. The cluster counts from the moment at which
//! the leader ordered the request, which is later, so the holder stops first.

use crate::{
    Timestamp,
    id::{NodeId, Revision, Token},
    string_enum::string_enum,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::RangeInclusive};

/// The longest name, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 512;
/// The longest owner, in bytes of UTF-8.
pub const MAX_OWNER_BYTES: usize = 256;
/// The largest `meta` of an owner, in bytes of names and values together.
pub const MAX_META_BYTES: usize = 1024;
/// The shortest lease: less would be over before its holder could act on it.
pub const MIN_TTL_MS: u64 = 100;
/// The longest lease. Longer ones are renewed.
pub const MAX_TTL_MS: u64 = 24 * 60 * 60 * 1000;
/// The longest wait. A client that waits longer repeats the request.
pub const MAX_WAIT_MS: u64 = 60 * 60 * 1000;
/// The longest pause after an unclean end.
pub const MAX_LOCK_DELAY_MS: u64 = 60 * 60 * 1000;
/// The shortest and the longest time for the confirmation of a grant: below it a slow network would lose grants.
pub const CONFIRM_WITHIN_MS: RangeInclusive<u64> = 500..=60_000;
/// How many may hold one lock at a time, as the slots of a semaphore or sharing it.
pub const MAX_HOLDERS: u32 = 1000;
/// How many holders, and how many waiters, of each lock a list shows.
pub const LISTED: usize = 3;

/// Whether others may hold it at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum LockMode {
    /// One holder.
    #[default]
    Exclusive,
    /// Any number of holders, or as many as the limit.
    Shared,
}

string_enum!(LockMode: Exclusive Shared);

impl LockMode {
    pub fn as_str(self) -> &'static str {
        match self {
            LockMode::Exclusive => "exclusive",
            LockMode::Shared => "shared",
        }
    }
}

/// The body of `POST /v1/locks/acquire`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AcquireLock {
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 512))]
    pub name: String,
    /// The owner: the name of a process, not of a team.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub owner: String,
    /// The length of the lease unless it is renewed.
    #[cfg_attr(feature = "openapi", schema(minimum = 100, maximum = 86400000))]
    pub ttl_ms: u64,
    /// The longest wait in the queue; 0 does not wait.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 3600000))]
    pub wait_ms: u64,
    /// `exclusive` (default), or `shared` where a limit is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<LockMode>,
    /// Makes it a semaphore: the maximum number of holders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// An owner that already holds the lock gets the same token again, and must release it as many times.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reentrant: bool,
    /// If this lease ends without a release, the lock is not granted again for this long.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "openapi", schema(maximum = 3600000))]
    pub lock_delay_ms: u64,
    /// After a wait, the client confirms the grant by a renewal within this time, before it uses the lock. Otherwise the
    /// grant ends and the next waiter is granted the lock, so a client that has gone silent delays it for no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 500, maximum = 60_000))]
    pub confirm_within_ms: Option<u64>,
    /// Information about the owner, for people to read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

impl AcquireLock {
    pub fn mode(&self) -> LockMode {
        match (self.mode, self.limit) {
            (Some(mode), _) => mode,
            (None, Some(_)) => LockMode::Shared,
            (None, None) => LockMode::Exclusive,
        }
    }

    /// Checks the request; the error says which value is wrong.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        check_owner(&self.owner)?;
        check_ttl(self.ttl_ms)?;
        within("wait_ms", self.wait_ms, 0, MAX_WAIT_MS)?;
        within("lock_delay_ms", self.lock_delay_ms, 0, MAX_LOCK_DELAY_MS)?;
        if let Some(confirm) = self.confirm_within_ms {
            within("confirm_within_ms", confirm, *CONFIRM_WITHIN_MS.start(), *CONFIRM_WITHIN_MS.end())?;
        }
        if let Some(limit) = self.limit {
            within("limit", limit.into(), 1, MAX_HOLDERS.into())?;
            if self.mode == Some(LockMode::Exclusive) {
                return Err("limit is for shared locks; remove mode exclusive".to_owned());
            }
        }
        let bytes: usize = self.meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MAX_META_BYTES {
            return Err(format!("meta has {bytes} bytes; it may have {MAX_META_BYTES}"));
        }
        Ok(())
    }
}

/// The body of `POST /v1/locks/renew`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RenewLock {
    pub name: String,
    pub owner: String,
    pub token: Token,
    /// The new length of the lease from now on, unless the remaining time is longer.
    #[cfg_attr(feature = "openapi", schema(minimum = 100, maximum = 86400000))]
    pub ttl_ms: u64,
}

/// The body of `POST /v1/locks/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReleaseLock {
    pub name: String,
    pub owner: String,
    pub token: Token,
}

/// The body of `POST /v1/locks/verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VerifyLock {
    pub name: String,
    pub token: Token,
}

/// A lock that was acquired or renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockGrant {
    pub name: String,
    pub token: Token,
    pub owner: String,
    pub mode: LockMode,
    /// The minimum time that is left of the lease, counted from before the request was sent. After a wait it is
    /// counted from the response of the node: renew at once to be exact.
    pub expires_in_ms: u64,
    /// The number of releases that are needed.
    pub depth: u32,
}

/// Whether a token still holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockVerdict {
    pub name: String,
    pub token: Token,
    /// Whether the token belongs to a running lease.
    pub valid: bool,
    /// No token below this one is valid, or ever will be.
    pub fence: Token,
}

/// A holder of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockHolder {
    pub owner: String,
    pub token: Token,
    pub mode: LockMode,
    pub since: Timestamp,
    pub ttl_ms: u64,
    /// The time that is left of the lease unless it is renewed, as the answering node estimates it.
    pub expires_in_ms: u64,
    pub depth: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// A waiter in the queue of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockWaiter {
    pub owner: String,
    pub mode: LockMode,
    pub since: Timestamp,
    /// The time until the wait times out.
    pub gives_up_in_ms: u64,
    /// The node that the client is connected to; null while that node is gone and the client has not reconnected.
    pub node: Option<NodeId>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lock {
    pub name: String,
    /// The maximum number of holders, where it is limited.
    pub limit: Option<u32>,
    /// The longest holder first. Lists show three of them.
    pub holders: Vec<LockHolder>,
    /// The number of holders.
    pub held_by: u64,
    /// The next to be granted first. Lists show three of them.
    pub waiters: Vec<LockWaiter>,
    /// The number of waiters.
    pub waited_by: u64,
    /// No token below this one is valid, or ever will be.
    pub fence: Token,
    /// After a lease that ended without a release: the time until the lock is granted again.
    pub delayed_for_ms: Option<u64>,
    /// Whether the lock is part of a deadlock: the owners waiting for it wait for each other.
    pub deadlocked: bool,
    /// The revision of the last grant, release or expiry.
    pub version: Revision,
}

/// One lock, with its history and the wait-for graph around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockDetail {
    #[serde(flatten)]
    pub lock: Lock,
    /// The latest changes, oldest first.
    pub history: Vec<LockRecord>,
    /// The edges of the wait-for graph that are reachable from the waiters of this lock.
    pub waits: Vec<Wait>,
}

/// One entry of a lock's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockRecord {
    pub revision: Revision,
    pub at: Timestamp,
    pub what: LockFact,
    pub owner: String,
    /// Null for a waiter that was never granted the lock.
    pub token: Option<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum LockFact {
    Granted,
    Released,
    /// The lease expired.
    Expired,
    /// An operator released it by force.
    Forced,
    Queued,
    /// The wait timed out, or the waiter disconnected.
    GaveUp,
}

string_enum!(LockFact: Granted Released Expired Forced Queued GaveUp);

impl LockFact {
    pub fn as_str(self) -> &'static str {
        match self {
            LockFact::Granted => "granted",
            LockFact::Released => "released",
            LockFact::Expired => "expired",
            LockFact::Forced => "forced",
            LockFact::Queued => "queued",
            LockFact::GaveUp => "gave_up",
        }
    }
}

/// An edge of the wait-for graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Wait {
    pub waiter: String,
    pub lock: String,
    pub holder: String,
    /// Whether the edge is part of a cycle: a deadlock.
    pub deadlocked: bool,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockCounts {
    /// Locks with a holder.
    pub held: u64,
    /// Running leases: one for each holder.
    pub holders: u64,
    /// Waiters.
    pub waiting: u64,
    /// Grants ever made.
    pub granted: u64,
    /// Leases that ever expired.
    pub expired: u64,
    /// Leases that operators ever released by force.
    pub forced: u64,
}

/// Names are UTF-8 without control characters.
pub fn check_name(name: &str) -> Result<(), String> {
    check_text("a lock's name", name, MAX_NAME_BYTES)
}

pub fn check_owner(owner: &str) -> Result<(), String> {
    check_text("an owner", owner, MAX_OWNER_BYTES)
}

pub fn check_ttl(ttl_ms: u64) -> Result<(), String> {
    within("ttl_ms", ttl_ms, MIN_TTL_MS, MAX_TTL_MS)
}

fn check_text(what: &str, text: &str, max: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > max {
        return Err(format!("{what} has 1 to {max} bytes, not {}", text.len()));
    }
    match text.chars().find(|letter| letter.is_control()) {
        Some(letter) => Err(format!("{what} has no control characters, such as {}", letter.escape_default())),
        None => Ok(()),
    }
}

fn within(what: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(format!("{what} is {min} to {max}, not {value}")) }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
