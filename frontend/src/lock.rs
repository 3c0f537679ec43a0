//! Locks in words: holders, waiters, and the remaining time of a lease.
//!
//! A message carries the remaining time as the node estimated it; from then on the page counts down on the
//! cluster's clock. The countdown may end a little early: the cluster never ends a lease before its time, and often
//! a moment after.

use crate::format::{age_ms, count, grouped};
use ringmaster_common::{
    Timestamp,
    lock::{Lock, LockMode, Wait},
};
use serde_json::json;

/// How many locks a page of the list has.
pub const PER_PAGE: u32 = 50;

/// Which locks the page looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFilter {
    pub prefix: String,
    pub after: Option<String>,
    pub contended: bool,
}

impl LockFilter {
    /// The message that follows them.
    pub fn message(&self) -> String {
        json!({
            "type": "follow", "topic": "locks", "limit": PER_PAGE,
            "prefix": self.prefix, "after": self.after, "contended": self.contended,
        })
        .to_string()
    }

    /// The message that ends following.
    pub fn unfollow() -> String {
        json!({ "type": "unfollow", "topic": "locks" }).to_string()
    }
}

/// The remaining time now, from the remaining time when the message arrived.
pub fn left_ms(then_ms: u64, heard: Timestamp, now: Timestamp) -> u64 {
    then_ms.saturating_sub(age_ms(heard, now))
}

/// Whether it is shared, and among how many.
pub fn kind(lock: &Lock) -> String {
    let holder = lock.holders.first().map(|holder| holder.mode);
    let mode = holder.or_else(|| lock.waiters.first().map(|waiter| waiter.mode)).unwrap_or_default();
    match (lock.limit, mode) {
        (Some(limit), _) => format!("{} of {}", grouped(lock.held_by), grouped(limit.into())),
        (None, LockMode::Shared) if lock.held_by > 1 => format!("shared by {}", grouped(lock.held_by)),
        (None, mode) => mode.as_str().to_owned(),
    }
}

/// The holders, in a few words.
pub fn holders(lock: &Lock) -> String {
    match lock.holders.first() {
        None => "none".to_owned(),
        Some(first) => first.owner.clone() + &and_more(lock.held_by),
    }
}

/// The waiters, in a few words.
pub fn waiters(lock: &Lock) -> String {
    lock.waiters.first().map(|first| first.owner.clone() + &and_more(lock.waited_by)).unwrap_or_default()
}

fn and_more(all: u64) -> String {
    match all {
        0 | 1 => String::new(),
        all => format!(" and {} more", grouped(all - 1)),
    }
}

/// The `meta` of an owner.
pub fn meta<'a>(meta: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let pairs: Vec<String> = meta.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    pairs.join(" · ")
}

/// The edges of the wait-for graph, those on a cycle first.
pub fn cycles_first(waits: &[Wait]) -> impl Iterator<Item = &Wait> {
    let of = |deadlocked| waits.iter().filter(move |wait| wait.deadlocked == deadlocked);
    of(true).chain(of(false))
}

/// The deadlock as a sentence, where there is one.
pub fn deadlock(waits: &[Wait]) -> Option<String> {
    let cycle = waits.iter().filter(|wait| wait.deadlocked).count();
    (cycle > 0).then(|| {
        format!(
            "Deadlock: {} in a cycle. It ends when one of these leases expires, a waiter gives up, or you release one \
             of these locks.",
            count(cycle as u64, "wait")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::{
        id::{Revision, Token},
        lock::LockHolder,
    };

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn lock(held_by: u64, limit: Option<u32>) -> Lock {
        let holder = |owner: &str| LockHolder {
            owner: owner.to_owned(),
            token: Token(7),
            mode: if held_by > 1 { LockMode::Shared } else { LockMode::Exclusive },
            since: at(0),
            ttl_ms: 1_000,
            expires_in_ms: 400,
            depth: 1,
            meta: [("host".to_owned(), "a".to_owned()), ("why".to_owned(), "nightly".to_owned())].into(),
        };
        Lock {
            name: "jobs/nightly".to_owned(),
            limit,
            holders: (0..held_by.min(1)).map(|_| holder("w1")).collect(),
            held_by,
            waiters: Vec::new(),
            waited_by: 0,
            fence: Token(7),
            delayed_for_ms: None,
            deadlocked: false,
            version: Revision(1),
        }
    }

    #[test]
    fn a_lease_runs_down_and_stops_at_nothing() {
        assert_eq!(left_ms(400, at(1_000), at(1_100)), 300);
        assert_eq!(left_ms(400, at(1_000), at(2_000)), 0);
        assert_eq!(left_ms(400, at(1_000), at(900)), 400, "a clock that is a little behind adds nothing");
    }

    #[test]
    fn a_lock_in_a_few_words() {
        for (lock, kind_of, held) in [
            (lock(0, None), "exclusive", "none"),
            (lock(1, None), "exclusive", "w1"),
            (lock(3, None), "shared by 3", "w1 and 2 more"),
            (lock(2, Some(5)), "2 of 5", "w1 and 1 more"),
        ] {
            assert_eq!((kind(&lock).as_str(), holders(&lock).as_str()), (kind_of, held));
        }
        assert_eq!(meta(&lock(1, None).holders[0].meta), "host a · why nightly");
    }

    #[test]
    fn a_cycle_comes_first_and_is_named() {
        let wait = |waiter: &str, deadlocked| Wait {
            waiter: waiter.to_owned(),
            lock: "l".to_owned(),
            holder: "h".to_owned(),
            deadlocked,
        };
        let waits = [wait("a", false), wait("b", true), wait("c", true)];
        let order: Vec<&str> = cycles_first(&waits).map(|wait| wait.waiter.as_str()).collect();
        assert_eq!(order, ["b", "c", "a"]);
        assert!(deadlock(&waits).is_some_and(|text| text.contains("2 waits in a cycle")));
        assert_eq!(deadlock(&waits[..1]), None);
    }

    #[test]
    fn the_filter_becomes_a_follow_message() {
        use ringmaster_common::stream::{ClientMessage, Topic};
        let wanted = LockFilter { prefix: "jobs/".to_owned(), after: None, contended: true };
        assert_eq!(
            serde_json::from_str::<ClientMessage>(&wanted.message()).unwrap(),
            ClientMessage::Follow {
                topic: Topic::Locks,
                limit: Some(50),
                prefix: "jobs/".to_owned(),
                after: None,
                contended: true,
                upstream: None
            }
        );
        let unfollow = serde_json::from_str::<ClientMessage>(&LockFilter::unfollow()).unwrap();
        assert_eq!(unfollow, ClientMessage::Unfollow { topic: Topic::Locks });
    }
}
