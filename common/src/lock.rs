//! Locks: who may, until when, and who comes next.
//!
//! A grant is a lease with a fencing token. Tokens come from one counter of the whole cluster and only
//! grow, so a resource that keeps the highest token it has seen can refuse everybody who was overtaken,
//! paused or cut off. Without such a resource a lock is advice: no lease can stop a holder that does
//! not know that its time is over.
//!
//! Whoever asks counts the TTL from before they sent the request. The cluster counts it from when the
//! leader ordered the request, which is later, so the holder stops first.

use crate::{
    Timestamp,
    id::{NodeId, Revision, Token},
    string_enum::string_enum,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest name, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 512;
/// The longest owner, in bytes of UTF-8.
pub const MAX_OWNER_BYTES: usize = 256;
/// How much an owner may tell of themselves, names and values together.
pub const MAX_META_BYTES: usize = 1024;
/// The shortest lease: less would be over before its holder could act on it.
pub const MIN_TTL_MS: u64 = 100;
/// The longest lease. Longer ones are renewed.
pub const MAX_TTL_MS: u64 = 24 * 60 * 60 * 1000;
/// The longest wait. Who waits longer asks again.
pub const MAX_WAIT_MS: u64 = 60 * 60 * 1000;
/// The longest pause after an unclean end.
pub const MAX_LOCK_DELAY_MS: u64 = 60 * 60 * 1000;
/// How many may hold one lock at a time, as the slots of a semaphore or sharing it.
pub const MAX_HOLDERS: u32 = 1000;
/// How many holders, and how many waiters, of each lock a list shows.
pub const LISTED: usize = 3;

/// Whether others may hold it at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum LockMode {
    /// Nobody else.
    #[default]
    Exclusive,
    /// Others who share it, too: all of them, or, under a limit, so many as it says.
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
    pub name: String,
    /// Who asks, as the holder is called: a process, not a team.
    pub owner: String,
    /// How long the lease runs unless it is renewed.
    pub ttl_ms: u64,
    /// How long to wait in the queue; 0 asks once.
    #[serde(default)]
    pub wait_ms: u64,
    /// Exclusive unless said otherwise, or a limit is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<LockMode>,
    /// Makes it a semaphore: so many may share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// An owner who holds it already gets the same token again, and has to release it as often.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reentrant: bool,
    /// If this lease ends without a release, nobody is granted the lock for so long after.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lock_delay_ms: u64,
    /// What people should know of the owner: who, where, why.
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

    /// Says what is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        check_owner(&self.owner)?;
        check_ttl(self.ttl_ms)?;
        within("wait_ms", self.wait_ms, 0, MAX_WAIT_MS)?;
        within("lock_delay_ms", self.lock_delay_ms, 0, MAX_LOCK_DELAY_MS)?;
        if let Some(limit) = self.limit {
            within("limit", limit.into(), 1, MAX_HOLDERS.into())?;
            if self.mode == Some(LockMode::Exclusive) {
                return Err("a limit says how many may share the lock; leave mode exclusive out".to_owned());
            }
        }
        let told: usize = self.meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        if told > MAX_META_BYTES {
            return Err(format!("meta has {told} bytes; it may have {MAX_META_BYTES}"));
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
    /// The lease runs so long from now on, unless what was left of it is longer.
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
    /// What the lease has left at the least, counted from before the request was sent; where it was
    /// waited for, from when the node answered: renew it at once to be exact.
    pub expires_in_ms: u64,
    /// How often it has to be released.
    pub depth: u32,
}

/// Whether a token still holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockVerdict {
    pub name: String,
    pub token: Token,
    /// Whether the token belongs to a lease that runs.
    pub valid: bool,
    /// No token below this one is valid, or ever will be.
    pub fence: Token,
}

/// Somebody who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockHolder {
    pub owner: String,
    pub token: Token,
    pub mode: LockMode,
    pub since: Timestamp,
    pub ttl_ms: u64,
    /// What the lease has left, unless it is renewed: an estimate of the node that answers.
    pub expires_in_ms: u64,
    pub depth: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// Somebody who waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockWaiter {
    pub owner: String,
    pub mode: LockMode,
    pub since: Timestamp,
    /// When they give up.
    pub gives_up_in_ms: u64,
    /// The node that their client is connected to; null while that node is gone and they have not come back.
    pub node: Option<NodeId>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lock {
    pub name: String,
    /// How many may share it, where that is limited.
    pub limit: Option<u32>,
    /// Who has held it longest first. Lists show [`LISTED`] of them.
    pub holders: Vec<LockHolder>,
    /// How many hold it.
    pub held_by: u64,
    /// In the order in which they get it. Lists show [`LISTED`] of them.
    pub waiters: Vec<LockWaiter>,
    /// How many wait for it.
    pub waited_by: u64,
    /// No token below this one is valid, or ever will be.
    pub fence: Token,
    /// After an unclean end: how long nobody is granted it yet.
    pub delayed_for_ms: Option<u64>,
    /// Whether somebody waits for it who is waited for, around in a circle.
    pub deadlocked: bool,
    /// The revision at which it was last granted or given up.
    pub version: Revision,
}

/// One lock, with its past and with who waits for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockDetail {
    #[serde(flatten)]
    pub lock: Lock,
    /// What became of it lately, oldest first.
    pub history: Vec<LockRecord>,
    /// Who waits for whom, from those who wait for this lock onwards.
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
    /// None for one who never held it.
    pub token: Option<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum LockFact {
    Granted,
    Released,
    /// The lease ran out.
    Expired,
    /// An operator took it away.
    Forced,
    Queued,
    /// The wait passed, or whoever waited went away.
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
    /// Whether the edge is part of a circle: none of those on it can go on.
    pub deadlocked: bool,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockCounts {
    /// Locks that somebody holds.
    pub held: u64,
    /// Leases that run: one for each holder.
    pub holders: u64,
    /// Those who wait.
    pub waiting: u64,
    /// Grants ever made.
    pub granted: u64,
    /// Leases that ever ran out.
    pub expired: u64,
    /// Leases that operators ever took away.
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
