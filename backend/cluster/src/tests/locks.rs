//! What holds for every history of locks.

use crate::version::Formats;
use crate::{
    Body, Effect, Entry, State,
    command::{Command, Record},
    locks::{SessionRef, WaitResult},
    outcome::Outcome,
    request::{Actor, Request},
    time::ClusterTime,
};
use proptest::{collection::vec, prelude::*};
use ringmaster_common::{
    Timestamp,
    id::{NodeId, Token},
    lock::{AcquireLock, LockFact, LockMode, ReleaseLock, RenewLock},
};
use std::collections::{BTreeMap, BTreeSet};

const NAMES: [&str; 2] = ["a", "b"];
/// Enough that most are new, and some are repeated.
const REQUESTS: u8 = 60;

#[derive(Clone, Debug)]
enum Next {
    Acquire {
        request: u8,
        acquire: AcquireLock,
        node: u64,
    },
    /// By the holder at this place of this lock, if there is one.
    Renew {
        name: usize,
        place: usize,
        ttl_ms: u64,
    },
    Release {
        name: usize,
        place: usize,
        request: u8,
    },
    Leave {
        name: usize,
        request: u8,
        node: u64,
        may_return: bool,
    },
    Detach {
        node: u64,
    },
    Force {
        name: usize,
        place: usize,
    },
    Tick,
}

fn acquire() -> impl Strategy<Value = AcquireLock> {
    let mode = prop_oneof![
        3 => Just((None, None)),
        2 => Just((Some(LockMode::Shared), None)),
        2 => Just((None, Some(2))),
    ];
    let times =
        (100u64..3000, prop_oneof![Just(0u64), 1u64..5000], prop_oneof![4 => Just(0u64), 1 => 1u64..2000]);
    let confirm = prop_oneof![3 => Just(None), 1 => (500u64..2000).prop_map(Some)];
    (0..NAMES.len(), "[v-z]", times, mode, any::<bool>(), confirm).prop_map(
        |(name, owner, (ttl_ms, wait_ms, lock_delay_ms), (mode, limit), reentrant, confirm_within_ms)| {
            AcquireLock {
                name: NAMES[name].to_owned(),
                owner,
                ttl_ms,
                wait_ms,
                mode,
                limit,
                reentrant,
                lock_delay_ms,
                confirm_within_ms,
                ..AcquireLock::default()
            }
        },
    )
}

fn next() -> impl Strategy<Value = Next> {
    let names = 0..NAMES.len();
    prop_oneof![
        8 => (0u8..REQUESTS, acquire(), 1u64..4)
            .prop_map(|(request, acquire, node)| Next::Acquire { request, acquire, node }),
        2 => (names.clone(), 0usize..3, 100u64..3000)
            .prop_map(|(name, place, ttl_ms)| Next::Renew { name, place, ttl_ms }),
        4 => (names.clone(), 0usize..3, 0u8..REQUESTS)
            .prop_map(|(name, place, request)| Next::Release { name, place, request }),
        2 => (names.clone(), 0u8..REQUESTS, 1u64..4, any::<bool>())
            .prop_map(|(name, request, node, may_return)| Next::Leave { name, request, node, may_return }),
        1 => (1u64..4).prop_map(|node| Next::Detach { node }),
        1 => (names, 0usize..3).prop_map(|(name, place)| Next::Force { name, place }),
        3 => Just(Next::Tick),
    ]
}

fn session(node: u64, request: u8) -> SessionRef {
    SessionRef { node: NodeId(node), boot_id: 1, seq: request.into() }
}

/// The command, and the request under which it comes.
fn command(state: &State, next: Next) -> (Command, u8) {
    let holder = |name: usize, place: usize| {
        let detail = state.locks.detail(NAMES[name], state.clock)?;
        let holder = detail.lock.holders.get(place)?;
        Some((NAMES[name].to_owned(), holder.owner.clone(), holder.token))
    };
    match next {
        Next::Acquire { request, acquire, node } => {
            (Command::AcquireLock { acquire, session: session(node, request) }, request)
        }
        Next::Renew { name, place, ttl_ms } => match holder(name, place) {
            Some((name, owner, token)) => (Command::RenewLock(RenewLock { name, owner, token, ttl_ms }), 0),
            None => (Command::Tick, 0),
        },
        Next::Release { name, place, request } => match holder(name, place) {
            Some((name, owner, token)) => (Command::ReleaseLock(ReleaseLock { name, owner, token }), request),
            None => (Command::Tick, 0),
        },
        Next::Leave { name, request, node, may_return } => {
            let (name, session) = (NAMES[name].to_owned(), session(node, request));
            (Command::LeaveLock { name, session, may_return }, 0)
        }
        Next::Detach { node } => (Command::DisconnectWaiters { node: NodeId(node), boot_id: 2 }, 0),
        Next::Force { name, place } => match holder(name, place) {
            Some((name, _, token)) => (Command::ForceRelease { name, tokens: [token].into() }, 0),
            None => (Command::Tick, 0),
        },
        Next::Tick => (Command::Tick, 0),
    }
}

/// Who holds which lock by which token.
fn holders(state: &State) -> BTreeMap<Token, &'static str> {
    let of = |name: &'static str| {
        let detail = state.locks.detail(name, state.clock);
        detail.into_iter().flat_map(move |detail| detail.lock.holders).map(move |holder| (holder.token, name))
    };
    NAMES.into_iter().flat_map(of).collect()
}

/// What clients were answered about a lease: how long it lasts, and over which sessions. Over none: a renewal, which
/// is never taken back.
#[derive(Debug, Default)]
struct Promise {
    until: ClusterTime,
    answered: BTreeSet<Option<(u64, u64)>>,
}

/// Whether a lease ended because its client was not there.
fn gave_up(state: &State, name: &str, token: Token) -> bool {
    let history = state.locks.detail(name, state.clock).map(|detail| detail.history).unwrap_or_default();
    history.iter().any(|record| record.token == Some(token) && record.what == LockFact::GaveUp)
}

fn check(state: &State) -> Result<(), TestCaseError> {
    state.locks.check();
    for name in NAMES {
        let Some(detail) = state.locks.detail(name, state.clock) else { continue };
        let lock = detail.lock;
        let exclusive = lock.holders.iter().filter(|holder| holder.mode == LockMode::Exclusive).count();
        prop_assert!(exclusive == 0 || lock.holders.len() == 1, "{lock:?}");
        prop_assert!(
            lock.limit.is_none_or(|limit| exclusive > 0 || lock.held_by <= limit.into()),
            "{lock:?}"
        );
        prop_assert!(lock.holders.iter().all(|holder| holder.token >= lock.fence), "{lock:?}");
        // There are waiters only because of a holder or a delay.
        prop_assert!(lock.waited_by == 0 || lock.held_by > 0 || lock.delayed_for_ms.is_some(), "{lock:?}");
    }
    Ok(())
}

/// Every so many entries, the state is written and read as a snapshot is.
const SNAPSHOT_EVERY: u64 = 8;

fn through_snapshot(state: &State) -> State {
    rmp_serde::from_slice(&rmp_serde::to_vec_named(state).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn leases_are_kept_and_tokens_grow(history in vec((next(), 0u64..400), 1..150)) {
        let mut state = State::default();
        let mut promises = BTreeMap::<Token, Promise>::new();
        let mut queues = BTreeMap::<String, Vec<String>>::new();
        let mut highest = Token(0);
        let mut granted = BTreeSet::new();
        let mut granted_to = BTreeMap::<(String, String), (Token, SessionRef)>::new();
        for (next, pause) in history {
            let stamp = ClusterTime(state.clock.0 + pause);
            let index = state.revision.0 + 1;
            let (command, request) = command(&state, next);
            let before = holders(&state);
            // What is given up on purpose may end at once, and so may a grant that only the leaving client was answered with.
            match &command {
                Command::ReleaseLock(release) => drop(promises.remove(&release.token)),
                Command::ForceRelease { tokens, .. } => promises.retain(|token, _| !tokens.contains(token)),
                Command::LeaveLock { name, session, .. } => {
                    // It did not learn of its grant, even where that was a re-entry and the lease lasts.
                    granted_to.retain(|(lock, _), (_, by)| lock != name || by != session);
                    let alone = BTreeSet::from([Some((session.node.0, session.seq))]);
                    promises.retain(|_, promise| promise.answered != alone);
                }
                Command::DisconnectWaiters { node, .. } => {
                    granted_to.retain(|_, (_, by)| by.node != *node);
                }
                _ => {}
            }
            let id = format!("request-{request}");
            let record = Record {
                format: Formats::NEWEST.record,
                stamp,
                wall: Timestamp::UNIX_EPOCH,
                request: Request {
                    id: id.clone(),
                    actor: Actor::Operator("ops".to_owned()),
                    repeatable: true,
                    fingerprint: None,
                    resent_after: None,
                },
                command: command.clone(),
            };
            let entry = Entry { index, body: Body::Command(Box::new(record)) };
            let restored = index.is_multiple_of(SNAPSHOT_EVERY).then(|| through_snapshot(&state));
            let effect = state.apply(entry.clone());
            if let Some(mut restored) = restored {
                prop_assert_eq!(&restored.apply(entry), &effect);
                prop_assert_eq!(&restored, &state);
            }
            let Effect { response, notices, .. } = effect;

            // Who came first is granted first.
            for notice in notices {
                let queue = queues.entry(notice.lock.to_string()).or_default();
                let position = queue.iter().position(|waiting| **waiting == *notice.request);
                prop_assert!(position.is_some(), "{notice:?} concerns no waiter");
                if notice.result == WaitResult::Granted {
                    prop_assert_eq!(position, Some(0), "{:?} passed the queue {:?}", notice, queue);
                }
                queue.remove(position.unwrap_or_default());
            }
            if let (Outcome::LockQueued, Command::AcquireLock { acquire, .. }) = (&response.outcome, &command) {
                let queue = queues.entry(acquire.name.clone()).or_default();
                if !queue.contains(&id) {
                    queue.push(id.clone());
                }
            }
            if let Outcome::LockGranted(grant) = &response.outcome {
                // The client counts from when it sent the request, and that was before the stamp.
                let promise = promises.entry(grant.token).or_default();
                promise.until = promise.until.max(ClusterTime(stamp.0 + grant.expires_in_ms));
                promise.answered.insert(match &command {
                    Command::AcquireLock { session, .. } => Some((session.node.0, session.seq)),
                    _ => None,
                });
                granted.insert(grant.token);
                if let Command::AcquireLock { acquire, session, .. } = &command {
                    let granted = (grant.token, *session);
                    let before = granted_to.insert((acquire.name.clone(), id.clone()), granted).map(|(token, _)| token);
                    // Another lease only for a client that did not learn of the first one.
                    let again = before.filter(|before| *before != grant.token);
                    prop_assert!(again.is_none_or(|before| gave_up(&state, &acquire.name, before)), "{id} again");
                }
            }
            let after = holders(&state);
            for (token, name) in &after {
                if !before.contains_key(token) {
                    prop_assert!(*token > highest, "token {token} of {name} is not above {highest}");
                }
            }
            highest = after.keys().copied().chain([highest]).max().unwrap_or(highest);
            // No promise is broken.
            for (token, promise) in &promises {
                if before.contains_key(token) && !after.contains_key(token) {
                    prop_assert!(promise.until < stamp, "token {token}, {promise:?}, ended at {stamp:?}");
                }
            }
            check(&state)?;
        }
        prop_assert!(granted.len() as u64 <= state.locks.counts().granted);
    }
}
