//! A tiny application: named counters.

use bytes::Bytes;
use ringmaster_replication::application::{Application, Body, Effect, Entry, LeaderCall, Stamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

#[derive(Debug, Default)]
pub struct Counters {
    /// How many snapshots have replaced the state.
    pub replaced: Arc<AtomicUsize>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    pub counters: BTreeMap<String, u64>,
    pub clock_ms: u64,
    /// The ids of commands that were applied, with what came of them.
    done: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Add {
    pub id: String,
    pub name: String,
    pub by: u64,
}

/// There is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum NoQuery {}

impl LeaderCall for Add {
    fn request_id(&self) -> &str {
        &self.id
    }
}

impl LeaderCall for NoQuery {}

impl Application for Counters {
    type Command = Add;
    /// The counter after it.
    type Outcome = u64;
    type Query = NoQuery;
    type Answer = ();
    type State = State;
    type Notice = ();

    fn encode(&self, _: &State, command: Add, stamp: Stamp) -> Bytes {
        rmp_serde::to_vec(&(stamp.clock_ms, command)).unwrap().into()
    }

    fn apply(&self, state: &mut State, entry: Entry<'_>) -> io::Result<Effect<Self>> {
        let mut outcome = 0;
        if let Body::Command(bytes) = entry.body {
            let (clock_ms, Add { id, name, by }) = rmp_serde::from_slice(bytes).map_err(io::Error::other)?;
            state.clock_ms = state.clock_ms.max(clock_ms);
            outcome = match state.done.get(&id) {
                Some(done) => *done,
                None => {
                    let counter = state.counters.entry(name).or_default();
                    *counter += by;
                    state.done.insert(id, *counter);
                    *counter
                }
            };
        }
        Ok(Effect { outcome, notices: Vec::new(), concerns_controllers: false })
    }

    fn clock_ms(&self, state: &State) -> u64 {
        state.clock_ms
    }

    fn write_snapshot(&self, state: &State, to: &mut dyn Write) -> io::Result<()> {
        let mut to = to;
        rmp_serde::encode::write_named(&mut to, state).map_err(io::Error::other)
    }

    fn read_snapshot(&self, from: &mut dyn Read) -> io::Result<State> {
        rmp_serde::from_read(from).map_err(io::Error::other)
    }

    fn replaced(&self) {
        self.replaced.fetch_add(1, Ordering::Relaxed);
    }
}
