//! File descriptors: how many this process has, and what share of them each kind of client may take.
//!
//! The journal's next segment and the links to other nodes need descriptors as clients do, and a node that has none
//! left for those cannot work. So each kind of connection that clients open is bounded by its share, and the shares
//! leave a reserve.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::LazyLock;

/// Outside all shares: the journal, links, standard streams, name resolution.
const RESERVE: u64 = 256;
/// Assumed where the kernel does not say: the usual lowest limit.
const UNKNOWN: u64 = 1024;

/// The limit of this process, raised to the highest that the kernel allows.
static LIMIT: LazyLock<u64> = LazyLock::new(|| {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return UNKNOWN };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
});

/// How many connections of a kind there may be that take `each` descriptors: `wanted`, or fewer where those would take
/// more than `percent` of all descriptors.
pub fn connections(wanted: usize, percent: u64, each: u64) -> usize {
    within(*LIMIT, wanted, percent, each)
}

fn within(limit: u64, wanted: usize, percent: u64, each: u64) -> usize {
    // The limit may be practically infinite.
    let shared = limit.min(1 << 32).saturating_sub(RESERVE);
    let share = shared * percent / 100 / each;
    wanted.min(usize::try_from(share).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_leave_a_reserve() {
        assert_eq!(within(1 << 20, 8_192, 25, 1), 8_192);
        assert_eq!(within(u64::MAX, 8_192, 25, 1), 8_192);
        assert_eq!(within(1_024, 8_192, 25, 1), 192);
        assert_eq!(within(1_024, 65_536, 60, 2), 230);
        assert_eq!(within(100, 8_192, 25, 1), 1, "one connection is always possible");
    }
}
