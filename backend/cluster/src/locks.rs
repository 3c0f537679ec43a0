//! Locks: leases with fencing tokens, and fair queues.
//!
//! What always holds:
//! - An exclusive holder is alone; sharers are no more than their limit allows.
//! - Every grant has a token of its own, from a counter that only grows.
//! - Requests are granted in the order in which they came; none passes the queue, not even to share.
//! - A lease runs on cluster time. It may end late, never early.
//! - A holder or waiter is known by the id of its request, so a repeat finds its own place again. One that comes after
//!   its lease has ended is not granted again.
//!
//! A waiter's client is connected to some node, its *session*. That node is notified of the grant
//! ([`LockNotification`]), and answers its client once it has *claimed* the grant by the same request again. A
//! grant that is not claimed within [`claim_within`](crate::limits::Limits::claim_within) goes to the next in the queue, so a waiter whose
//! client and node are gone delays the queue for less than a TTL.
//!
//! Locks make no events: there may be thousands of grants a second, and no browser wants them all.
//! Each lock keeps a short history instead, and all of them are counted.

mod ended;
mod lock;
mod waits;

use crate::{Context, State, limits::Limits, outcome::Outcome, request::Request, time::ClusterTime};
use ended::{Ended, EndedLeases};
use imbl::{OrdMap, OrdSet};
use lock::{AcquireRequest, Lock, LockTx};
use ringmaster_common::{
    error::{Code, Refusal},
    id::{NodeId, Revision, Token},
    lock::{
        self as api, AcquireLock, LockCounts, LockDetail, LockFact, LockVerdict, MAX_HOLDERS, ReleaseLock,
        RenewLock,
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, ops::Bound, sync::Arc};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Locks {
    by_name: OrdMap<Arc<str>, Arc<Lock>>,
    /// When each lock has to be looked after.
    due: OrdSet<(ClusterTime, Arc<str>)>,
    /// Those with waiters.
    contended: OrdSet<Arc<str>>,
    /// Those without holder and waiter, by when they became free.
    free: OrdSet<(Revision, Arc<str>)>,
    ended: EndedLeases,
    last_token: Token,
    counts: LockCounts,
    /// The size of the requests of all holders and waiters.
    bytes: u64,
    /// When any of them changed last.
    pub revision: Revision,
}

/// Where a client is connected: the node, which of its lifetimes, and which of the connections in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRef {
    pub node: NodeId,
    pub boot_id: u64,
    pub seq: u64,
}

/// What the node of a waiter is notified of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockNotification {
    pub lock: Arc<str>,
    /// The id of the waiter's request.
    pub request: Arc<str>,
    pub result: WaitResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitResult {
    /// It is theirs, once it is claimed.
    Granted,
    /// They wait no more.
    GaveUp,
}

/// What a new request finds.
enum AcquireCase {
    Holder(usize),
    Waiter(usize),
    Reentry(usize),
    Free,
    Behind,
}

impl Locks {
    pub fn counts(&self) -> LockCounts {
        self.counts
    }

    /// When the first of them has to be looked after.
    pub fn next_due(&self) -> Option<ClusterTime> {
        self.due.get_min().map(|(due, _)| *due)
    }

    /// The revision at which the lock was last granted or given up: what a plan stands on.
    pub fn version(&self, name: &str) -> Revision {
        self.by_name.get(name).map_or(Revision(0), |lock| lock.version)
    }

    /// The token that the next grant of any lock will have.
    pub fn next_token(&self) -> Token {
        Token(self.last_token.0 + 1)
    }

    /// Leaves out `count` tokens: they may have been given to locks by entries that are lost.
    pub(super) fn skip_tokens(&mut self, count: u64) {
        self.last_token.0 = self.last_token.0.saturating_add(count);
    }

    pub(super) fn acquire(
        &mut self,
        context: &mut Context,
        request: &Request,
        session: SessionRef,
        acquire: AcquireLock,
    ) -> Result<Outcome, Refusal> {
        let name = acquire.name.clone();
        let case = self.case_of(context, request, &acquire)?;
        let request = request.id.as_str();
        match case {
            AcquireCase::Holder(position) => Ok(self.update(context, &name, |lock, tx| {
                lock.claim(tx, position, request, session);
                Outcome::LockGranted(lock.grant_at(position, &name, tx.context.now))
            })),
            AcquireCase::Waiter(position) if acquire.wait_ms == 0 => {
                self.update(context, &name, |lock, tx| lock.withdraw(tx, position));
                Err(self.not_granted(&name, context.now))
            }
            AcquireCase::Waiter(position) => Ok(self.update(context, &name, |lock, tx| {
                lock.connect(tx, position, session, acquire.wait_ms);
                Outcome::LockQueued
            })),
            AcquireCase::Reentry(position) => Ok(self.update(context, &name, |lock, tx| {
                let request = Arc::new(AcquireRequest { id: request.into(), acquire });
                lock.reenter(tx, position, request, session);
                Outcome::LockGranted(lock.grant_at(position, &name, tx.context.now))
            })),
            AcquireCase::Free => Ok(self.update(context, &name, |lock, tx| {
                let position =
                    lock.grant(tx, Arc::new(AcquireRequest { id: request.into(), acquire }), session, true);
                Outcome::LockGranted(lock.grant_at(position, &name, tx.context.now))
            })),
            AcquireCase::Behind => Ok(self.update(context, &name, |lock, tx| {
                lock.queue(tx, Arc::new(AcquireRequest { id: request.into(), acquire }), session);
                Outcome::LockQueued
            })),
        }
    }

    fn case_of(
        &self,
        context: &Context,
        request: &Request,
        acquire: &AcquireLock,
    ) -> Result<AcquireCase, Refusal> {
        let name = &acquire.name;
        let resent_after = request.resent_after;
        let request = request.id.as_str();
        if let Some(ended) = self.ended.request(name, request) {
            return Err(repeated_too_late(ended, request, &acquire.owner));
        }
        let lock = self.by_name.get(name.as_str());
        let is_known = lock.is_some_and(|lock| {
            lock.holder_by_request(request).is_some() || lock.waiter_by_request(request).is_some()
        });
        let most_bytes = context.limits.lock_bytes;
        if self.bytes >= most_bytes && !is_known {
            return Err(Refusal::new(
                Code::LimitReached,
                format!(
                    "the holders and waiters of all locks take {most_bytes} bytes, as many as a cluster holds"
                ),
            ));
        }
        let Some(lock) = lock else {
            // Those that are free make room by themselves.
            let most = context.limits.locks;
            return if self.by_name.len() < most + context.limits.free_locks {
                Ok(AcquireCase::Free)
            } else {
                Err(Refusal::new(
                    Code::LimitReached,
                    format!("{most} locks are in use, as many as a cluster holds"),
                ))
            };
        };
        if let Some((position, entry)) = lock.holder_by_request(request) {
            return entry.request.repeated_by(acquire).map(|()| AcquireCase::Holder(position));
        }
        if let Some(position) = lock.waiter_by_request(request) {
            return lock.waiters[position]
                .request
                .repeated_by(acquire)
                .map(|()| AcquireCase::Waiter(position));
        }
        if let Some(limit) = lock.limit_other_than(acquire) {
            return Err(Refusal::new(
                Code::LockLimitDiffers,
                format!(
                    "{name} is in use with {limit}; ask for the same limit, or wait until the lock is free"
                ),
            ));
        }
        if acquire.reentrant
            && let Some(position) = lock.reentry(context.limits, &acquire.owner, acquire.mode())?
        {
            // Counted twice, it would be left once too few. Another lease for a client that is there harms no one.
            if resent_after.is_some_and(|after| self.ended.may_have_forgotten(after)) {
                return Err(Refusal::new(
                    Code::OutcomeUnknown,
                    format!(
                        "whether the request entered {name} before is no longer known; look at the lock, and enter it \
                         under another key"
                    ),
                ));
            }
            return Ok(AcquireCase::Reentry(position));
        }
        if lock.waiters.is_empty() && lock.admits(context.limits, acquire, context.now) {
            return Ok(AcquireCase::Free);
        }
        if acquire.wait_ms == 0 {
            return Err(lock.held(name, context.now));
        }
        let most = context.limits.waiters;
        if lock.waiters.len() >= most {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("{name} has {most} waiters, as many as a queue holds"),
            ));
        }
        Ok(AcquireCase::Behind)
    }

    pub(super) fn renew(&mut self, context: &mut Context, renew: &RenewLock) -> Result<Outcome, Refusal> {
        let position = self.held_by(&renew.name, &renew.owner, renew.token)?;
        Ok(self.update(context, &renew.name, |lock, tx| {
            lock.renew(tx, position, renew.ttl_ms);
            Outcome::LockGranted(lock.grant_at(position, &renew.name, tx.context.now))
        }))
    }

    /// A release that was carried out before is answered as it was then.
    pub(super) fn release(
        &mut self,
        context: &mut Context,
        request: &str,
        release: &ReleaseLock,
    ) -> Result<Outcome, Refusal> {
        match self.held_by(&release.name, &release.owner, release.token) {
            Ok(position) => {
                self.update(context, &release.name, |lock, tx| lock.release(tx, position, request));
                Ok(Outcome::Done)
            }
            Err(_) if self.was_released(release) => Ok(Outcome::Done),
            Err(refusal) => Err(refusal),
        }
    }

    fn was_released(&self, release: &ReleaseLock) -> bool {
        let end = self.ended.lease(&release.name, release.token);
        end.is_some_and(|end| end.what == LockFact::Released && end.owner == release.owner)
    }

    fn held_by(&self, name: &str, owner: &str, token: Token) -> Result<usize, Refusal> {
        let lost = |why: String| Err(Refusal::new(Code::LockLost, why));
        if let Some(ended) = self.ended.lease(name, token) {
            let (what, revision) = (ended.what.as_str(), ended.revision);
            return lost(format!("token {token} no longer holds {name}: {what} at revision {revision}"));
        }
        let Some(lock) = self.by_name.get(name) else {
            return lost(format!("token {token} does not hold {name}: the lock has no holder"));
        };
        match lock.holders.iter().position(|lease| lease.token == token) {
            Some(position) if lock.holders[position].request.acquire.owner == owner => Ok(position),
            Some(position) => {
                let holder = &lock.holders[position].request.acquire.owner;
                lost(format!("token {token} of {name} belongs to {holder}, not to {owner}"))
            }
            None => lost(format!("token {token} does not hold {name}")),
        }
    }

    /// The client of a connection is gone: it does not wait any more, and a grant that it was not
    /// answered with ends, unless the client may come back by another.
    pub(super) fn leave(&mut self, context: &mut Context, name: &str, session: SessionRef, may_return: bool) {
        let Some(lock) = self.by_name.get(name) else { return };
        if lock.has_session(session) {
            self.update(context, name, |lock, tx| lock.leave(tx, session, may_return));
        }
    }

    /// A node that was gone is there again.
    pub(super) fn reconnect(&mut self, context: &mut Context, node: NodeId) {
        for name in self.waited_for_at(|at| at.node == node) {
            self.update(context, &name, |lock, _| lock.reconnect(node));
        }
    }

    fn waited_for_at(&self, is_there: impl Fn(&SessionRef) -> bool + Copy) -> Vec<Arc<str>> {
        let waited_for =
            |name: &&Arc<str>| self.by_name.get(*name).is_some_and(|lock| lock.has_waiter_at(is_there));
        self.contended.iter().filter(waited_for).cloned().collect()
    }

    /// A node is gone, or has started a new `boot_id`: the waiters that it had may come back by another.
    pub(super) fn disconnect(&mut self, context: &mut Context, node: NodeId, boot_id: Option<u64>) {
        let gone = |at: &SessionRef| at.node == node && boot_id.is_none_or(|new| at.boot_id != new);
        for name in self.waited_for_at(gone) {
            self.update(context, &name, |lock, tx| lock.disconnect(tx, gone));
        }
    }

    /// An operator takes the lock away from the holders with these tokens.
    pub(super) fn force(&mut self, context: &mut Context, name: &str, tokens: &BTreeSet<Token>) -> Outcome {
        if self.by_name.contains_key(name) {
            self.update(context, name, |lock, tx| lock.force(tx, tokens));
        }
        let next = self.by_name.get(name).filter(|lock| !lock.holders.is_empty());
        Outcome::LockForced { next: next.map(|lock| lock.grant_at(0, name, context.now)) }
    }

    /// Does what is due, for so many locks as one log entry may.
    pub(super) fn expire(&mut self, context: &mut Context) {
        for _ in 0..context.limits.due_locks {
            let Some((due, name)) = self.due.get_min().cloned() else { return };
            if due > context.now {
                return;
            }
            self.update(context, &name, |lock, tx| lock.expire(tx));
        }
    }

    /// Changes one lock, grants it to the next waiters, and brings the indexes up to date.
    fn update<T>(
        &mut self,
        context: &mut Context,
        name: &str,
        work: impl FnOnce(&mut Lock, &mut LockTx<'_>) -> T,
    ) -> T {
        let known = self.by_name.get_key_value(name).map(|(key, lock)| (key.clone(), lock.clone()));
        let (key, mut lock) = known.unwrap_or_else(|| (Arc::from(name), Arc::default()));
        let limits = context.limits;
        let before = LockIndexEntry::of(&lock, limits);
        let (revision, most_free) = (context.revision, context.limits.free_locks);
        let changing = Arc::make_mut(&mut lock);
        let mut tx = LockTx {
            name: key.clone(),
            context,
            ended: &mut self.ended,
            last_token: &mut self.last_token,
            counts: &mut self.counts,
        };
        let outcome = work(changing, &mut tx);
        changing.grant_next(&mut tx);
        let after = LockIndexEntry::of(&lock, limits);
        self.bytes = (self.bytes + after.bytes).saturating_sub(before.bytes);
        self.counts.held = self.counts.held + u64::from(after.held) - u64::from(before.held);
        self.counts.holders = self.counts.holders + after.holders - before.holders;
        self.counts.waiting = self.counts.waiting + after.waiters - before.waiters;
        if let Some(due) = before.due {
            self.due.remove(&(due, key.clone()));
        }
        if let Some(due) = after.due {
            self.due.insert((due, key.clone()));
        }
        if after.waiters > 0 {
            self.contended.insert(key.clone());
        } else {
            self.contended.remove(&key);
        }
        if before.is_free {
            self.free.remove(&(before.version, key.clone()));
        }
        if after.is_free {
            self.free.insert((after.version, key.clone()));
        }
        self.by_name.insert(key, lock);
        self.forget(most_free);
        self.revision = revision;
        outcome
    }

    /// Lets go of the locks that were free for longest.
    fn forget(&mut self, most_free: usize) {
        while self.free.len() > most_free
            && let Some((_, name)) = self.free.remove_min()
        {
            self.by_name.remove(&name);
        }
    }

    /// The refusal of a waiter whose wait has passed.
    pub fn not_granted(&self, name: &str, now: ClusterTime) -> Refusal {
        let in_use =
            self.by_name.get(name).filter(|lock| !lock.holders.is_empty() || lock.delayed_until.is_some());
        in_use.map_or_else(
            || {
                Refusal::new(
                    Code::LockHeld,
                    format!("the wait for {name} has passed; it was freed a moment ago"),
                )
            },
            |lock| lock.held(name, now),
        )
    }

    /// Whether the token belongs to a lease that runs.
    pub fn verify(&self, name: &str, token: Token) -> LockVerdict {
        let lock = self.by_name.get(name);
        LockVerdict {
            name: name.to_owned(),
            token,
            valid: lock.is_some_and(|lock| lock.holders.iter().any(|lease| lease.token == token)),
            fence: self.fence(lock),
        }
    }

    fn fence(&self, lock: Option<&Arc<Lock>>) -> Token {
        let lowest = lock.and_then(|lock| lock.holders.iter().map(|lease| lease.token).min());
        lowest.unwrap_or_else(|| self.next_token())
    }

    /// The locks in use whose names begin with `prefix`, behind the name `after`, in the order of names.
    /// Where only those with waiters are asked for, no other is looked at.
    pub fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        contended: bool,
        now: ClusterTime,
    ) -> impl Iterator<Item = api::Lock> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(prefix.to_owned()),
        };
        let start = match &start {
            Bound::Included(name) => Bound::Included(name.as_str()),
            Bound::Excluded(name) => Bound::Excluded(name.as_str()),
            Bound::Unbounded => Bound::Unbounded,
        };
        let names: Box<dyn Iterator<Item = &Arc<str>>> = if contended {
            Box::new(self.contended.range::<_, str>((start, Bound::Unbounded)))
        } else {
            Box::new(self.by_name.range::<_, str>((start, Bound::Unbounded)).map(|(name, _)| name))
        };
        let deadlocked = self.deadlocked();
        let prefix = prefix.to_owned();
        names.take_while(move |name| name.starts_with(&prefix)).filter_map(move |name| {
            let lock = self.by_name.get(name).filter(|lock| !lock.is_free())?;
            Some(self.shown(name, lock, api::LISTED, &deadlocked, now))
        })
    }

    /// One lock with all that is known of it.
    pub fn detail(&self, name: &str, now: ClusterTime) -> Option<LockDetail> {
        let lock = self.by_name.get(name)?;
        let deadlocked = self.deadlocked();
        Some(LockDetail {
            lock: self.shown(name, lock, MAX_HOLDERS as usize, &deadlocked, now),
            history: lock.history.iter().map(|record| record.as_ref().clone()).collect(),
            waits: self.waits(name, &deadlocked),
        })
    }

    fn shown(
        &self,
        name: &str,
        lock: &Arc<Lock>,
        most: usize,
        deadlocked: &waits::Deadlocks,
        now: ClusterTime,
    ) -> api::Lock {
        api::Lock {
            name: name.to_owned(),
            limit: lock.limit(),
            holders: lock.holders.iter().take(most).map(|lease| lease.shown(now)).collect(),
            held_by: lock.holders.len() as u64,
            waiters: lock.waiters.iter().take(most).map(|waiter| waiter.shown(now)).collect(),
            waited_by: lock.waiters.len() as u64,
            fence: self.fence(Some(lock)),
            delayed_for_ms: lock.delayed_until.map(|until| until.0.saturating_sub(now.0)),
            deadlocked: deadlocked.involves(name),
            version: lock.version,
        }
    }
}

/// The refusal of a request whose lease was granted and has ended.
fn repeated_too_late(ended: &Ended, request: &str, owner: &str) -> Refusal {
    let Ended { lock, token, what, revision, .. } = ended;
    if ended.owner != owner {
        return Refusal::new(
            Code::IdempotencyKeyReused,
            format!("{request} was the key of another request for {lock}; choose a new one"),
        );
    }
    let past = match token {
        Some(token) => format!("was granted {lock} before, with token {token}: {}", what.as_str()),
        None => format!("waited for {lock} before, and was withdrawn"),
    };
    Refusal::new(
        Code::LockLost,
        format!("the request {past} at revision {revision}; choose a new key to acquire it again"),
    )
}

impl State {
    /// The lock as it would stand if it were taken away from the holders with these tokens: tried out on a copy.
    pub fn lock_without(&self, name: &str, tokens: &BTreeSet<Token>) -> Option<api::Lock> {
        let mut locks = self.locks.clone();
        locks.force(&mut self.context(), name, tokens);
        Some(locks.detail(name, self.clock)?.lock)
    }
}

#[cfg(test)]
impl Locks {
    /// As if holders and waiters took all the room there is.
    pub fn fill(&mut self) {
        self.bytes = Limits::at(0).lock_bytes;
    }

    /// The indexes say what the locks say.
    pub fn check(&self) {
        let mut counts = LockCounts { held: 0, holders: 0, waiting: 0, ..self.counts };
        let (mut due, mut contended, mut bytes) = (OrdSet::new(), OrdSet::new(), 0);
        for (name, lock) in &self.by_name {
            let entry = LockIndexEntry::of(lock, Limits::at(0));
            bytes += entry.bytes;
            counts.held += u64::from(entry.held);
            counts.holders += entry.holders;
            counts.waiting += entry.waiters;
            due.extend(entry.due.map(|due| (due, name.clone())));
            contended.extend((entry.waiters > 0).then(|| name.clone()));
        }
        assert_eq!((self.counts, &self.due, &self.contended, self.bytes), (counts, &due, &contended, bytes));
    }
}

/// What the indexes know of a lock.
struct LockIndexEntry {
    held: bool,
    holders: u64,
    waiters: u64,
    bytes: u64,
    due: Option<ClusterTime>,
    is_free: bool,
    version: Revision,
}

impl LockIndexEntry {
    fn of(lock: &Lock, limits: &Limits) -> LockIndexEntry {
        LockIndexEntry {
            held: !lock.holders.is_empty(),
            holders: lock.holders.len() as u64,
            waiters: lock.waiters.len() as u64,
            bytes: lock.bytes(limits.entry_bytes),
            due: lock.due(),
            is_free: lock.is_free(),
            version: lock.version,
        }
    }
}
