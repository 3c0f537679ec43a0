//! Records each election: the first command of every leader says that it was elected, and in which term.

use crate::{
    IDLE_INTERVAL,
    reconcile::{self, Controller, Leadership, NextLook},
};
use ringmaster_cluster::{State, command::Command};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::id::NodeId;

pub async fn run(group: ClusterGroup) {
    // The first entry of a term is among the changes that controllers follow.
    let changes = group.published().watch_control();
    reconcile::run(group, changes, ElectionRecorder).await;
}

struct ElectionRecorder;

impl Controller for ElectionRecorder {
    async fn reconcile(&mut self, leadership: &Leadership) -> NextLook {
        let Some(command) = record(&leadership.state(), leadership.term, leadership.me()) else {
            return NextLook::ON_CHANGE;
        };
        match leadership.propose(command).await {
            Ok(_) => NextLook::ON_CHANGE,
            Err(refusal) => {
                tracing::debug!(%refusal, "the election was not recorded; the leader tries again");
                NextLook::within(IDLE_INTERVAL)
            }
        }
    }
}

/// The record of this term's election, where the log lacks it.
fn record(state: &State, term: u64, leader: NodeId) -> Option<Command> {
    let is_recorded = state.election.as_ref().is_some_and(|election| election.term == term);
    (!is_recorded).then_some(Command::RecordElection { term, leader })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_cluster::{
        Body, Entry,
        command::{ClusterTime, Record},
        version::Formats,
    };
    use ringmaster_common::Timestamp;

    #[test]
    fn an_election_is_recorded_once_for_each_term() {
        let (mut state, me) = (State::default(), NodeId(2));
        let of_term = |term| Some(Command::RecordElection { term, leader: me });
        let command = record(&state, 3, me);
        assert_eq!(command, of_term(3));
        let record_of = |command| Record {
            format: Formats::NEWEST.record,
            stamp: ClusterTime(0),
            wall: Timestamp::UNIX_EPOCH,
            request: crate::request(me),
            command,
        };
        let entry = |command| Entry { index: 1, body: Body::Command(Box::new(record_of(command))) };
        state.apply(entry(command.expect("it is not recorded yet")));
        assert_eq!(record(&state, 3, me), None);
        assert_eq!(record(&state, 4, me), of_term(4), "another term is another election");
    }
}
