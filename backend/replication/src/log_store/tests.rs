//! openraft's own tests of a log store, with a state machine that remembers nothing but how far it
//! came and leaves its snapshots to the snapshot store; and what those tests leave out.

use super::*;
use crate::{
    snapshot_file::SnapshotFile,
    snapshot_store::{MAX_SNAPSHOT_BYTES, SnapshotStore},
    types::{Payload, SnapshotMeta, StoredMembership},
};
use openraft::{
    EntryPayload, Snapshot, StorageError,
    storage::{EntryResponder, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    type_config::alias::SnapshotOf,
    vote::leader_id_std::CommittedLeaderId,
};
use tempfile::TempDir;

const GROUP: GroupId = GroupId(7);

#[derive(Clone, Debug)]
struct StateMachine {
    meta: SnapshotMeta,
    snapshots: Arc<SnapshotStore>,
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = StateMachine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.meta.last_log_id, self.meta.last_membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, _)) = entries.try_next().await? {
            self.meta.last_log_id = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.meta.last_membership = StoredMembership::new(Some(entry.log_id), membership);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        self.meta = meta.clone();
        let copy = |to: &mut dyn io::Write| io::copy(&mut snapshot.reader(), to).map(drop);
        self.snapshots.save(meta, copy).map(drop).map_err(io::Error::other)
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotFile>>, io::Error> {
        let snapshot = self.snapshots.load()?;
        Ok(snapshot.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotFile>, io::Error> {
        let snapshot = self.snapshots.save(&self.meta, |to| to.write_all(b"nothing"));
        let snapshot = snapshot.map_err(io::Error::other)?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}

struct Fresh;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Arc::new(SnapshotStore::open(dir.path(), GROUP, MAX_SNAPSHOT_BYTES).unwrap());
        let log = open(&dir);
        Ok((dir, log, StateMachine { meta: SnapshotMeta::default(), snapshots }))
    }
}

fn open(dir: &TempDir) -> LogStore {
    Journal::create(dir.path()).unwrap();
    LogStore::new(Journal::open(dir.path()).unwrap(), GROUP)
}

#[tokio::test]
async fn the_suite_of_openraft_passes() {
    Suite::test_all(Fresh).await.unwrap();
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let payload = EntryPayload::Normal(Payload(Bytes::from(vec![index as u8; bytes])));
    Entry { log_id: log_id(term, index), payload }
}

async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    log.blocking_append(entries).await.unwrap();
}

#[tokio::test]
async fn all_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir);
    let vote = Vote::new_committed(3, 2.into());
    append(&mut log, (0..10).map(|index| entry(1, index, 100)).collect()).await;
    log.save_vote(&vote).await.unwrap();
    log.truncate_after(Some(log_id(1, 7))).await.unwrap();
    append(&mut log, vec![entry(3, 8, 100)]).await;
    log.save_committed(Some(log_id(1, 6))).await.unwrap();
    log.purge(log_id(1, 3)).await.unwrap();
    drop(log);

    let mut log = open(&dir);
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 6)));
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 3)), Some(log_id(3, 8))));
    let mut expected: Vec<_> = (4..8).map(|index| entry(1, index, 100)).collect();
    expected.push(entry(3, 8, 100));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), expected);
    let streamed: Vec<_> = log.entries_stream(0..=8).await.try_collect().await.unwrap();
    assert_eq!(streamed, expected);
}

#[tokio::test]
async fn reads_for_a_follower_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir);
    append(&mut log, (0..600).map(|index| entry(1, index, 1)).collect()).await;
    append(&mut log, (600..603).map(|index| entry(1, index, READ_BYTES * 2 / 3)).collect()).await;
    append(&mut log, vec![entry(1, 603, READ_BYTES * 2)]).await;
    for (start, expected) in [(0, READ_ENTRIES as usize), (600, 1), (603, 1), (604, 0)] {
        assert_eq!(log.limited_get_log_entries(start, 604).await.unwrap().len(), expected, "from {start}");
    }
    log.purge(log_id(1, 99)).await.unwrap();
    let error = log.limited_get_log_entries(99, 604).await.expect_err("a hole is no answer");
    assert!(error.to_string().contains("purged"), "{error}");
    assert_eq!(log.limited_get_log_entries(100, 101).await.unwrap(), [entry(1, 100, 1)]);
}

#[tokio::test]
async fn applied_entries_are_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir);
    let expected: Vec<_> = (0..30).map(|index| entry(1, index, READ_BYTES / 10)).collect();
    append(&mut log, expected.clone()).await;
    log.release(29);
    assert!(log.journal.read(GROUP, |log| log.entries(0..20).are_on_disk()));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), expected);
    let streamed: Vec<_> = log.entries_stream(3..29).await.try_collect().await.unwrap();
    assert_eq!(streamed, expected[3..29]);
    assert_eq!(log.limited_get_log_entries(5, 30).await.unwrap(), expected[5..14]);
    drop(log);
    let mut log = open(&dir);
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 29)));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), expected);
}

#[tokio::test]
async fn an_entry_out_of_order_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir);
    append(&mut log, vec![entry(1, 0, 1), entry(1, 1, 1)]).await;
    for index in [1, 3] {
        log.append(vec![entry(1, index, 1)], IOFlushed::noop()).await.expect_err("it does not follow");
    }
    append(&mut log, vec![entry(1, 2, 1)]).await;
}
