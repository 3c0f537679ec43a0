//! A log and a state machine in memory: what Raft needs to run, and nothing that lasts.

use crate::types::{Entry, LogId, Payload, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder, Snapshot,
    alias::SnapshotOf,
    entry::RaftEntry,
    storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine},
};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard},
};

#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl MemoryLog {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap()
    }
}

impl RaftLogReader<TypeConfig> for MemoryLog {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for MemoryLog {
    type LogReader = MemoryLog;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let log = self.lock();
        let last = log.entries.values().next_back().map(|entry| entry.log_id());
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last.or(log.purged) })
    }

    async fn get_log_reader(&mut self) -> MemoryLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.lock().entries.extend(entries.into_iter().map(|entry| (entry.index(), entry)));
        flushed.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.lock().entries.split_off(&last.map_or(0, |last| last.index + 1));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut log = self.lock();
        log.purged = Some(upto);
        log.entries = log.entries.split_off(&(upto.index + 1));
        Ok(())
    }
}

/// Keeps every command, in order; a command's response is how many there are.
#[derive(Clone, Default)]
pub struct MemoryMachine(Arc<Mutex<Machine>>);

#[derive(Default)]
struct Machine {
    applied: Option<LogId>,
    membership: StoredMembership,
    commands: Vec<Bytes>,
    snapshot: Option<(SnapshotMeta, Bytes)>,
    installed: usize,
}

impl MemoryMachine {
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap()
    }

    pub fn commands(&self) -> Vec<Bytes> {
        self.lock().commands.clone()
    }

    /// How many snapshots came from elsewhere.
    pub fn installed(&self) -> usize {
        self.lock().installed
    }
}

impl RaftStateMachine<TypeConfig> for MemoryMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = MemoryMachine;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let machine = self.lock();
        Ok((machine.applied, machine.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut machine = self.lock();
            machine.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(Payload(command)) => machine.commands.push(command),
                EntryPayload::Membership(membership) => {
                    machine.membership = StoredMembership::new(machine.applied, membership);
                }
            }
            if let Some(responder) = responder {
                responder.send(Bytes::from(machine.commands.len().to_string()));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> MemoryMachine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        let commands = postcard::from_bytes(&snapshot).map_err(io::Error::other)?;
        let mut machine = self.lock();
        machine.applied = meta.last_log_id;
        machine.membership = meta.last_membership.clone();
        machine.commands = commands;
        machine.snapshot = Some((meta.clone(), snapshot));
        machine.installed += 1;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, Bytes>>> {
        let snapshot = self.lock().snapshot.clone();
        Ok(snapshot.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for MemoryMachine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, Bytes>> {
        let mut machine = self.lock();
        let data = Bytes::from(postcard::to_stdvec(&machine.commands).map_err(io::Error::other)?);
        let meta = SnapshotMeta { last_log_id: machine.applied, last_membership: machine.membership.clone() };
        machine.snapshot = Some((meta.clone(), data.clone()));
        Ok(Snapshot { meta, snapshot: data })
    }
}
