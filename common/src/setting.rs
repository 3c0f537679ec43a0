//! Settings: configuration that the whole cluster agrees on.
//!
//! A setting that Ringmaster knows is validated; every other key is free for its users.

use crate::{Timestamp, id::Revision};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest value of a setting, in bytes of compact JSON.
pub const MAX_VALUE_BYTES: usize = 4096;
/// The longest key of a setting, in bytes.
pub const MAX_KEY_BYTES: usize = 128;
/// How many settings a cluster holds.
pub const MAX_SETTINGS: usize = 1024;

/// A setting, at the version that its ETag names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Setting {
    pub key: String,
    pub value: Value,
    /// The revision of the last write; 0 for a default that was never written.
    pub version: Revision,
    pub updated_at: Option<Timestamp>,
    pub updated_by: Option<String>,
}

/// A setting whose meaning Ringmaster knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub key: &'static str,
    pub doc: &'static str,
    pub default: u64,
    pub min: u64,
    pub max: u64,
}

/// How long a plan may be applied after it was made.
pub const PLAN_TTL: Known = Known {
    key: "plans.ttl_ms",
    doc: "How long a plan may be applied after it was made, in milliseconds.",
    default: 600_000,
    min: 1_000,
    max: 86_400_000,
};

/// How long a peer may be silent before it is suspected.
pub const SUSPECT_AFTER: Known = Known {
    key: "nodes.suspect_after_ms",
    doc: "How long a peer may be silent before it is suspected, in milliseconds.",
    default: 500,
    min: 200,
    max: 60_000,
};

/// How long a peer may be silent before an observer calls it dead.
pub const DOWN_AFTER: Known = Known {
    key: "nodes.down_after_ms",
    doc: "How long a peer may be silent before an observer takes it for dead, in milliseconds.",
    default: 1_500,
    min: 400,
    max: 600_000,
};

/// Every setting that Ringmaster knows.
pub const KNOWN: &[Known] = &[DOWN_AFTER, SUSPECT_AFTER, PLAN_TTL];

impl Known {
    pub fn find(key: &str) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.key == key)
    }

    /// The value, if it is one that this setting takes.
    pub fn check(&self, value: &Value) -> Result<u64, String> {
        match value.as_u64() {
            Some(n) if (self.min..=self.max).contains(&n) => Ok(n),
            _ => Err(format!("{} takes an integer from {} to {}, not {value}", self.key, self.min, self.max)),
        }
    }
}

/// Whether `key` may name a setting: 1 to 128 letters, digits, and any of `. _ - / :`.
pub fn check_key(key: &str) -> Result<(), String> {
    let fits = !key.is_empty()
        && key.len() <= MAX_KEY_BYTES
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b));
    if fits {
        Ok(())
    } else {
        Err(format!("a setting's key has 1 to {MAX_KEY_BYTES} letters, digits, or any of . _ - / :"))
    }
}
