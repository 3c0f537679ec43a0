//! What the records amount to.
//!
//! One fold serves three: replaying the files, the writer, which must know what a replay of the files
//! would give, and the readers, who also see what is still on its way to the disk.

use super::record::Record;
use bytes::Bytes;
use ringmaster_common::id::GroupId;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

/// The logs of all groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) groups: BTreeMap<GroupId, GroupLog>,
}

/// The log of one group. The journal does not know what the bytes mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLog {
    pub vote: Option<Bytes>,
    /// A hint: more than this may have been committed.
    pub committed: Option<Bytes>,
    /// The highest index that was purged, and its log id.
    pub purged: Option<(u64, Bytes)>,
    /// The index of the first entry, where there is one.
    first: u64,
    entries: VecDeque<Bytes>,
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
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), Gap> {
        match record {
            Record::Vote { group, vote } => self.log(*group).vote = Some(vote.clone()),
            Record::Committed { group, committed } => self.log(*group).committed = Some(committed.clone()),
            Record::Append { group, index, entry } => self
                .log(*group)
                .append(*index, entry)
                .map_err(|last| Gap { group: *group, last, found: *index })?,
            Record::Truncate { group, from } => self.log(*group).truncate(*from),
            Record::Purge { group, through, id } => self.log(*group).purge(*through, id),
            Record::CheckpointEnd => {}
        }
        Ok(())
    }

    fn log(&mut self, group: GroupId) -> &mut GroupLog {
        self.groups.entry(group).or_default()
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
            _ if !self.entries.is_empty() => Some(self.end()),
            Some((purged, _)) => Some(purged + 1),
            None => None,
        }
    }

    /// The index of the first entry that is not purged.
    pub fn first_index(&self) -> Option<u64> {
        (!self.entries.is_empty()).then_some(self.first)
    }

    pub fn last_entry(&self) -> Option<&Bytes> {
        self.entries.back()
    }

    /// The entries of a range, as far as the log has them.
    pub fn entries(&self, range: Range<u64>) -> impl Iterator<Item = &Bytes> {
        let start = range.start.clamp(self.first, self.end());
        let end = range.end.clamp(start, self.end());
        self.entries.range(self.position(start)..self.position(end))
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn position(&self, index: u64) -> usize {
        usize::try_from(index - self.first).expect("entries are in memory")
    }

    fn append(&mut self, index: u64, entry: &Bytes) -> Result<(), u64> {
        if self.entries.is_empty() {
            match self.purged {
                Some((purged, _)) if index <= purged => return Err(purged),
                _ => self.first = index,
            }
        } else if index != self.end() {
            return Err(self.end() - 1);
        }
        self.entries.push_back(entry.clone());
        Ok(())
    }

    fn truncate(&mut self, from: u64) {
        let from = from.clamp(self.first, self.end());
        self.entries.truncate(self.position(from));
    }

    fn purge(&mut self, through: u64, id: &Bytes) {
        if self.purged.as_ref().is_some_and(|(purged, _)| *purged >= through) {
            return;
        }
        let first = (through + 1).clamp(self.first, self.end());
        self.entries.drain(..self.position(first));
        self.first = first;
        self.purged = Some((through, id.clone()));
    }
}
