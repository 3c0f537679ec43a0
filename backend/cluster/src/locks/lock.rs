//! One lock: who holds it, who waits, and what became of it lately.

use super::{
    LockNotification, SessionRef, WaitResult,
    ended::{Ended, EndedLeases},
};
use crate::{Context, limits::Limits, time::ClusterTime};
use imbl::Vector;
use ringmaster_common::{
    Timestamp,
    error::{Code, Refusal},
    id::{NodeId, Revision, Token},
    lock::{AcquireLock, LockCounts, LockFact, LockGrant, LockHolder, LockMode, LockRecord, LockWaiter},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Lock {
    /// The one that has held it longest comes first.
    pub holders: Vec<Lease>,
    /// The one that came first is next.
    pub waiters: Vector<Waiter>,
    /// After an unclean end, it is not granted before this.
    pub delayed_until: Option<ClusterTime>,
    /// Oldest first.
    pub history: Vector<Arc<LockRecord>>,
    /// When it was last granted or given up.
    pub version: Revision,
}

/// A request to acquire the lock, with its id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct AcquireRequest {
    pub id: Arc<str>,
    pub acquire: AcquireLock,
}

impl AcquireRequest {
    /// Its size in the bound of all, beside a fixed part.
    fn bytes(&self) -> u64 {
        let AcquireLock { name, owner, meta, .. } = &self.acquire;
        let meta: usize = meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        (self.id.len() + name.len() + owner.len() + meta) as u64
    }

    /// A repeat may wait for less, and nothing else may differ.
    pub fn repeated_by(&self, acquire: &AcquireLock) -> Result<(), Refusal> {
        let first = &self.acquire;
        if *first == (AcquireLock { wait_ms: first.wait_ms, ..acquire.clone() }) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::IdempotencyKeyReused,
            format!("{} was the key of another request for {}; choose a new one", self.id, first.name),
        ))
    }
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub request: Arc<AcquireRequest>,
    pub token: Token,
    /// The requests by which its owner came in, the first of them first.
    entries: Vec<Entry>,
    since: Timestamp,
    ttl_ms: u64,
    expires: ClusterTime,
    /// Whether the holder has been answered, as far as is known here, and has confirmed the grant if it promised to.
    claimed: bool,
    /// The requests that left it without ending it.
    left_by: Vec<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub request: Arc<AcquireRequest>,
    /// The connection whose client waits for the answer. None once there was another: it may be that
    /// one of them was answered, so that neither can give it back any more.
    session: Option<SessionRef>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiter {
    pub request: Arc<AcquireRequest>,
    session: SessionRef,
    since: Timestamp,
    gives_up: ClusterTime,
    /// While the node of its client is gone: how long it keeps its place.
    disconnected_until: Option<ClusterTime>,
}

/// A change of one lock, and what all of them share.
pub(super) struct LockTx<'a> {
    pub name: Arc<str>,
    pub context: &'a mut Context,
    pub ended: &'a mut EndedLeases,
    pub last_token: &'a mut Token,
    pub counts: &'a mut LockCounts,
}

impl LockTx<'_> {
    fn in_ms(&self, ms: u64) -> ClusterTime {
        self.context.now.after(Duration::from_millis(ms))
    }

    fn notify(&mut self, request: &Arc<str>, result: WaitResult) {
        self.context.notices.push(LockNotification {
            lock: self.name.clone(),
            request: request.clone(),
            result,
        });
    }

    /// Remembers that these requests have left the lease, or that it has ended as `what` says.
    fn ended(&mut self, lease: &Lease, what: LockFact, requests: Vec<Arc<str>>, is_whole: bool) {
        self.remember(lease.owner(), Some(lease.token), what, requests, is_whole);
    }

    fn remember(
        &mut self,
        owner: &str,
        token: Option<Token>,
        what: LockFact,
        requests: Vec<Arc<str>>,
        is_whole: bool,
    ) {
        let ended = Ended {
            lock: self.name.clone(),
            owner: owner.to_owned(),
            token,
            what,
            revision: self.context.revision,
            at: self.context.now,
            requests,
            is_whole,
        };
        self.ended.remember(self.context, ended);
    }
}

impl Lease {
    fn owner(&self) -> &str {
        &self.request.acquire.owner
    }

    fn mode(&self) -> LockMode {
        self.request.acquire.mode()
    }

    /// A stamp is rounded down to a whole millisecond, so a lease that ends in this one may have a
    /// part of it left.
    fn ends_after(&self, now: ClusterTime) -> bool {
        self.expires >= now
    }

    fn left_ms(&self, now: ClusterTime) -> u64 {
        self.expires.0.saturating_sub(now.0)
    }

    fn depth(&self) -> u32 {
        self.entries.len() as u32
    }

    pub fn shown(&self, now: ClusterTime) -> LockHolder {
        LockHolder {
            owner: self.owner().to_owned(),
            token: self.token,
            mode: self.mode(),
            since: self.since,
            ttl_ms: self.ttl_ms,
            expires_in_ms: self.left_ms(now),
            depth: self.depth(),
            meta: self.request.acquire.meta.clone(),
        }
    }
}

impl Waiter {
    fn gives_up_by(&self) -> ClusterTime {
        self.disconnected_until.map_or(self.gives_up, |until| until.min(self.gives_up))
    }

    pub fn owner(&self) -> &str {
        &self.request.acquire.owner
    }

    pub fn shown(&self, now: ClusterTime) -> LockWaiter {
        LockWaiter {
            owner: self.owner().to_owned(),
            mode: self.request.acquire.mode(),
            since: self.since,
            gives_up_in_ms: self.gives_up.0.saturating_sub(now.0),
            node: self.disconnected_until.is_none().then_some(self.session.node),
            meta: self.request.acquire.meta.clone(),
        }
    }
}

impl Lock {
    /// Which holder came in by the request, and by which of their entries.
    pub fn holder_by_request(&self, request: &str) -> Option<(usize, &Entry)> {
        self.holders.iter().enumerate().find_map(|(position, lease)| {
            let entry = lease.entries.iter().find(|entry| *entry.request.id == *request)?;
            Some((position, entry))
        })
    }

    pub fn waiter_by_request(&self, request: &str) -> Option<usize> {
        self.waiters.iter().position(|waiter| *waiter.request.id == *request)
    }

    /// Where the owner holds it already, and may enter once more.
    pub fn reentry(&self, limits: &Limits, owner: &str, mode: LockMode) -> Result<Option<usize>, Refusal> {
        let position = self.holders.iter().position(|lease| lease.owner() == owner && lease.mode() == mode);
        let most = limits.lock_depth;
        match position.map(|position| self.holders[position].depth()) {
            Some(depth) if depth >= most => Err(Refusal::new(
                limits.lock_depth_code,
                format!("{owner} has entered the lock {most} times, the most that is allowed"),
            )),
            _ => Ok(position),
        }
    }

    /// Whether it is kept for its history alone.
    pub fn is_free(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty() && self.delayed_until.is_none()
    }

    fn asks(&self) -> impl Iterator<Item = &AcquireLock> {
        let holding = self.holders.iter().map(|lease| &lease.request.acquire);
        holding.chain(self.waiters.iter().map(|waiter| &waiter.request.acquire))
    }

    fn sharing(&self) -> impl Iterator<Item = &AcquireLock> {
        self.asks().filter(|acquire| acquire.mode() == LockMode::Shared)
    }

    /// The size of the requests of its holders and waiters, each with a fixed part.
    pub fn bytes(&self, entry_bytes: u64) -> u64 {
        let entries = self.holders.iter().flat_map(|lease| &lease.entries).map(|entry| &entry.request);
        let requests = entries.chain(self.waiters.iter().map(|waiter| &waiter.request));
        requests.map(|request| request.bytes() + entry_bytes).sum()
    }

    /// How many may share it, as those who share it or want to have said.
    pub fn limit(&self) -> Option<u32> {
        self.sharing().next()?.limit
    }

    /// Says under which limit it is in use, where that is not the one that is asked for.
    pub fn limit_other_than(&self, acquire: &AcquireLock) -> Option<String> {
        let first = self.sharing().next().filter(|_| acquire.mode() == LockMode::Shared)?;
        (first.limit != acquire.limit).then(|| match first.limit {
            Some(limit) => format!("the limit {limit}"),
            None => "no limit".to_owned(),
        })
    }

    /// Whether it can be granted beside its present holders.
    pub fn admits(&self, limits: &Limits, acquire: &AcquireLock, now: ClusterTime) -> bool {
        if self.delayed_until.is_some_and(|until| until >= now) {
            return false;
        }
        match acquire.mode() {
            LockMode::Exclusive => self.holders.is_empty(),
            LockMode::Shared => {
                let slots = acquire.limit.unwrap_or(limits.holders) as usize;
                self.holders.len() < slots
                    && self.holders.iter().all(|lease| lease.mode() == LockMode::Shared)
            }
        }
    }

    /// The refusal of those who cannot have it now.
    pub fn held(&self, name: &str, now: ClusterTime) -> Refusal {
        let Some(first) = self.holders.first() else {
            let left = self.delayed_until.map_or(0, |until| until.0.saturating_sub(now.0));
            return Refusal::new(
                Code::LockHeld,
                format!("{name} is not granted for another {left} ms: its last holder did not release it"),
            );
        };
        let others = match self.holders.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        let detail = format!(
            "{name} is held by {}{others} (token {}, {} ms left); it has {} waiters",
            first.owner(),
            first.token,
            first.left_ms(now),
            self.waiters.len()
        );
        Refusal { holder: Some(Box::new(first.shown(now))), ..Refusal::new(Code::LockHeld, detail) }
    }

    fn record(&mut self, tx: &LockTx<'_>, what: LockFact, owner: &str, token: Option<Token>) {
        let (revision, at) = (tx.context.revision, tx.context.wall);
        self.history.push_back(Arc::new(LockRecord { revision, at, what, owner: owner.to_owned(), token }));
        if self.history.len() > tx.context.limits.lock_records {
            self.history.pop_front();
        }
        if token.is_some() {
            self.version = revision;
        }
    }

    /// A grant that its client waits for at this moment is claimed from the start.
    pub fn grant(
        &mut self,
        tx: &mut LockTx<'_>,
        request: Arc<AcquireRequest>,
        session: SessionRef,
        claimed: bool,
    ) -> usize {
        tx.last_token.0 += 1;
        tx.counts.granted += 1;
        let (token, ttl_ms) = (*tx.last_token, request.acquire.ttl_ms);
        let expires =
            if claimed { tx.in_ms(ttl_ms) } else { tx.context.now.after(tx.context.limits.claim_within) };
        self.record(tx, LockFact::Granted, &request.acquire.owner, Some(token));
        self.holders.push(Lease {
            entries: vec![Entry { request: request.clone(), session: Some(session) }],
            request,
            token,
            since: tx.context.wall,
            ttl_ms,
            expires,
            claimed,
            left_by: Vec::new(),
        });
        self.holders.len() - 1
    }

    pub fn grant_at(&self, position: usize, name: &str, now: ClusterTime) -> LockGrant {
        let lease = &self.holders[position];
        LockGrant {
            name: name.to_owned(),
            token: lease.token,
            owner: lease.owner().to_owned(),
            mode: lease.mode(),
            expires_in_ms: lease.left_ms(now),
            depth: lease.depth(),
        }
    }

    pub fn queue(&mut self, tx: &mut LockTx<'_>, request: Arc<AcquireRequest>, session: SessionRef) {
        self.record(tx, LockFact::Queued, &request.acquire.owner, None);
        let gives_up = tx.in_ms(request.acquire.wait_ms);
        let since = tx.context.wall;
        self.waiters.push_back(Waiter { request, session, since, gives_up, disconnected_until: None });
    }

    /// The holder is answered, or was not sure to have the lease: it runs from now on. A holder that has promised to
    /// confirm its grant by a renewal gets no more than the time for that before.
    pub fn claim(&mut self, tx: &LockTx<'_>, position: usize, request: &str, session: SessionRef) {
        let lease = &mut self.holders[position];
        let Some(entry) = lease.entries.iter_mut().find(|entry| *entry.request.id == *request) else {
            return;
        };
        entry.session = entry.session.filter(|known| *known == session);
        let acquire = &entry.request.acquire;
        let (ttl_ms, confirm_ms) = (acquire.ttl_ms, acquire.confirm_within_ms);
        if lease.claimed {
            return self.extend(tx, position, ttl_ms);
        }
        // Nothing was promised yet.
        lease.claimed = confirm_ms.is_none();
        lease.expires = tx.in_ms(confirm_ms.map_or(ttl_ms, |within| within.min(ttl_ms)));
    }

    /// A holder that renews has been answered.
    pub fn renew(&mut self, tx: &LockTx<'_>, position: usize, ttl_ms: u64) {
        let lease = &mut self.holders[position];
        lease.claimed = true;
        for entry in &mut lease.entries {
            entry.session = None;
        }
        self.extend(tx, position, ttl_ms);
    }

    fn extend(&mut self, tx: &LockTx<'_>, position: usize, ttl_ms: u64) {
        let lease = &mut self.holders[position];
        lease.expires = lease.expires.max(tx.in_ms(ttl_ms));
        lease.ttl_ms = ttl_ms;
    }

    pub fn reenter(
        &mut self,
        tx: &LockTx<'_>,
        position: usize,
        request: Arc<AcquireRequest>,
        session: SessionRef,
    ) {
        let ttl_ms = request.acquire.ttl_ms;
        let lease = &mut self.holders[position];
        // From now on its owner is answered.
        lease.claimed = true;
        lease.entries.push(Entry { request, session: Some(session) });
        self.extend(tx, position, ttl_ms);
    }

    /// The client has come back, by this connection, and waits for as long as it says now.
    pub fn connect(&mut self, tx: &LockTx<'_>, position: usize, session: SessionRef, wait_ms: u64) {
        let waiter = &mut self.waiters[position];
        waiter.session = session;
        waiter.disconnected_until = None;
        waiter.gives_up = waiter.gives_up.max(tx.in_ms(wait_ms));
    }

    /// Leaves it once. A request that was sent twice leaves once.
    pub fn release(&mut self, tx: &mut LockTx<'_>, position: usize, request: &str) {
        let lease = &mut self.holders[position];
        if lease.left_by.iter().any(|left| **left == *request) {
            return;
        }
        if lease.entries.len() == 1 {
            return self.end(tx, position, LockFact::Released);
        }
        let left: Vec<Arc<str>> =
            lease.entries.pop().map(|entry| entry.request.id.clone()).into_iter().collect();
        lease.left_by.push(request.into());
        if lease.left_by.len() > tx.context.limits.lock_depth as usize {
            lease.left_by.remove(0);
        }
        tx.ended(&self.holders[position], LockFact::Released, left, false);
    }

    fn end(&mut self, tx: &mut LockTx<'_>, position: usize, how: LockFact) {
        let lease = self.holders.remove(position);
        self.record(tx, how, lease.owner(), Some(lease.token));
        // A client that never learned of its grant may come back and wait again.
        let is_over = |_: &&Entry| how != LockFact::GaveUp;
        let requests = lease.entries.iter().filter(is_over).map(|entry| entry.request.id.clone()).collect();
        tx.ended(&lease, how, requests, true);
        match how {
            LockFact::Expired => tx.counts.expired += 1,
            LockFact::Forced => tx.counts.forced += 1,
            _ => return,
        }
        let delay = lease.request.acquire.lock_delay_ms;
        // A holder that never learned of its grant has touched nothing.
        if lease.claimed && delay > 0 {
            let until = tx.in_ms(delay);
            self.delayed_until = Some(self.delayed_until.map_or(until, |other| other.max(until)));
        }
    }

    fn give_up(&mut self, tx: &mut LockTx<'_>, position: usize) {
        let waiter = self.waiters.remove(position);
        self.record(tx, LockFact::GaveUp, waiter.owner(), None);
        tx.notify(&waiter.request.id, WaitResult::GaveUp);
    }

    /// The client waits no more, and says so by the same request without a wait.
    pub fn withdraw(&mut self, tx: &mut LockTx<'_>, position: usize) {
        let request = self.waiters[position].request.clone();
        self.give_up(tx, position);
        tx.remember(&request.acquire.owner, None, LockFact::GaveUp, vec![request.id.clone()], false);
    }

    pub fn has_session(&self, session: SessionRef) -> bool {
        self.holders.iter().flat_map(|lease| &lease.entries).any(|entry| entry.session == Some(session))
            || self.waiters.iter().any(|waiter| waiter.session == session)
    }

    /// The client of this connection is gone. One that may come back keeps its place for a moment.
    pub fn leave(&mut self, tx: &mut LockTx<'_>, session: SessionRef, may_return: bool) {
        let until = tx.context.now.after(tx.context.limits.reconnect_within);
        if let Some(position) = self.waiters.iter().position(|waiter| waiter.session == session) {
            if may_return {
                self.waiters[position].disconnected_until.get_or_insert(until);
            } else {
                self.give_up(tx, position);
            }
        }
        let theirs = |entry: &Entry| entry.session == Some(session);
        let Some(position) = self.holders.iter().position(|lease| lease.entries.iter().any(theirs)) else {
            return;
        };
        let lease = &mut self.holders[position];
        if lease.entries.len() > 1 {
            lease.entries.retain(|entry| !theirs(entry));
        } else if may_return {
            // It did not learn of the lease, so this breaks no promise.
            lease.claimed = false;
            lease.expires = lease.expires.min(until);
        } else {
            self.end(tx, position, LockFact::GaveUp);
        }
    }

    pub fn has_waiter_at(&self, gone: impl Fn(&SessionRef) -> bool) -> bool {
        self.waiters.iter().any(|waiter| gone(&waiter.session))
    }

    pub fn disconnect(&mut self, tx: &LockTx<'_>, gone: impl Fn(&SessionRef) -> bool) {
        let until = tx.context.now.after(tx.context.limits.reconnect_within);
        for waiter in self.waiters.iter_mut().filter(|waiter| gone(&waiter.session)) {
            waiter.disconnected_until.get_or_insert(until);
        }
    }

    /// The node is there again, and so are the clients that it had.
    pub fn reconnect(&mut self, node: NodeId) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.session.node == node) {
            waiter.disconnected_until = None;
        }
    }

    /// Takes it away from those with these tokens; without any, lifts the delay after an unclean end.
    pub fn force(&mut self, tx: &mut LockTx<'_>, tokens: &BTreeSet<Token>) {
        while let Some(position) = self.holders.iter().position(|lease| tokens.contains(&lease.token)) {
            self.end(tx, position, LockFact::Forced);
        }
        if tokens.is_empty() {
            self.delayed_until = None;
        }
    }

    /// Ends what is over.
    pub fn expire(&mut self, tx: &mut LockTx<'_>) {
        let now = tx.context.now;
        while let Some(position) = self.holders.iter().position(|lease| !lease.ends_after(now)) {
            let how = if self.holders[position].claimed { LockFact::Expired } else { LockFact::GaveUp };
            self.end(tx, position, how);
        }
        while let Some(position) = self.waiters.iter().position(|waiter| waiter.gives_up_by() <= now) {
            self.give_up(tx, position);
        }
        self.delayed_until = self.delayed_until.filter(|until| *until >= now);
    }

    /// Grants it to the next waiters, as far as its mode and limit allow.
    pub fn grant_next(&mut self, tx: &mut LockTx<'_>) {
        while let Some(next) = self.waiters.front()
            && self.admits(tx.context.limits, &next.request.acquire, tx.context.now)
        {
            let Waiter { request, session, .. } = self.waiters.remove(0);
            tx.notify(&request.id, WaitResult::Granted);
            self.grant(tx, request, session, false);
        }
    }

    /// When something of it is due: the first moment at which that is over for certain.
    pub fn due(&self) -> Option<ClusterTime> {
        let after = |time: ClusterTime| ClusterTime(time.0.saturating_add(1));
        let leases = self.holders.iter().map(|lease| after(lease.expires));
        let waits = self.waiters.iter().map(Waiter::gives_up_by);
        leases.chain(waits).chain(self.delayed_until.map(after)).min()
    }
}
