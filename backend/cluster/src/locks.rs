//! Locks: leases with fencing tokens, and fair queues.
//!
//! What always holds:
//! - An exclusive holder is alone; sharers are no more than their limit allows.
//! - Every grant has a token of its own, from a counter that only grows.
//! - Whoever came first is granted first; nobody passes a queue, not even to share.
//! - A lease runs on cluster time. It may end late, never early.
//! - Who waits or holds is known by the id of their request, so a repeat finds its own place again.
//!
//! A waiter's client is connected to some node, its *attachment*. That node is told of the grant
//! ([`Notice`]), and answers its client once it has *claimed* the grant by the same request again. A
//! grant that nobody claims within [`CLAIM_WITHIN`] goes to the next in the queue, so a waiter whose
//! client and node are gone holds nobody up for a whole TTL.
//!
//! Locks make no events: there may be thousands of grants a second, and no browser wants them all.
//! Each lock keeps a short history instead, and all of them are counted.

mod lock;
mod waits;

use crate::{
    Context,
    command::{ClusterTime, Outcome},
};
use imbl::{OrdMap, OrdSet};
use lock::{Ask, Lock, Turn};
use ringmaster_common::{
    error::{Code, Refusal},
    id::{NodeId, Revision, Token},
    lock::{
        self as api, AcquireLock, LockCounts, LockDetail, LockFact, LockVerdict, MAX_HOLDERS, ReleaseLock,
        RenewLock, check_ttl,
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, ops::Bound, sync::Arc, time::Duration};

/// How many locks may be in use at a time.
pub const MAX_LOCKS: usize = 200_000;
/// How many may wait for one lock.
pub const MAX_WAITERS: usize = 1000;
/// How many locks that nobody uses are remembered, for their history.
pub const MAX_FREE: usize = 4096;
/// How many entries the history of a lock has.
pub const MAX_RECORDS: usize = 32;
/// How many ends of leases a lock remembers, to answer a release that is repeated.
pub const MAX_ENDED: usize = 8;
/// How long a grant to a waiter is kept for its node to claim it.
pub const CLAIM_WITHIN: Duration = Duration::from_secs(2);
/// How long a waiter whose node is gone keeps its place, for its client to come back by another.
pub const REATTACH_WITHIN: Duration = Duration::from_secs(2);
/// How many locks are looked after in one log entry because something of theirs was due.
const MAX_DUE: usize = 1000;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Locks {
    by_name: OrdMap<Arc<str>, Arc<Lock>>,
    /// When each lock has to be looked after.
    due: OrdSet<(ClusterTime, Arc<str>)>,
    /// Those that somebody waits for.
    contended: OrdSet<Arc<str>>,
    /// Those that nobody uses, by when they became free.
    free: OrdSet<(Revision, Arc<str>)>,
    last_token: Token,
    counts: LockCounts,
    /// When any of them changed last.
    pub revision: Revision,
}

/// Where a client is connected: the node, which of its lifetimes, and which of the connections in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub node: NodeId,
    pub lifetime: u64,
    pub serial: u64,
}

/// What the node of a waiter is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub lock: Arc<str>,
    /// The id of the waiter's request.
    pub request: Arc<str>,
    pub fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is theirs, once it is claimed.
    Granted,
    /// They wait no more.
    GaveUp,
}

/// What a new request finds.
enum Place {
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

    pub(super) fn acquire(
        &mut self,
        context: &mut Context,
        request: &str,
        attachment: Attachment,
        acquire: AcquireLock,
    ) -> Result<Outcome, Refusal> {
        acquire.check().map_err(|detail| Refusal::new(Code::InvalidRequest, detail))?;
        let name = acquire.name.clone();
        match self.place(context, request, &acquire)? {
            Place::Holder(position) => Ok(self.change(context, &name, |lock, turn| {
                lock.claim(turn, position, request, attachment);
                Outcome::LockGranted(lock.grant_at(position, &name, turn.context.now))
            })),
            Place::Waiter(position) => Ok(self.change(context, &name, |lock, turn| {
                lock.attach(turn, position, attachment, acquire.wait_ms);
                Outcome::LockQueued
            })),
            Place::Reentry(position) => Ok(self.change(context, &name, |lock, turn| {
                let ask = Arc::new(Ask { request: request.into(), acquire });
                lock.reenter(turn, position, ask, attachment);
                Outcome::LockGranted(lock.grant_at(position, &name, turn.context.now))
            })),
            Place::Free => Ok(self.change(context, &name, |lock, turn| {
                let position =
                    lock.grant(turn, Arc::new(Ask { request: request.into(), acquire }), attachment, true);
                Outcome::LockGranted(lock.grant_at(position, &name, turn.context.now))
            })),
            Place::Behind => Ok(self.change(context, &name, |lock, turn| {
                lock.queue(turn, Arc::new(Ask { request: request.into(), acquire }), attachment);
                Outcome::LockQueued
            })),
        }
    }

    fn place(&self, context: &Context, request: &str, acquire: &AcquireLock) -> Result<Place, Refusal> {
        let name = &acquire.name;
        let Some(lock) = self.by_name.get(name.as_str()) else {
            // Those that are free make room by themselves.
            return if self.by_name.len() < MAX_LOCKS + MAX_FREE {
                Ok(Place::Free)
            } else {
                Err(Refusal::new(
                    Code::LimitReached,
                    format!("{MAX_LOCKS} locks are in use, as many as a cluster holds"),
                ))
            };
        };
        if let Some((position, entry)) = lock.holder_by_request(request) {
            return entry.ask.repeated_by(acquire).map(|()| Place::Holder(position));
        }
        if let Some(position) = lock.waiter_by_request(request) {
            return lock.waiters[position].ask.repeated_by(acquire).map(|()| Place::Waiter(position));
        }
        if let Some(limit) = lock.limit_other_than(acquire) {
            return Err(Refusal::new(
                Code::LockLimitDiffers,
                format!("{name} is in use with {limit}; ask for the same, or wait until nobody uses it"),
            ));
        }
        if acquire.reentrant
            && let Some(position) = lock.reentry(&acquire.owner, acquire.mode())?
        {
            return Ok(Place::Reentry(position));
        }
        if lock.waiters.is_empty() && lock.admits(acquire, context.now) {
            return Ok(Place::Free);
        }
        if acquire.wait_ms == 0 {
            return Err(lock.held(name, context.now));
        }
        if lock.waiters.len() >= MAX_WAITERS {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("{MAX_WAITERS} wait for {name} already, as many as a queue holds"),
            ));
        }
        Ok(Place::Behind)
    }

    pub(super) fn renew(&mut self, context: &mut Context, renew: &RenewLock) -> Result<Outcome, Refusal> {
        check_ttl(renew.ttl_ms).map_err(|detail| Refusal::new(Code::InvalidRequest, detail))?;
        let position = self.held_by(&renew.name, &renew.owner, renew.token)?;
        Ok(self.change(context, &renew.name, |lock, turn| {
            lock.renew(turn, position, renew.ttl_ms);
            Outcome::LockGranted(lock.grant_at(position, &renew.name, turn.context.now))
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
                self.change(context, &release.name, |lock, turn| lock.release(turn, position, request));
                Ok(Outcome::Done)
            }
            Err(_) if self.was_released(release) => Ok(Outcome::Done),
            Err(refusal) => Err(refusal),
        }
    }

    fn was_released(&self, release: &ReleaseLock) -> bool {
        let end = self.by_name.get(release.name.as_str()).and_then(|lock| lock.end_of(release.token));
        end.is_some_and(|end| end.what == LockFact::Released && end.owner == release.owner)
    }

    fn held_by(&self, name: &str, owner: &str, token: Token) -> Result<usize, Refusal> {
        let lost = |why: String| Err(Refusal::new(Code::LockLost, why));
        let Some(lock) = self.by_name.get(name) else {
            return lost(format!("token {token} does not hold {name}: nobody does"));
        };
        match lock.holders.iter().position(|hold| hold.token == token) {
            Some(position) if lock.holders[position].ask.acquire.owner == owner => Ok(position),
            Some(position) => {
                let holder = &lock.holders[position].ask.acquire.owner;
                lost(format!("token {token} of {name} belongs to {holder}, not to {owner}"))
            }
            None => lost(match lock.end_of(token) {
                Some(record) => format!(
                    "token {token} does not hold {name} any more: {} at revision {}",
                    record.what.as_str(),
                    record.revision
                ),
                None => format!("token {token} does not hold {name}"),
            }),
        }
    }

    /// The client of a connection is gone: it does not wait any more, and a grant that it was not
    /// told of is nobody's, unless it may come back by another.
    pub(super) fn leave(
        &mut self,
        context: &mut Context,
        name: &str,
        attachment: Attachment,
        may_return: bool,
    ) {
        let Some(lock) = self.by_name.get(name) else { return };
        if lock.is_attached(attachment) {
            self.change(context, name, |lock, turn| lock.leave(turn, attachment, may_return));
        }
    }

    /// A node that was gone is there again.
    pub(super) fn reattach(&mut self, context: &mut Context, node: NodeId) {
        for name in self.waited_for_at(|at| at.node == node) {
            self.change(context, &name, |lock, _| lock.reattach(node));
        }
    }

    fn waited_for_at(&self, is_there: impl Fn(&Attachment) -> bool + Copy) -> Vec<Arc<str>> {
        let waited_for =
            |name: &&Arc<str>| self.by_name.get(*name).is_some_and(|lock| lock.has_waiter_at(is_there));
        self.contended.iter().filter(waited_for).cloned().collect()
    }

    /// A node is gone, or has started a new `lifetime`: the waiters that it had may come back by another.
    pub(super) fn detach(&mut self, context: &mut Context, node: NodeId, lifetime: Option<u64>) {
        let gone = |at: &Attachment| at.node == node && lifetime.is_none_or(|new| at.lifetime != new);
        for name in self.waited_for_at(gone) {
            self.change(context, &name, |lock, turn| lock.detach(turn, gone));
        }
    }

    /// An operator takes the lock away from those who hold it by these tokens.
    pub(super) fn force(&mut self, context: &mut Context, name: &str, tokens: &BTreeSet<Token>) {
        if self.by_name.contains_key(name) {
            self.change(context, name, |lock, turn| lock.force(turn, tokens));
        }
    }

    /// Does what is due, for so many locks as one log entry may.
    pub(super) fn expire(&mut self, context: &mut Context) {
        for _ in 0..MAX_DUE {
            let Some((due, name)) = self.due.get_min().cloned() else { return };
            if due > context.now {
                return;
            }
            self.change(context, &name, |lock, turn| lock.expire(turn));
        }
    }

    /// Changes one lock, grants it to whoever is next, and brings the indexes up to date.
    fn change<T>(
        &mut self,
        context: &mut Context,
        name: &str,
        work: impl FnOnce(&mut Lock, &mut Turn<'_>) -> T,
    ) -> T {
        let known = self.by_name.get_key_value(name).map(|(key, lock)| (key.clone(), lock.clone()));
        let (key, mut lock) = known.unwrap_or_else(|| (Arc::from(name), Arc::default()));
        let before = Standing::of(&lock);
        let revision = context.revision;
        let changing = Arc::make_mut(&mut lock);
        let mut turn =
            Turn { name: key.clone(), context, last_token: &mut self.last_token, counts: &mut self.counts };
        let outcome = work(changing, &mut turn);
        changing.settle(&mut turn);
        let after = Standing::of(&lock);
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
        if before.is_free() {
            self.free.remove(&(before.version, key.clone()));
        }
        if after.is_free() {
            self.free.insert((after.version, key.clone()));
        }
        self.by_name.insert(key, lock);
        self.forget();
        self.revision = revision;
        outcome
    }

    /// Lets go of the locks that were free for longest.
    fn forget(&mut self) {
        while self.free.len() > MAX_FREE
            && let Some((_, name)) = self.free.remove_min()
        {
            self.by_name.remove(&name);
        }
    }

    /// The refusal of somebody whose wait has passed.
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
            valid: lock.is_some_and(|lock| lock.holders.iter().any(|hold| hold.token == token)),
            fence: self.fence(lock),
        }
    }

    fn fence(&self, lock: Option<&Arc<Lock>>) -> Token {
        let lowest = lock.and_then(|lock| lock.holders.iter().map(|hold| hold.token).min());
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
            let lock = self.by_name.get(name).filter(|lock| !Standing::of(lock).is_free())?;
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
        deadlocked: &waits::Circles,
        now: ClusterTime,
    ) -> api::Lock {
        api::Lock {
            name: name.to_owned(),
            limit: lock.limit(),
            holders: lock.holders.iter().take(most).map(|hold| hold.shown(now)).collect(),
            held_by: lock.holders.len() as u64,
            waiters: lock.waiters.iter().take(most).map(|waiter| waiter.shown(now)).collect(),
            waited_by: lock.waiters.len() as u64,
            fence: self.fence(Some(lock)),
            delayed_for_ms: lock.delayed_until.map(|until| until.0.saturating_sub(now.0)),
            deadlocked: deadlocked.touch(name),
            version: lock.version,
        }
    }
}

#[cfg(test)]
impl Locks {
    /// The indexes say what the locks say.
    pub fn check(&self) {
        let mut counts = LockCounts { held: 0, holders: 0, waiting: 0, ..self.counts };
        let (mut due, mut contended) = (OrdSet::new(), OrdSet::new());
        for (name, lock) in &self.by_name {
            let standing = Standing::of(lock);
            counts.held += u64::from(standing.held);
            counts.holders += standing.holders;
            counts.waiting += standing.waiters;
            due.extend(standing.due.map(|due| (due, name.clone())));
            contended.extend((standing.waiters > 0).then(|| name.clone()));
        }
        assert_eq!((self.counts, &self.due, &self.contended), (counts, &due, &contended));
    }
}

/// What the indexes know of a lock.
struct Standing {
    held: bool,
    holders: u64,
    waiters: u64,
    due: Option<ClusterTime>,
    delayed: bool,
    version: Revision,
}

impl Standing {
    fn of(lock: &Lock) -> Standing {
        Standing {
            held: !lock.holders.is_empty(),
            holders: lock.holders.len() as u64,
            waiters: lock.waiters.len() as u64,
            due: lock.due(),
            delayed: lock.delayed_until.is_some(),
            version: lock.version,
        }
    }

    fn is_free(&self) -> bool {
        !self.held && self.waiters == 0 && !self.delayed
    }
}
