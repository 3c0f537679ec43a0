//! Requests that come again: at once, late, and too late to know.

use crate::{
    Body, Entry, State,
    command::{Command, Record},
    locks::SessionRef,
    outcome::{Outcome, Response},
    precondition::Precondition,
    request::{Actor, Request},
    time::ClusterTime,
    version::Formats,
};
use ringmaster_common::{
    Timestamp,
    error::Code,
    id::{NodeId, Revision, Token},
    lock::{AcquireLock, LockGrant, ReleaseLock, RenewLock},
};
use serde_json::json;
use std::sync::Arc;

const MINUTE: u64 = 60_000;

/// A state to which requests are applied.
#[derive(Default)]
struct Cluster {
    state: State,
    now: u64,
}

impl Cluster {
    fn after(&mut self, pause_ms: u64) -> &mut Cluster {
        self.now += pause_ms;
        self
    }

    fn send(&mut self, key: &str, resent_after: Option<u64>, command: Command) -> Arc<Response> {
        let request = Request {
            id: key.to_owned(),
            actor: Actor::Operator("ops".to_owned()),
            repeatable: true,
            fingerprint: Some(1),
            resent_after: resent_after.map(Revision),
        };
        let record = Record {
            format: Formats::NEWEST.record,
            stamp: ClusterTime(self.now),
            wall: Timestamp::UNIX_EPOCH,
            request,
            command,
        };
        let index = self.state.revision.0 + 1;
        self.state.apply(Entry { index, body: Body::Command(Box::new(record)) }).response
    }

    fn put(&mut self, key: &str, resent_after: Option<u64>, value: &str) -> Arc<Response> {
        let value = json!(value);
        let command = Command::PutSetting { key: "team".to_owned(), value, precondition: Precondition::None };
        self.send(key, resent_after, command)
    }

    fn team(&self) -> String {
        self.state.settings.get("team").expect("it is set").value.to_string()
    }

    fn acquire(&mut self, key: &str, acquire: &AcquireLock) -> Outcome {
        self.acquire_again(key, None, acquire)
    }

    fn acquire_again(&mut self, key: &str, resent_after: Option<u64>, acquire: &AcquireLock) -> Outcome {
        let session = SessionRef { node: NodeId(1), boot_id: 1, seq: self.state.revision.0 };
        let acquire = acquire.clone();
        self.send(key, resent_after, Command::AcquireLock { acquire, session }).outcome.clone()
    }

    fn release(&mut self, key: &str, token: Token) -> Outcome {
        let release = ReleaseLock { name: "job".to_owned(), owner: "w".to_owned(), token };
        self.send(key, None, Command::ReleaseLock(release)).outcome.clone()
    }
}

fn job() -> AcquireLock {
    AcquireLock { name: "job".to_owned(), owner: "w".to_owned(), ttl_ms: MINUTE, ..AcquireLock::default() }
}

fn granted(outcome: Outcome) -> LockGrant {
    match outcome {
        Outcome::LockGranted(grant) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

fn code(outcome: &Outcome) -> Code {
    match outcome {
        Outcome::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_key_is_known_behind_thousands_of_others() {
    let mut cluster = Cluster::default();
    let first = cluster.put("k", None, "one");
    cluster.put("another", None, "two");
    for other in 0..20_000 {
        cluster.after(1).put(&format!("other-{other}"), None, "two");
    }
    assert_eq!(cluster.put("k", None, "one"), first, "the first answer");
    assert_eq!(cluster.team(), r#""two""#);
}

#[test]
fn a_key_is_forgotten_after_its_time_and_a_repeat_is_refused_then() {
    let mut cluster = Cluster::default();
    let first = cluster.put("k", None, "one");
    cluster.after(10 * MINUTE).put("a", None, "two");
    assert_eq!(cluster.put("k", Some(0), "one"), first, "it is remembered for ten minutes");
    cluster.after(1).put("b", None, "two");
    let late = cluster.put("k", Some(0), "one");
    assert_eq!(code(&late.outcome), Code::OutcomeUnknown, "it may have been carried out");
    assert_eq!(cluster.team(), r#""two""#);
    let sent_later = cluster.put("c", Some(first.revision.0), "three");
    assert!(matches!(sent_later.outcome, Outcome::Stored(_)), "all answers since then are remembered");
}

#[test]
fn answers_are_bounded_by_bytes() {
    let mut cluster = Cluster::default();
    let large = "x".repeat(4_000);
    let first = cluster.put("k", None, "one");
    for other in 0..20_000 {
        cluster.put(&format!("other-{other}"), None, &large);
    }
    let late = cluster.put("k", Some(first.revision.0 - 1), "one");
    assert_eq!(code(&late.outcome), Code::OutcomeUnknown);
    let bytes = rmp_serde::to_vec_named(&cluster.state.requests).unwrap().len();
    assert!(bytes < 2 * cluster.state.limits().repeatable_bytes as usize, "{bytes}");
}

#[test]
fn an_acquire_that_comes_late_is_not_granted_again() {
    let mut cluster = Cluster::default();
    let first = granted(cluster.acquire("k", &job()));
    assert_eq!(granted(cluster.acquire("k", &job())).token, first.token, "its own lease");
    assert_eq!(cluster.release("r", first.token), Outcome::Done);
    assert_eq!(code(&cluster.after(9 * MINUTE).acquire("k", &job())), Code::LockLost);
    let other = AcquireLock { owner: "other".to_owned(), ..job() };
    assert_eq!(code(&cluster.acquire("k", &other)), Code::IdempotencyKeyReused);
    let next = granted(cluster.acquire("other", &other));
    assert!(next.token > first.token, "the queue moves on");
}

#[test]
fn an_acquire_whose_lease_expired_is_not_granted_again() {
    let mut cluster = Cluster::default();
    granted(cluster.acquire("k", &job()));
    assert_eq!(code(&cluster.after(MINUTE + 1).acquire("k", &job())), Code::LockLost);
}

#[test]
fn a_release_is_answered_alike_after_many_other_leases() {
    let mut cluster = Cluster::default();
    let first = granted(cluster.acquire("k", &job()));
    assert_eq!(cluster.release("r", first.token), Outcome::Done);
    for other in 0..100 {
        let grant = granted(cluster.acquire(&format!("other-{other}"), &job()));
        assert_eq!(cluster.release(&format!("release-{other}"), grant.token), Outcome::Done);
    }
    assert_eq!(cluster.release("again", first.token), Outcome::Done);
}

#[test]
fn a_reentry_that_comes_late_is_not_counted_again() {
    let mut cluster = Cluster::default();
    let reentrant = AcquireLock { reentrant: true, ..job() };
    let token = granted(cluster.acquire("outer", &reentrant)).token;
    assert_eq!(granted(cluster.acquire("inner", &reentrant)).depth, 2);
    assert_eq!(granted(cluster.acquire("inner", &reentrant)).depth, 2, "a repeat is the same entry");
    assert_eq!(cluster.release("leave", token), Outcome::Done);
    assert_eq!(cluster.release("leave", token), Outcome::Done, "a repeat leaves once");
    assert_eq!(code(&cluster.acquire("inner", &reentrant)), Code::LockLost);
    assert_eq!(granted(cluster.acquire("outer", &reentrant)).depth, 1);
    assert_eq!(cluster.release("end", token), Outcome::Done);
    let other = AcquireLock { owner: "other".to_owned(), ..job() };
    granted(cluster.acquire("next", &other));
}

#[test]
fn a_reentry_is_refused_where_an_earlier_one_may_be_forgotten() {
    let mut cluster = Cluster::default();
    let reentrant = AcquireLock { reentrant: true, ttl_ms: 60 * MINUTE, ..job() };
    let token = granted(cluster.acquire("outer", &reentrant)).token;
    granted(cluster.acquire("inner", &reentrant));
    assert_eq!(cluster.release("leave", token), Outcome::Done);
    // The end of another lease lets go of what is older than ten minutes.
    let other = AcquireLock { name: "other".to_owned(), ..job() };
    let ended = granted(cluster.after(10 * MINUTE + 1).acquire("o", &other));
    let release = ReleaseLock { name: ended.name, owner: ended.owner, token: ended.token };
    cluster.send("p", None, Command::ReleaseLock(release));
    let late = cluster.acquire_again("inner", Some(0), &reentrant);
    assert_eq!(code(&late), Code::OutcomeUnknown, "it may have been counted");
    let revision = cluster.state.revision.0;
    assert_eq!(granted(cluster.acquire_again("new", Some(revision), &reentrant)).depth, 2);
}

#[test]
fn a_grant_from_the_queue_ends_unless_it_is_confirmed() {
    let mut cluster = Cluster::default();
    let confirming = |owner: &str| AcquireLock {
        owner: owner.to_owned(),
        wait_ms: MINUTE,
        confirm_within_ms: Some(5_000),
        ..job()
    };
    let first = granted(cluster.acquire("w", &job()));
    assert_eq!(first.expires_in_ms, MINUTE, "a grant without a wait needs no confirmation");
    for waiter in ["silent", "alive"] {
        assert_eq!(cluster.acquire(waiter, &confirming(waiter)), Outcome::LockQueued);
    }
    cluster.release("r", first.token);
    let claimed = granted(cluster.acquire("silent", &confirming("silent")));
    assert_eq!(claimed.expires_in_ms, 5_000);
    cluster.after(5_001).send("tick", None, Command::Tick);
    let next = granted(cluster.acquire("alive", &confirming("alive")));
    assert_eq!(next.expires_in_ms, 5_000);
    let renew = RenewLock { name: next.name, owner: next.owner, token: next.token, ttl_ms: MINUTE };
    let renewed = cluster.after(4_000).send("renew", None, Command::RenewLock(renew));
    assert_eq!(granted(renewed.outcome.clone()).expires_in_ms, MINUTE);
    // One that never learned of its grant may wait again.
    assert_eq!(cluster.acquire("silent", &confirming("silent")), Outcome::LockQueued);
}

#[test]
fn a_waiter_withdraws_by_the_same_request_without_a_wait() {
    let mut cluster = Cluster::default();
    let waiting = |owner: &str| AcquireLock { owner: owner.to_owned(), wait_ms: MINUTE, ..job() };
    let first = granted(cluster.acquire("k", &job()));
    assert_eq!(cluster.acquire("l", &waiting("gone")), Outcome::LockQueued);
    assert_eq!(cluster.acquire("m", &waiting("next")), Outcome::LockQueued);
    let withdrawn = AcquireLock { wait_ms: 0, ..waiting("gone") };
    assert_eq!(code(&cluster.acquire("l", &withdrawn)), Code::LockHeld);
    assert_eq!(code(&cluster.acquire("l", &waiting("gone"))), Code::LockLost, "an attempt that comes late");
    cluster.release("r", first.token);
    assert_eq!(granted(cluster.acquire("m", &waiting("next"))).owner, "next");
}

#[test]
fn what_is_held_and_waited_for_is_bounded_by_bytes() {
    let mut cluster = Cluster::default();
    let other = AcquireLock { owner: "other".to_owned(), wait_ms: MINUTE, ..job() };
    let first = granted(cluster.acquire("k", &job()));
    cluster.state.locks.fill();
    assert_eq!(code(&cluster.acquire("l", &other)), Code::LimitReached, "no room to wait");
    let elsewhere = AcquireLock { name: "elsewhere".to_owned(), ..job() };
    assert_eq!(code(&cluster.acquire("m", &elsewhere)), Code::LimitReached, "no room to hold");
    assert_eq!(granted(cluster.acquire("k", &job())).token, first.token, "a repeat needs no room");
    assert_eq!(cluster.release("r", first.token), Outcome::Done);
    granted(cluster.acquire("m", &elsewhere));
}
