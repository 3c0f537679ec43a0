//! An application with its state, without its types: what lets openraft be compiled once.

use crate::{
    application::{Application, Effect, Entry},
    published::Published,
};
use bytes::Bytes;
use ringmaster_common::id::Revision;
use serde::Serialize;
use std::{
    any::Any,
    fmt::{self, Debug},
    io::{self, Read, Write},
    sync::Arc,
};

/// Room for most outcomes, so that they need not be moved as they are encoded.
const USUAL_OUTCOME_BYTES: usize = 1024;

/// Writes one state, on a thread of its own.
pub type WriteSnapshot = Arc<dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync>;
/// Reads a state for [`Machine::replace`], on a thread of its own.
pub type ReadSnapshot = Box<dyn FnOnce(&mut dyn Read) -> io::Result<Box<dyn Any + Send>> + Send>;

/// See the module. Nothing is visible to readers before [`Machine::publish`].
pub trait Machine: Debug + Send + Sync {
    /// Applies an entry, and encodes its outcome where `answer` says that it is wanted.
    fn apply(&mut self, entry: Entry<'_>, answer: bool) -> io::Result<Bytes>;

    /// Publishes the state, then delivers the notices that have come together.
    fn publish(&mut self, revision: Revision, term: u64);

    fn snapshot(&self) -> WriteSnapshot;

    fn read_snapshot(&self) -> ReadSnapshot;

    /// Replaces the state by what [`Machine::read_snapshot`] read, and publishes it.
    fn replace(&mut self, state: Box<dyn Any + Send>, revision: Revision, term: u64);
}

#[derive(Debug)]
struct Typed<A: Application> {
    application: Arc<A>,
    state: A::State,
    published: Arc<Published<A>>,
    pending: Pending<A>,
}

/// The effects that are delivered when the state is published.
struct Pending<A: Application> {
    notices: Vec<A::Notice>,
    control: bool,
}

/// A machine that stands at the beginning, and where its state is published.
pub fn new<A: Application>(application: A) -> (Box<dyn Machine>, Arc<Published<A>>) {
    let application = Arc::new(application);
    let published = Arc::new(Published::new(application.clone()));
    let pending = Pending { notices: Vec::new(), control: false };
    let machine = Typed { application, state: A::State::default(), published: published.clone(), pending };
    (Box::new(machine), published)
}

impl<A: Application> Machine for Typed<A> {
    fn apply(&mut self, entry: Entry<'_>, answer: bool) -> io::Result<Bytes> {
        let Effect { outcome, notices, concerns_controllers } =
            self.application.apply(&mut self.state, entry)?;
        self.pending.notices.extend(notices);
        self.pending.control |= concerns_controllers;
        Ok(if answer { encode(&outcome) } else { Bytes::new() })
    }

    fn publish(&mut self, revision: Revision, term: u64) {
        let control = std::mem::take(&mut self.pending.control);
        self.published.publish(self.state.clone(), revision, term, control);
        let notices = std::mem::take(&mut self.pending.notices);
        if !notices.is_empty() {
            self.application.notify(notices);
        }
    }

    fn snapshot(&self) -> WriteSnapshot {
        let (application, state) = (self.application.clone(), self.state.clone());
        Arc::new(move |to| application.write_snapshot(&state, to))
    }

    fn read_snapshot(&self) -> ReadSnapshot {
        let application = self.application.clone();
        Box::new(move |from| Ok(Box::new(application.read_snapshot(from)?)))
    }

    fn replace(&mut self, state: Box<dyn Any + Send>, revision: Revision, term: u64) {
        self.state = *state.downcast().expect("a machine's own snapshots hold its states");
        self.published.publish(self.state.clone(), revision, term, true);
        self.application.replaced();
    }
}

impl<A: Application> Debug for Pending<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("notices", &self.notices.len()).finish_non_exhaustive()
    }
}

fn encode(outcome: &impl Serialize) -> Bytes {
    let mut bytes = Vec::with_capacity(USUAL_OUTCOME_BYTES);
    rmp_serde::encode::write_named(&mut bytes, outcome).expect("plain data encodes");
    bytes.into()
}

/// Decodes what [`Machine::apply`] encoded.
pub fn decode_outcome<A: Application>(bytes: &[u8]) -> Result<A::Outcome, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}
