//! The smallest application: it keeps every command, in order.

use crate::application::{Application, Body, Effect, Entry, LeaderCall, Stamp};
use bytes::Bytes;
use imbl::Vector;
use ringmaster_common::id::Revision;
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

#[derive(Debug, Default)]
pub struct Recorder {
    /// How many snapshots have replaced the state.
    pub replaced: Arc<AtomicUsize>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub bytes: Bytes,
    /// Set where it was sent again.
    pub after: Option<Revision>,
}

/// There is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum NoQuery {}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    pub commands: Vector<Bytes>,
    pub clock_ms: u64,
}

impl LeaderCall for Record {
    fn sent_again(&mut self, revision: Revision) {
        self.after = Some(revision);
    }
}

impl LeaderCall for NoQuery {}

impl Application for Recorder {
    type Command = Record;
    /// How many commands there are.
    type Outcome = usize;
    type Query = NoQuery;
    type Answer = ();
    type State = Recorded;
    type Notice = ();

    fn encode(&self, _: &Recorded, command: Record, stamp: Stamp) -> Bytes {
        postcard::to_stdvec(&(stamp.clock_ms, command.bytes)).unwrap().into()
    }

    fn apply(&self, state: &mut Recorded, entry: Entry<'_>) -> io::Result<Effect<Self>> {
        if let Body::Command(bytes) = entry.body {
            let (clock_ms, command): (u64, Bytes) = postcard::from_bytes(bytes).map_err(io::Error::other)?;
            state.clock_ms = state.clock_ms.max(clock_ms);
            state.commands.push_back(command);
        }
        Ok(Effect { outcome: state.commands.len(), notices: Vec::new(), concerns_controllers: true })
    }

    fn clock_ms(&self, state: &Recorded) -> u64 {
        state.clock_ms
    }

    fn write_snapshot(&self, state: &Recorded, to: &mut dyn Write) -> io::Result<()> {
        let mut to = to;
        rmp_serde::encode::write_named(&mut to, state).map_err(io::Error::other)
    }

    fn read_snapshot(&self, from: &mut dyn Read) -> io::Result<Recorded> {
        rmp_serde::from_read(from).map_err(io::Error::other)
    }

    fn replaced(&self) {
        self.replaced.fetch_add(1, Ordering::Relaxed);
    }
}
