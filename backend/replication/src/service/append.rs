//! The appends of one connection to one group, in order.
//!
//! They go through Raft's `stream_append`, so that the next is written while the disk still works on
//! the last. Such a stream ends with its first error (a conflict, a higher vote): appends that were sent
//! after it get the same answer, and the next append opens a new stream. That is always safe, because Raft
//! checks each append against the log, on whichever stream it came.

use super::{leader_log, stopped};
use crate::{
    registry::Registry,
    replica::Replica,
    types::TypeConfig,
    wire::{self, APPEND_WINDOW, Append},
};
use bytes::Bytes;
use futures::{StreamExt, channel::mpsc as stream_mpsc};
use openraft::{error::Fatal, raft::StreamAppendResult};
use ringmaster_common::id::GroupId;
use ringmaster_peer::{Answer, Failure, FailureCode, Incoming};
use std::{collections::VecDeque, pin::pin};
use tokio::sync::mpsc;

/// How many appends may wait for their turn. A sender has [`APPEND_WINDOW`] on their way; those of
/// a stream that it has given up may still be before them.
const QUEUE: usize = 4 * APPEND_WINDOW;

/// A lane takes appends until its sender is dropped.
pub fn lane(groups: Registry, group: GroupId) -> mpsc::Sender<Incoming> {
    let (sender, mut requests) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(first) = requests.recv().await {
            match groups.get(group) {
                Ok(group) => serve_stream(group.replica(), first, &mut requests).await,
                Err(failure) => first.answer.fail(&failure),
            }
        }
    });
    sender
}

/// Serves appends through one stream, until it or the lane ends.
async fn serve_stream(replica: &Replica, first: Incoming, requests: &mut mpsc::Receiver<Incoming>) {
    // There is always room: it has as many places as may be waiting.
    let (mut to_raft, input) = stream_mpsc::channel::<Append>(APPEND_WINDOW);
    let results = replica.raft().stream_append(input);
    let mut results =
        pin!(results.map(|result: Result<StreamAppendResult<TypeConfig>, Fatal<TypeConfig>>| {
            result.map_err(stopped)
        }));
    let mut waiting: VecDeque<Answer> = VecDeque::new();
    let mut next = Some(first);
    loop {
        if let Some(Incoming { body, answer, .. }) = next.take() {
            match wire::decode(&body) {
                Err(failure) => answer.fail(&failure),
                Ok(append) => {
                    waiting.push_back(answer);
                    if let Err(failure) = leader_log::check(replica, &append).await {
                        return answer_all(waiting, &Err(failure));
                    }
                    if to_raft.try_send(append).is_err() {
                        let failure = Failure::new(FailureCode::Stopped, "Raft takes no more appends");
                        return answer_all(waiting, &Err(failure));
                    }
                }
            }
        }
        tokio::select! {
            request = requests.recv(), if waiting.len() < APPEND_WINDOW => match request {
                Some(request) => next = Some(request),
                None => return,
            },
            result = results.next(), if !waiting.is_empty() => {
                let (reply, more) = match result {
                    Some(Ok(result)) => (wire::reply(&result), result.is_ok()),
                    Some(Err(failure)) => (Err(failure), false),
                    None => (Err(Failure::new(FailureCode::Stopped, "Raft has ended the stream")), false),
                };
                if !more {
                    return answer_all(waiting, &reply);
                }
                if let Some(answer) = waiting.pop_front() {
                    answer.with(reply);
                }
            }
        }
    }
}

fn answer_all(waiting: VecDeque<Answer>, reply: &Result<Bytes, Failure>) {
    for answer in waiting {
        answer.with(reply.clone());
    }
}
