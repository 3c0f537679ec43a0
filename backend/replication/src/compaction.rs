//! Keeps the log of a group within bytes: openraft counts entries alone.
//!
//! A log that is larger than it may be gets a snapshot, and is purged behind it but for the last
//! [`KEPT_LOG_BYTES`]. What one group may have depends on how many groups share the journal.

use crate::{registry::Registry, replica::Replica, types::TypeConfig};
use openraft::errors::Fatal;
use ringmaster_net::clock;
use ringmaster_storage::journal::Journal;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// How large the log of a group grows before it gets a snapshot.
pub const LOG_BYTES: u64 = 64 << 20;
/// How large the logs of all groups grow together.
pub const ALL_LOGS_BYTES: u64 = 256 << 20;
/// How much of a log stays behind a snapshot: a follower that is a little behind does not need the snapshot then.
pub const KEPT_LOG_BYTES: u64 = 16 << 20;
/// How often a log that grows is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a snapshot may take before it is asked for again.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Bounds of a log, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct LogBounds {
    pub group: u64,
    pub all: u64,
    pub kept: u64,
}

impl Default for LogBounds {
    fn default() -> Self {
        LogBounds { group: LOG_BYTES, all: ALL_LOGS_BYTES, kept: KEPT_LOG_BYTES }
    }
}

impl LogBounds {
    /// How large a log may be among so many, and how much of it is kept.
    fn among(&self, groups: usize) -> (u64, u64) {
        let most = self.group.min(self.all / groups.max(1) as u64);
        (most, self.kept.min(most / 4))
    }
}

/// Runs until the group has stopped. A group that does not grow wakes nothing.
pub async fn run(replica: Replica, journal: Arc<Journal>, groups: Registry, bounds: LogBounds) {
    let mut applied = replica.progress().watch();
    // The snapshot that there was when another was asked for, and when that was.
    let mut asked: Option<(u64, Instant)> = None;
    loop {
        let (most, kept) = bounds.among(groups.count());
        if purge(&replica, &journal, kept).await.is_err() {
            return;
        }
        let snapshot = replica.snapshot_index();
        let under_way = |(before, at): (u64, Instant)| before == snapshot && at.elapsed() < RETRY_INTERVAL;
        if !asked.is_some_and(under_way) {
            let bytes = journal.read(replica.group(), |log| log.bytes());
            if bytes > most && applied.borrow_and_update().revision.0 > snapshot {
                asked = Some((snapshot, clock::now()));
                if replica.take_snapshot().await.is_err() {
                    return;
                }
            } else if applied.changed().await.is_err() {
                return;
            }
        }
        sleep(INTERVAL).await;
    }
}

/// Purges what a snapshot covers, but for the last bytes of it.
async fn purge(replica: &Replica, journal: &Journal, kept: u64) -> Result<(), Fatal<TypeConfig>> {
    let snapshot = replica.snapshot_index();
    let through = journal.read(replica.group(), |log| {
        let first = log.first_index()?;
        if log.bytes() <= 2 * kept || snapshot < first {
            return None;
        }
        let through = log.index_of_last(kept).saturating_sub(1).min(snapshot);
        (through >= first).then_some(through)
    });
    match through {
        Some(through) => replica.raft().trigger().purge_log(through).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_share_the_bytes_of_all() {
        let bounds = LogBounds { group: 64, all: 256, kept: 16 };
        assert_eq!(bounds.among(1), (64, 16));
        assert_eq!(bounds.among(4), (64, 16));
        assert_eq!(bounds.among(32), (8, 2));
        assert_eq!(bounds.among(0), (64, 16));
    }
}
