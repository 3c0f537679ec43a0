//! One lock: who holds it, who waits, and what became of it lately.

use super::{Attachment, CLAIM_WITHIN, Fate, MAX_ENDED, MAX_RECORDS, Notice, REATTACH_WITHIN};
use crate::{Context, command::ClusterTime};
use imbl::Vector;
use ringmaster_common::{
    Timestamp,
    error::{Code, Refusal},
    id::{NodeId, Revision, Token},
    lock::{
        AcquireLock, LockCounts, LockFact, LockGrant, LockHolder, LockMode, LockRecord, LockWaiter,
        MAX_HOLDERS,
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How often an owner may enter a lock that they hold.
pub const MAX_DEPTH: u32 = 64;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Lock {
    /// Who has held it longest first.
    pub holders: Vec<Hold>,
    /// Who came first is next.
    pub waiters: Vector<Waiter>,
    /// After an unclean end, nobody is granted it before this.
    pub delayed_until: Option<ClusterTime>,
    /// Oldest first.
    pub history: Vector<Arc<LockRecord>>,
    /// How the latest leases ended, for those who ask again. A long queue pushes none of them out.
    ended: Vector<Arc<LockRecord>>,
    /// When it was last granted or given up.
    pub version: Revision,
}

/// What somebody asked for, under which id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ask {
    pub request: Arc<str>,
    pub acquire: AcquireLock,
}

impl Ask {
    /// A repeat may wait for less, and nothing else may differ.
    pub fn repeated_by(&self, acquire: &AcquireLock) -> Result<(), Refusal> {
        let first = &self.acquire;
        if *first == (AcquireLock { wait_ms: first.wait_ms, ..acquire.clone() }) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::IdempotencyKeyReused,
            format!("{} was the key of another request for {}; choose a new one", self.request, first.name),
        ))
    }
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub ask: Arc<Ask>,
    pub token: Token,
    /// The requests by which its owner came in, the first of them first.
    entries: Vec<Entry>,
    since: Timestamp,
    ttl_ms: u64,
    expires: ClusterTime,
    /// Whether the holder was told, for all that is known here.
    claimed: bool,
    /// The requests that left it without ending it.
    left_by: Vec<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub ask: Arc<Ask>,
    /// The connection whose client waits for the answer. None once there was another: it may be that
    /// one of them was answered, so that neither can give it back any more.
    attachment: Option<Attachment>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiter {
    pub ask: Arc<Ask>,
    attachment: Attachment,
    since: Timestamp,
    gives_up: ClusterTime,
    /// While the node of its client is gone: how long it keeps its place.
    detached_until: Option<ClusterTime>,
}

/// A change of one lock, and what all of them share.
pub(super) struct Turn<'a> {
    pub name: Arc<str>,
    pub context: &'a mut Context,
    pub last_token: &'a mut Token,
    pub counts: &'a mut LockCounts,
}

impl Turn<'_> {
    fn in_ms(&self, ms: u64) -> ClusterTime {
        self.context.now.after(Duration::from_millis(ms))
    }

    fn tell(&mut self, request: &Arc<str>, fate: Fate) {
        self.context.notices.push(Notice { lock: self.name.clone(), request: request.clone(), fate });
    }
}

impl Hold {
    fn owner(&self) -> &str {
        &self.ask.acquire.owner
    }

    fn mode(&self) -> LockMode {
        self.ask.acquire.mode()
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
            meta: self.ask.acquire.meta.clone(),
        }
    }
}

impl Waiter {
    fn gives_up_by(&self) -> ClusterTime {
        self.detached_until.map_or(self.gives_up, |until| until.min(self.gives_up))
    }

    pub fn owner(&self) -> &str {
        &self.ask.acquire.owner
    }

    pub fn shown(&self, now: ClusterTime) -> LockWaiter {
        LockWaiter {
            owner: self.owner().to_owned(),
            mode: self.ask.acquire.mode(),
            since: self.since,
            gives_up_in_ms: self.gives_up.0.saturating_sub(now.0),
            node: self.detached_until.is_none().then_some(self.attachment.node),
            meta: self.ask.acquire.meta.clone(),
        }
    }
}

impl Lock {
    /// Which holder came in by the request, and by which of their entries.
    pub fn holder_by_request(&self, request: &str) -> Option<(usize, &Entry)> {
        self.holders.iter().enumerate().find_map(|(position, hold)| {
            let entry = hold.entries.iter().find(|entry| *entry.ask.request == *request)?;
            Some((position, entry))
        })
    }

    pub fn waiter_by_request(&self, request: &str) -> Option<usize> {
        self.waiters.iter().position(|waiter| *waiter.ask.request == *request)
    }

    /// Where the owner holds it already, and may enter once more.
    pub fn reentry(&self, owner: &str, mode: LockMode) -> Result<Option<usize>, Refusal> {
        let position = self.holders.iter().position(|hold| hold.owner() == owner && hold.mode() == mode);
        match position.map(|position| self.holders[position].depth()) {
            Some(MAX_DEPTH..) => Err(Refusal::new(
                Code::LimitReached,
                format!("{owner} has entered the lock {MAX_DEPTH} times, as often as it goes"),
            )),
            _ => Ok(position),
        }
    }

    fn asks(&self) -> impl Iterator<Item = &AcquireLock> {
        let holding = self.holders.iter().map(|hold| &hold.ask.acquire);
        holding.chain(self.waiters.iter().map(|waiter| &waiter.ask.acquire))
    }

    fn sharing(&self) -> impl Iterator<Item = &AcquireLock> {
        self.asks().filter(|acquire| acquire.mode() == LockMode::Shared)
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

    /// Whether it can be granted next to those who hold it.
    pub fn admits(&self, acquire: &AcquireLock, now: ClusterTime) -> bool {
        if self.delayed_until.is_some_and(|until| until >= now) {
            return false;
        }
        match acquire.mode() {
            LockMode::Exclusive => self.holders.is_empty(),
            LockMode::Shared => {
                let slots = acquire.limit.unwrap_or(MAX_HOLDERS) as usize;
                self.holders.len() < slots && self.holders.iter().all(|hold| hold.mode() == LockMode::Shared)
            }
        }
    }

    /// The refusal of those who cannot have it now.
    pub fn held(&self, name: &str, now: ClusterTime) -> Refusal {
        let Some(first) = self.holders.first() else {
            let left = self.delayed_until.map_or(0, |until| until.0.saturating_sub(now.0));
            return Refusal::new(
                Code::LockHeld,
                format!("nobody is granted {name} for another {left} ms: its last holder did not release it"),
            );
        };
        let others = match self.holders.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        let detail = format!(
            "{name} is held by {}{others} (token {}, {} ms left); {} wait for it",
            first.owner(),
            first.token,
            first.left_ms(now),
            self.waiters.len()
        );
        Refusal { holder: Some(Box::new(first.shown(now))), ..Refusal::new(Code::LockHeld, detail) }
    }

    /// How a lease ended, as far as it is remembered.
    pub fn end_of(&self, token: Token) -> Option<&LockRecord> {
        self.ended.iter().find(|record| record.token == Some(token)).map(Arc::as_ref)
    }

    fn record(&mut self, turn: &Turn<'_>, what: LockFact, owner: &str, token: Option<Token>) {
        let (revision, at) = (turn.context.revision, turn.context.wall);
        let record = Arc::new(LockRecord { revision, at, what, owner: owner.to_owned(), token });
        self.history.push_back(record.clone());
        if self.history.len() > MAX_RECORDS {
            self.history.pop_front();
        }
        if token.is_none() {
            return;
        }
        self.version = revision;
        if what != LockFact::Granted {
            self.ended.push_back(record);
            if self.ended.len() > MAX_ENDED {
                self.ended.pop_front();
            }
        }
    }

    /// A grant that its client waits for at this moment is claimed from the start.
    pub fn grant(
        &mut self,
        turn: &mut Turn<'_>,
        ask: Arc<Ask>,
        attachment: Attachment,
        claimed: bool,
    ) -> usize {
        turn.last_token.0 += 1;
        turn.counts.granted += 1;
        let (token, ttl_ms) = (*turn.last_token, ask.acquire.ttl_ms);
        let expires = if claimed { turn.in_ms(ttl_ms) } else { turn.context.now.after(CLAIM_WITHIN) };
        self.record(turn, LockFact::Granted, &ask.acquire.owner, Some(token));
        self.holders.push(Hold {
            entries: vec![Entry { ask: ask.clone(), attachment: Some(attachment) }],
            ask,
            token,
            since: turn.context.wall,
            ttl_ms,
            expires,
            claimed,
            left_by: Vec::new(),
        });
        self.holders.len() - 1
    }

    pub fn grant_at(&self, position: usize, name: &str, now: ClusterTime) -> LockGrant {
        let hold = &self.holders[position];
        LockGrant {
            name: name.to_owned(),
            token: hold.token,
            owner: hold.owner().to_owned(),
            mode: hold.mode(),
            expires_in_ms: hold.left_ms(now),
            depth: hold.depth(),
        }
    }

    pub fn queue(&mut self, turn: &mut Turn<'_>, ask: Arc<Ask>, attachment: Attachment) {
        self.record(turn, LockFact::Queued, &ask.acquire.owner, None);
        let gives_up = turn.in_ms(ask.acquire.wait_ms);
        let since = turn.context.wall;
        self.waiters.push_back(Waiter { ask, attachment, since, gives_up, detached_until: None });
    }

    /// The holder is told of the lease, or was not sure to have it: it runs from now on.
    pub fn claim(&mut self, turn: &Turn<'_>, position: usize, request: &str, attachment: Attachment) {
        let hold = &mut self.holders[position];
        let Some(entry) = hold.entries.iter_mut().find(|entry| *entry.ask.request == *request) else {
            return;
        };
        entry.attachment = entry.attachment.filter(|known| *known == attachment);
        let ttl_ms = entry.ask.acquire.ttl_ms;
        if !hold.claimed {
            // Nobody was promised anything yet.
            hold.claimed = true;
            hold.expires = turn.context.now;
        }
        self.extend(turn, position, ttl_ms);
    }

    /// Whoever renews was told.
    pub fn renew(&mut self, turn: &Turn<'_>, position: usize, ttl_ms: u64) {
        let hold = &mut self.holders[position];
        hold.claimed = true;
        for entry in &mut hold.entries {
            entry.attachment = None;
        }
        self.extend(turn, position, ttl_ms);
    }

    fn extend(&mut self, turn: &Turn<'_>, position: usize, ttl_ms: u64) {
        let hold = &mut self.holders[position];
        hold.expires = hold.expires.max(turn.in_ms(ttl_ms));
        hold.ttl_ms = ttl_ms;
    }

    pub fn reenter(&mut self, turn: &Turn<'_>, position: usize, ask: Arc<Ask>, attachment: Attachment) {
        let ttl_ms = ask.acquire.ttl_ms;
        self.holders[position].entries.push(Entry { ask, attachment: Some(attachment) });
        self.extend(turn, position, ttl_ms);
    }

    /// The client has come back, by this connection, and waits for as long as it says now.
    pub fn attach(&mut self, turn: &Turn<'_>, position: usize, attachment: Attachment, wait_ms: u64) {
        let waiter = &mut self.waiters[position];
        waiter.attachment = attachment;
        waiter.detached_until = None;
        waiter.gives_up = waiter.gives_up.max(turn.in_ms(wait_ms));
    }

    /// Leaves it once. A request that was sent twice leaves once.
    pub fn release(&mut self, turn: &mut Turn<'_>, position: usize, request: &str) {
        let hold = &mut self.holders[position];
        if hold.left_by.iter().any(|left| **left == *request) {
            return;
        }
        if hold.entries.len() == 1 {
            return self.end(turn, position, LockFact::Released);
        }
        hold.entries.pop();
        hold.left_by.push(request.into());
        if hold.left_by.len() > MAX_DEPTH as usize {
            hold.left_by.remove(0);
        }
    }

    fn end(&mut self, turn: &mut Turn<'_>, position: usize, how: LockFact) {
        let hold = self.holders.remove(position);
        self.record(turn, how, hold.owner(), Some(hold.token));
        match how {
            LockFact::Expired => turn.counts.expired += 1,
            LockFact::Forced => turn.counts.forced += 1,
            _ => return,
        }
        let delay = hold.ask.acquire.lock_delay_ms;
        // Whoever never heard of their grant has touched nothing.
        if hold.claimed && delay > 0 {
            let until = turn.in_ms(delay);
            self.delayed_until = Some(self.delayed_until.map_or(until, |other| other.max(until)));
        }
    }

    fn give_up(&mut self, turn: &mut Turn<'_>, position: usize) {
        let waiter = self.waiters.remove(position);
        self.record(turn, LockFact::GaveUp, waiter.owner(), None);
        turn.tell(&waiter.ask.request, Fate::GaveUp);
    }

    pub fn is_attached(&self, attachment: Attachment) -> bool {
        self.holders.iter().flat_map(|hold| &hold.entries).any(|entry| entry.attachment == Some(attachment))
            || self.waiters.iter().any(|waiter| waiter.attachment == attachment)
    }

    /// The client of this connection is gone. One that may come back keeps its place for a moment.
    pub fn leave(&mut self, turn: &mut Turn<'_>, attachment: Attachment, may_return: bool) {
        let until = turn.context.now.after(REATTACH_WITHIN);
        if let Some(position) = self.waiters.iter().position(|waiter| waiter.attachment == attachment) {
            if may_return {
                self.waiters[position].detached_until.get_or_insert(until);
            } else {
                self.give_up(turn, position);
            }
        }
        let theirs = |entry: &Entry| entry.attachment == Some(attachment);
        let Some(position) = self.holders.iter().position(|hold| hold.entries.iter().any(theirs)) else {
            return;
        };
        let hold = &mut self.holders[position];
        if hold.entries.len() > 1 {
            hold.entries.retain(|entry| !theirs(entry));
        } else if may_return {
            // It was not told of the lease, so this breaks no promise.
            hold.claimed = false;
            hold.expires = hold.expires.min(until);
        } else {
            self.end(turn, position, LockFact::GaveUp);
        }
    }

    pub fn has_waiter_at(&self, gone: impl Fn(&Attachment) -> bool) -> bool {
        self.waiters.iter().any(|waiter| gone(&waiter.attachment))
    }

    pub fn detach(&mut self, turn: &Turn<'_>, gone: impl Fn(&Attachment) -> bool) {
        let until = turn.context.now.after(REATTACH_WITHIN);
        for waiter in self.waiters.iter_mut().filter(|waiter| gone(&waiter.attachment)) {
            waiter.detached_until.get_or_insert(until);
        }
    }

    /// The node is there again, and so are the clients that it had.
    pub fn reattach(&mut self, node: NodeId) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.attachment.node == node) {
            waiter.detached_until = None;
        }
    }

    /// Takes it away from those with these tokens; without any, lifts the delay after an unclean end.
    pub fn force(&mut self, turn: &mut Turn<'_>, tokens: &BTreeSet<Token>) {
        while let Some(position) = self.holders.iter().position(|hold| tokens.contains(&hold.token)) {
            self.end(turn, position, LockFact::Forced);
        }
        if tokens.is_empty() {
            self.delayed_until = None;
        }
    }

    /// Ends what is over.
    pub fn expire(&mut self, turn: &mut Turn<'_>) {
        let now = turn.context.now;
        while let Some(position) = self.holders.iter().position(|hold| !hold.ends_after(now)) {
            let how = if self.holders[position].claimed { LockFact::Expired } else { LockFact::GaveUp };
            self.end(turn, position, how);
        }
        while let Some(position) = self.waiters.iter().position(|waiter| waiter.gives_up_by() <= now) {
            self.give_up(turn, position);
        }
        self.delayed_until = self.delayed_until.filter(|until| *until >= now);
    }

    /// Grants it to those who are next, as far as it goes.
    pub fn settle(&mut self, turn: &mut Turn<'_>) {
        while let Some(next) = self.waiters.front()
            && self.admits(&next.ask.acquire, turn.context.now)
        {
            let Waiter { ask, attachment, .. } = self.waiters.remove(0);
            turn.tell(&ask.request, Fate::Granted);
            self.grant(turn, ask, attachment, false);
        }
    }

    /// When something of it is due: the first moment at which that is over for certain.
    pub fn due(&self) -> Option<ClusterTime> {
        let after = |time: ClusterTime| ClusterTime(time.0.saturating_add(1));
        let leases = self.holders.iter().map(|hold| after(hold.expires));
        let waits = self.waiters.iter().map(Waiter::gives_up_by);
        leases.chain(waits).chain(self.delayed_until.map(after)).min()
    }
}
