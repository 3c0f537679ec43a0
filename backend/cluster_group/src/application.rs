//! The cluster application: the pure core of group 0, as a Raft group replicates it.

use crate::{checkpoints::Checkpoints, lock_waiters::LockWaiters};
use bytes::Bytes;
use ringmaster_cluster::{
    self as state, Body, State,
    command::{ClusterTime, Command, Record, Request, Response},
    locks::LockNotification,
    version::{self, Formats},
};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    id::{NodeId, Revision},
};
use ringmaster_replication::application::{self, Application, Effect, Entry, LeaderCall, Stamp};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{
    fmt,
    io::{self, Cursor, Read, Write},
    sync::Arc,
};

/// The format of a snapshot is within its first bytes.
const FORMAT_WITHIN: u64 = 64;

/// The cluster application, and the clients of this node that wait for locks.
#[derive(Debug, Default)]
pub struct ClusterApplication {
    pub(crate) waiters: LockWaiters,
    pub(crate) checkpoints: Checkpoints,
}

/// A command, with the request that asks for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proposal {
    pub request: Request,
    pub command: Command,
}

/// A question to the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Query {
    Plan {
        request: Request,
        action: Action,
    },
    /// The lease of a registration is renewed.
    Renew {
        upstream: String,
        endpoint: String,
    },
}

/// The leader's answer to a [`Query`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Plan(Arc<Response>),
    /// Whether the registration is still active.
    Renewed(bool),
}

impl LeaderCall for Proposal {
    fn request_id(&self) -> &str {
        &self.request.id
    }

    fn sent_again(&mut self, revision: Revision) {
        self.request.sent_again(revision);
    }
}

impl LeaderCall for Query {
    fn request_id(&self) -> &str {
        match self {
            Query::Plan { request, .. } => &request.id,
            Query::Renew { .. } => "",
        }
    }

    fn sent_again(&mut self, revision: Revision) {
        if let Query::Plan { request, .. } = self {
            request.sent_again(revision);
        }
    }
}

impl Application for ClusterApplication {
    type Command = Proposal;
    type Outcome = Arc<Response>;
    type Query = Query;
    type Answer = Answer;
    type State = State;
    type Notice = LockNotification;

    fn admit(&self, state: &State, proposal: &Proposal) -> Result<(), Refusal> {
        check_level(state, proposal.command.level())?;
        proposal.command.check_form(state.limits())
    }

    fn encode(&self, state: &State, Proposal { request, command }: Proposal, stamp: Stamp) -> Bytes {
        let format = Formats::at(state.feature_level).record;
        let record =
            Record { format, stamp: ClusterTime(stamp.clock_ms), wall: stamp.wall, request, command };
        record.encode()
    }

    fn apply(&self, state: &mut State, entry: Entry<'_>) -> io::Result<Effect<Self>> {
        let Entry { index, body } = entry;
        let body = match body {
            application::Body::Blank => Body::Blank,
            application::Body::Membership { voters, learners } => Body::Membership { voters, learners },
            application::Body::Command(bytes) => {
                let record = Record::decode(bytes).map_err(|error| {
                    io::Error::other(format!(
                        "log entry {index} cannot be applied by this version: {error}; run the version that the other \
                         nodes run"
                    ))
                })?;
                tracing::debug!(request = record.request.id, revision = index, "applying");
                Body::Command(Box::new(record))
            }
        };
        let before = state.clock;
        let effect = state.apply(state::Entry { index, body });
        self.checkpoints.applied(before, state);
        version::check(state.feature_level)?;
        Ok(Effect {
            outcome: effect.response,
            notices: effect.notices,
            concerns_controllers: effect.concerns_controllers,
        })
    }

    fn clock_ms(&self, state: &State) -> u64 {
        state.clock.0
    }

    fn write_snapshot(&self, state: &State, to: &mut dyn Write) -> io::Result<()> {
        let format = Formats::at(state.feature_level).snapshot;
        let mut to = to;
        rmp_serde::encode::write_named(&mut to, &SnapshotBody { format, state }).map_err(io::Error::other)
    }

    fn read_snapshot(&self, from: &mut dyn Read) -> io::Result<State> {
        // First the format: the fields of a newer one may be others.
        let mut start = Vec::new();
        from.take(FORMAT_WITHIN).read_to_end(&mut start)?;
        version::check_format(leading_format(&start)?, Formats::NEWEST.snapshot).map_err(|unknown| {
            io::Error::other(format!("the snapshot has {unknown}; run the version that the other nodes run"))
        })?;
        let whole = Cursor::new(start).chain(from);
        let SnapshotBody::<State> { state, .. } = rmp_serde::from_read(whole).map_err(io::Error::other)?;
        version::check(state.feature_level)?;
        Ok(state)
    }

    fn notify(&self, notices: Vec<LockNotification>) {
        self.waiters.notify(notices);
    }

    fn replaced(&self) {
        // The entries that the snapshot covers may have concerned some of them.
        self.waiters.recheck_all();
    }

    /// A node that is ordered to be drained does not lead.
    fn may_lead(&self, state: &State, node: NodeId) -> bool {
        !state.membership.get(node).is_some_and(|node| node.status.is_ordered())
    }
}

/// Refuses what not every member could read. A node may learn late that all can by now.
pub(crate) fn check_level(state: &State, needed: u32) -> Result<(), Refusal> {
    let level = state.feature_level;
    if needed <= level {
        return Ok(());
    }
    Err(Refusal::new(
        Code::UpgradeUnfinished,
        format!(
            "the cluster is at feature level {level}, and this takes level {needed}; the level rises automatically \
             once every node runs a version that can do it"
        ),
    ))
}

/// `format` stays the first field: it is read from the first bytes alone.
#[derive(Serialize, Deserialize)]
struct SnapshotBody<S> {
    format: u16,
    state: S,
}

/// The first field of a map, which is the format; the rest is not looked at.
fn leading_format(start: &[u8]) -> io::Result<u16> {
    struct Leading<'a>(&'a mut Option<u16>);

    impl<'de> de::Visitor<'de> for Leading<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a snapshot that begins with its format")
        }

        fn visit_map<M: de::MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
            if map.next_key::<String>()?.is_some_and(|key| key == "format") {
                *self.0 = Some(map.next_value()?);
            }
            Ok(())
        }
    }

    let mut format = None;
    // An error about the rest of the map means nothing here.
    let read = rmp_serde::Deserializer::from_read_ref(start).deserialize_map(Leading(&mut format));
    format.ok_or_else(|| match read {
        Err(error) => io::Error::other(error),
        Ok(()) => io::Error::other("the snapshot does not begin with its format"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_a_newer_format_differs_from_damage() {
        let application = ClusterApplication::default();
        let encode = |format| {
            // As a later version might write it: the state has become a list.
            rmp_serde::to_vec_named(&SnapshotBody { format, state: ["shard"; 20] }).unwrap()
        };
        let newest = Formats::NEWEST.snapshot;
        let newer = newest + 1;
        let error = application.read_snapshot(&mut &encode(newer)[..]).expect_err("it cannot be read");
        assert_eq!(
            error.to_string(),
            format!(
                "the snapshot has format {newer}, and this version reads up to {newest}; run the version \
                 that the other nodes run"
            )
        );
        let error = application.read_snapshot(&mut &encode(newest)[..]).expect_err("no state");
        assert!(!error.to_string().contains("run the version"), "{error}");
        application.read_snapshot(&mut &b""[..]).expect_err("nothing is no snapshot");
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let application = ClusterApplication::default();
        let mut state = State::default();
        for index in 1..=3 {
            let voters = (1..=index).map(NodeId).collect();
            let body = application::Body::Membership { voters, learners: [NodeId(9)].into() };
            application.apply(&mut state, Entry { index, body }).unwrap();
        }
        let mut written = Vec::new();
        application.write_snapshot(&state, &mut written).unwrap();
        assert_eq!(application.read_snapshot(&mut &written[..]).unwrap(), state);
    }
}
