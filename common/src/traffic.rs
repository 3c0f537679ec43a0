//! Traffic: the routing of requests to endpoints.
//!
//! An *upstream* is a service, its *endpoints* are the addresses that serve it, and a *route* maps requests to
//! an upstream. All three are configuration, written by PUT with ETags. The state of an endpoint (drain,
//! maintenance) and the primary of an upstream change only by plans; a PUT never changes them.
//!
//! Each node's proxy combines the replicated table with its own observations. Rates, latencies and ejections
//! are telemetry of the node that measured them.

pub mod health;
pub mod import;
pub mod live;
pub mod register;
pub mod route;
pub mod upstream;
pub mod warnings;

/// The longest name of an upstream, an endpoint or a route, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// How many upstreams a cluster has.
pub const MAX_UPSTREAMS: usize = 256;
/// How many endpoints an upstream has.
pub const MAX_ENDPOINTS: usize = 256;
/// How many changes of mind about an endpoint's health are remembered.
pub const MAX_HEALTH_HISTORY: usize = 32;
/// How many routes a cluster has.
pub const MAX_ROUTES: usize = 1024;

/// Names stand in addresses, metrics and headers: 1 to 64 letters, digits, and any of `. _ -`, a letter or
/// a digit first.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let fits = name.len() <= MAX_NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits {
        return Ok(());
    }
    Err(format!(
        "{what} has a name of 1 to {MAX_NAME_BYTES} letters, digits, or any of . _ - after the first, not {name:?}"
    ))
}

fn within(what: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(format!("{what} is {min} to {max}, not {value}")) }
}
