//! The image: the state after all records.
//!
//! One fold serves three: replaying the files, the writer, which must know what a replay of the files
//! would give, and the readers, which also see entries that are still on their way to the disk.
//!
//! An entry is in memory until it is on disk and released (applied), and for as long as it is among the last
//! [`super::KEPT_BYTES`] of its log: followers are sent those. Of all others the position on disk is kept.

use super::{
    position::{Entries, Part, Position},
    record::{Owner, Record},
};
use bytes::Bytes;
use ringmaster_common::id::GroupId;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

/// The logs of all groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// None in a journal that no node has opened yet, or none of a version that writes it.
    pub(super) owner: Option<Owner>,
    pub(super) groups: BTreeMap<GroupId, GroupLog>,
}

/// The log of one group. The journal does not know what the bytes mean.
#[derive(Clone, Debug, Default)]
pub struct GroupLog {
    pub vote: Option<Bytes>,
    /// A hint: more than this may have been committed.
    pub committed: Option<Bytes>,
    /// The highest index that was purged, and its log id.
    pub purged: Option<(u64, Bytes)>,
    /// The index of the first entry, where there is one.
    first: u64,
    on_disk: VecDeque<Position>,
    /// The entries behind those on disk.
    in_memory: VecDeque<Recent>,
    in_memory_bytes: usize,
    /// How many bytes all entries have.
    bytes: u64,
    /// The end of the entries that need not be in memory.
    released: u64,
}

#[derive(Clone, Debug)]
struct Recent {
    /// Differs from that of any other entry that had this index.
    serial: u64,
    entry: Bytes,
    position: Option<Position>,
}

/// The place of an entry that is appended.
pub(super) enum Place {
    /// On its way to the disk.
    Queue {
        serial: u64,
    },
    Disk(Position),
}

/// An entry that does not follow the last one.
#[derive(Debug, thiserror::Error)]
#[error("entry {found} of group {group} does not follow entry {last}")]
pub(super) struct Gap {
    group: GroupId,
    last: u64,
    found: u64,
}

impl Image {
    /// Appends to a log without entries are taken wherever they begin: the segments that held what
    /// was before may be gone. Whether there is a hole shows at the end ([`Image::find_gap`]).
    /// `place` is asked for appends alone.
    pub(super) fn apply(&mut self, record: &Record, place: impl FnOnce(&Bytes) -> Place) -> Result<(), Gap> {
        match record {
            Record::Vote { group, vote } => self.log(*group).vote = Some(vote.clone()),
            Record::Committed { group, committed } => self.log(*group).committed = Some(committed.clone()),
            Record::Append { group, index, entry } => self
                .log(*group)
                .append(*index, entry, place(entry))
                .map_err(|last| Gap { group: *group, last, found: *index })?,
            Record::Truncate { group, from } => self.log(*group).truncate(*from),
            Record::Purge { group, through, id } => self.log(*group).purge(*through, id),
            Record::Owner(owner) => self.owner = Some(owner.clone()),
            Record::CheckpointEnd | Record::Holds { .. } | Record::Sealed => {}
            Record::Drop { group } => {
                let log = self.log(*group);
                *log = GroupLog { vote: log.vote.take(), ..GroupLog::default() };
            }
        }
        Ok(())
    }

    pub(super) fn log(&mut self, group: GroupId) -> &mut GroupLog {
        self.groups.entry(group).or_default()
    }

    /// Whether nothing was ever written to it for a node.
    pub(super) fn is_fresh(&self) -> bool {
        self.owner.is_none() && self.groups.is_empty()
    }

    /// A group whose entries do not begin where its purged ones end.
    pub(super) fn find_gap(&self) -> Option<Gap> {
        self.groups.iter().find_map(|(group, log)| {
            let (last, _) = log.purged.as_ref()?;
            let found = log.first_index().filter(|first| *first != last + 1)?;
            Some(Gap { group: *group, last: *last, found })
        })
    }
}

impl GroupLog {
    /// The index that the next entry must have; any where there was never one.
    pub fn next_index(&self) -> Option<u64> {
        match &self.purged {
            _ if !self.is_empty() => Some(self.end()),
            Some((purged, _)) => Some(purged + 1),
            None => None,
        }
    }

    /// The index of the first entry that is not purged.
    pub fn first_index(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.first)
    }

    /// How many bytes the entries have.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many bytes of them are in memory.
    pub fn bytes_in_memory(&self) -> usize {
        self.in_memory_bytes
    }

    /// The entries of a range, as far as the log has them.
    pub fn entries(&self, range: Range<u64>) -> Entries {
        Entries::new(self.parts(range).collect())
    }

    /// The first entries of a range, with no more than so many bytes; at least one.
    pub fn entries_within(&self, range: Range<u64>, max_bytes: usize) -> Entries {
        let mut bytes = 0;
        let fits = |part: &Part| {
            let fits = bytes == 0 || bytes + part.len() <= max_bytes;
            bytes += part.len();
            fits
        };
        Entries::new(self.parts(range).take_while(fits).collect())
    }

    /// The first index of the last entries that have no more than so many bytes together.
    pub fn index_of_last(&self, max_bytes: u64) -> u64 {
        let mut bytes = 0;
        let sizes = (0..self.len()).rev().map(|at| self.part_len(at) as u64);
        let kept = sizes.take_while(|size| {
            bytes += size;
            bytes <= max_bytes
        });
        self.end() - kept.count() as u64
    }

    fn part_len(&self, at: usize) -> usize {
        match self.on_disk.get(at) {
            Some(position) => position.length as usize,
            None => self.in_memory[at - self.on_disk.len()].entry.len(),
        }
    }

    fn parts(&self, range: Range<u64>) -> impl Iterator<Item = Part> {
        let start = range.start.clamp(self.first, self.end());
        let end = range.end.clamp(start, self.end());
        let (start, end, on_disk) = (self.at(start), self.at(end), self.on_disk.len());
        let disk = self.on_disk.range(start.min(on_disk)..end.min(on_disk)).cloned().map(Part::OnDisk);
        let memory = self.in_memory.range(start.max(on_disk) - on_disk..end.max(on_disk) - on_disk);
        disk.chain(memory.map(|recent| Part::InMemory(recent.entry.clone())))
    }

    /// The positions of the entries, of which all are on disk.
    pub(super) fn positions(&self) -> impl Iterator<Item = (u64, &Position)> {
        debug_assert!(self.in_memory.is_empty());
        (self.first..).zip(&self.on_disk)
    }

    /// An entry that was queued has come to the disk.
    pub(super) fn written(&mut self, index: u64, serial: u64, position: Position) {
        let start = self.first + self.on_disk.len() as u64;
        let at = index.checked_sub(start).and_then(|at| usize::try_from(at).ok());
        // It may have been truncated since, and another may have taken its place.
        if let Some(recent) = at.and_then(|at| self.in_memory.get_mut(at))
            && recent.serial == serial
        {
            recent.position = Some(position);
        }
    }

    /// Entries that were on disk have been copied to another place.
    pub(super) fn moved(&mut self, index: u64, to: Position) {
        let Some(at) = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { return };
        let on_disk = self.on_disk.len();
        if let Some(position) = self.on_disk.get_mut(at) {
            *position = to;
        } else if let Some(recent) = at.checked_sub(on_disk).and_then(|at| self.in_memory.get_mut(at))
            && recent.position.is_some()
        {
            recent.position = Some(to);
        }
    }

    /// The entries up to `through` need not be in memory any more.
    pub(super) fn release(&mut self, through: u64, kept_bytes: usize) {
        self.released = self.released.max(through + 1);
        self.evict(kept_bytes);
    }

    /// Lets go of entries that need not be in memory, but for the last ones.
    pub(super) fn evict(&mut self, kept_bytes: usize) {
        while self.in_memory_bytes > kept_bytes
            && self.first + (self.on_disk.len() as u64) < self.released
            && let Some(Recent { position: Some(_), .. }) = self.in_memory.front()
            && let Some(Recent { entry, position: Some(position), .. }) = self.in_memory.pop_front()
        {
            self.in_memory_bytes -= entry.len();
            self.on_disk.push_back(position);
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.on_disk.len() + self.in_memory.len()
    }

    fn end(&self) -> u64 {
        self.first + self.len() as u64
    }

    fn at(&self, index: u64) -> usize {
        usize::try_from(index - self.first).expect("positions are in memory")
    }

    fn append(&mut self, index: u64, entry: &Bytes, place: Place) -> Result<(), u64> {
        if self.is_empty() {
            match self.purged {
                Some((purged, _)) if index <= purged => return Err(purged),
                _ => self.first = index,
            }
        } else if index != self.end() {
            return Err(self.end() - 1);
        }
        self.bytes += entry.len() as u64;
        match place {
            Place::Queue { serial } => {
                self.in_memory_bytes += entry.len();
                self.in_memory.push_back(Recent { serial, entry: entry.clone(), position: None });
            }
            Place::Disk(position) => self.on_disk.push_back(position),
        }
        Ok(())
    }

    fn truncate(&mut self, from: u64) {
        let at = self.at(from.clamp(self.first, self.end()));
        let on_disk = self.on_disk.len();
        for recent in self.in_memory.drain(at.saturating_sub(on_disk).min(self.in_memory.len())..) {
            self.in_memory_bytes -= recent.entry.len();
            self.bytes -= recent.entry.len() as u64;
        }
        for position in self.on_disk.drain(at.min(on_disk)..) {
            self.bytes -= u64::from(position.length);
        }
        // Another entry that takes its place is another one.
        self.released = self.released.min(from);
    }

    fn purge(&mut self, through: u64, id: &Bytes) {
        if self.purged.as_ref().is_some_and(|(purged, _)| *purged >= through) {
            return;
        }
        let first = (through + 1).clamp(self.first, self.end());
        let (at, on_disk) = (self.at(first), self.on_disk.len());
        for position in self.on_disk.drain(..at.min(on_disk)) {
            self.bytes -= u64::from(position.length);
        }
        for recent in self.in_memory.drain(..at.saturating_sub(on_disk)) {
            self.in_memory_bytes -= recent.entry.len();
            self.bytes -= recent.entry.len() as u64;
        }
        self.first = first;
        self.purged = Some((through, id.clone()));
    }
}
