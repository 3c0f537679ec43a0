//! File descriptors: how many this process has, and what share of them each kind of client may take.
//!
//! The journal's next segment and the links to other nodes need descriptors as clients do, and a node that has none
//! left for those is of no use to anybody. So whatever strangers can open in numbers is bounded by its share, and the
//! shares leave something over.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::LazyLock;

/// What is in nobody's share: the journal, links, standard streams, what waits for a name to be resolved.
const RESERVE: u64 = 256;
/// What is assumed where the kernel does not say: what it allows at the least, as a rule.
const UNKNOWN: u64 = 1024;

/// How many there are. As many as may be are asked for.
static LIMIT: LazyLock<u64> = LazyLock::new(|| {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return UNKNOWN };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
});

/// How many connections of a kind there may be that take `each` descriptors: `wanted`, or fewer where those would be
/// more than so many per cent of all.
pub fn connections(wanted: usize, percent: u64, each: u64) -> usize {
    within(*LIMIT, wanted, percent, each)
}

fn within(limit: u64, wanted: usize, percent: u64, each: u64) -> usize {
    // A limit may be as good as none.
    let shared = limit.min(1 << 32).saturating_sub(RESERVE);
    let share = shared * percent / 100 / each;
    wanted.min(usize::try_from(share).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_something_over() {
        assert_eq!(within(1 << 20, 8_192, 25, 1), 8_192);
        assert_eq!(within(u64::MAX, 8_192, 25, 1), 8_192);
        assert_eq!(within(1_024, 8_192, 25, 1), 192);
        assert_eq!(within(1_024, 65_536, 60, 2), 230);
        assert_eq!(within(100, 8_192, 25, 1), 1, "it can be asked how it is");
    }
}
