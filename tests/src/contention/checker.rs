//! Whether a history of locks is possible, given the answers that clients got, some of which are unknown.
//!
//! The model is small: a lock has one holder at a time, and each grant has a higher token than all
//! before it. So tokens give the order in which grants took effect, and a history is linearizable if
//! - no grant was over before one with a lower token was asked for,
//! - no holder had reason to believe in its lease when another did,
//! - no lease was renewed after a later grant of the same lock had been seen,
//! - a refusal names a holder that can have held the lock.
//!
//! A request without an answer may have taken effect or not. It is no reason for anything.

use super::record::{Deed, Moment, Write};
use std::collections::BTreeMap;

/// A contradiction in the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Two who both had reason to believe that they held a lock.
    pub overlaps: Vec<String>,
    /// Tokens that do not grow with time, or were given twice.
    pub disorder: Vec<String>,
    /// Refusals for the sake of a holder that there was not.
    pub groundless: Vec<String>,
    /// Writes that the resource took after it had seen a higher token.
    pub stale_writes: Vec<String>,
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        *self == Findings::default()
    }
}

/// A lease, as its holder saw it.
#[derive(Clone, Debug)]
struct Lease {
    contender: usize,
    asked: Moment,
    at: Moment,
    /// How long the holder believed in it.
    until: Moment,
    /// When the latest renewal that succeeded was asked for.
    renewed: Option<Moment>,
}

/// Checks what contenders and the resource wrote down; each list is one process's, in its order.
pub fn check(contenders: &[Vec<Deed>], writes: &[Write]) -> Findings {
    let mut findings = Findings::default();
    let mut locks = BTreeMap::<&str, BTreeMap<u64, Lease>>::new();
    for (contender, deeds) in contenders.iter().enumerate() {
        for deed in deeds {
            match deed {
                Deed::Granted { lock, token, asked, at, until } => {
                    let lease = Lease { contender, asked: *asked, at: *at, until: *until, renewed: None };
                    let leases = locks.entry(lock).or_default();
                    if let Some(other) = leases.insert(*token, lease) {
                        findings.disorder.push(format!(
                            "token {token} of {lock} was given to contenders {} and {contender}",
                            other.contender
                        ));
                    }
                }
                Deed::Renewed { lock, token, asked, until } => {
                    if let Some(lease) = locks.get_mut(lock.as_str()).and_then(|leases| leases.get_mut(token))
                    {
                        lease.until = *until;
                        lease.renewed = Some(*asked);
                    }
                }
                Deed::Released { lock, token, at } => {
                    if let Some(lease) = locks.get_mut(lock.as_str()).and_then(|leases| leases.get_mut(token))
                    {
                        lease.until = lease.until.min(*at);
                    }
                }
                Deed::Refused { .. } | Deed::Unknown { .. } => {}
            }
        }
    }
    check_order(&locks, &mut findings);
    for (lock, leases) in &locks {
        check_leases(lock, leases, &mut findings);
    }
    check_refusals(contenders, &locks, &mut findings);
    check_writes(writes, &mut findings);
    findings
}

/// All locks draw from one counter.
fn check_order(locks: &BTreeMap<&str, BTreeMap<u64, Lease>>, findings: &mut Findings) {
    let mut all: Vec<_> = locks.values().flatten().collect();
    all.sort_by_key(|(token, _)| **token);
    for pair in all.windows(2) {
        if pair[0].0 == pair[1].0 {
            findings.disorder.push(format!("token {} was given for two locks", pair[0].0));
        }
    }
    let mut earliest: Option<(u64, Moment)> = None;
    for (token, lease) in all.into_iter().rev() {
        if let Some((higher, at)) = earliest.filter(|(_, at)| *at < lease.asked) {
            findings.disorder.push(format!(
                "token {token} was asked for {} ns after the higher token {higher} had been given",
                lease.asked.0 - at.0
            ));
        }
        if earliest.is_none_or(|(_, at)| lease.at < at) {
            earliest = Some((*token, lease.at));
        }
    }
}

fn check_leases(lock: &str, leases: &BTreeMap<u64, Lease>, findings: &mut Findings) {
    // The one that was believed in for longest, of those with lower tokens.
    let mut longest: Option<(u64, Lease)> = None;
    for (token, lease) in leases {
        if let Some((lower, other)) = longest.as_ref().filter(|(_, other)| other.until > lease.at) {
            findings.overlaps.push(format!(
                "{lock}: contender {} believed in token {lower} for {} ns after contender {} had token {token}",
                other.contender,
                other.until.0 - lease.at.0,
                lease.contender
            ));
        }
        if longest.as_ref().is_none_or(|(_, other)| lease.until > other.until) {
            longest = Some((*token, lease.clone()));
        }
    }
    let mut earliest: Option<(u64, Moment)> = None;
    for (token, lease) in leases.iter().rev() {
        if let (Some((higher, at)), Some(renewed)) = (earliest, lease.renewed)
            && at < renewed
        {
            findings.disorder.push(format!(
                "{lock}: token {token} was renewed {} ns after token {higher} had been given",
                renewed.0 - at.0
            ));
        }
        if earliest.is_none_or(|(_, at)| lease.at < at) {
            earliest = Some((*token, lease.at));
        }
    }
}

/// A holder that a refusal names must not have been followed by another before the request was sent.
fn check_refusals(
    contenders: &[Vec<Deed>],
    locks: &BTreeMap<&str, BTreeMap<u64, Lease>>,
    findings: &mut Findings,
) {
    for deed in contenders.iter().flatten() {
        let Deed::Refused { lock, holder: Some(holder), asked, .. } = deed else { continue };
        let Some(leases) = locks.get(lock.as_str()) else { continue };
        let followed = leases.range(holder + 1..).find(|(_, lease)| lease.at < *asked);
        if let Some((next, _)) = followed {
            findings.groundless.push(format!(
                "{lock}: a request was refused for the sake of token {holder}, after token {next} had been given"
            ));
        }
    }
}

fn check_writes(writes: &[Write], findings: &mut Findings) {
    let mut marks = BTreeMap::<&str, u64>::new();
    for write in writes.iter().filter(|write| write.accepted) {
        let mark = marks.entry(&write.lock).or_default();
        if write.token < *mark {
            findings.stale_writes.push(format!(
                "{}: a write by token {} was taken after one by token {mark}",
                write.lock, write.token
            ));
        }
        *mark = write.token.max(*mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(token: u64, asked: u64, at: u64, until: u64) -> Deed {
        let (asked, at, until) = (Moment(asked), Moment(at), Moment(until));
        Deed::Granted { lock: "l".to_owned(), token, asked, at, until }
    }

    fn released(token: u64, at: u64) -> Deed {
        Deed::Released { lock: "l".to_owned(), token, at: Moment(at) }
    }

    fn renewed(token: u64, asked: u64, until: u64) -> Deed {
        Deed::Renewed { lock: "l".to_owned(), token, asked: Moment(asked), until: Moment(until) }
    }

    fn found(contenders: &[Vec<Deed>]) -> Findings {
        check(contenders, &[])
    }

    #[test]
    fn a_possible_history_has_no_contradictions() {
        let one = vec![
            granted(1, 0, 10, 100),
            renewed(1, 50, 150),
            released(1, 60),
            granted(3, 120, 210, 300),
            Deed::Unknown { lock: "l".to_owned() },
        ];
        let two = vec![
            Deed::Refused { lock: "l".to_owned(), holder: Some(1), asked: Moment(20), at: Moment(30) },
            granted(2, 40, 70, 200),
        ];
        let findings = found(&[one, two]);
        assert!(findings.is_clean(), "{findings:?}");
    }

    #[test]
    fn two_holders_at_a_time_are_seen() {
        let findings = found(&[vec![granted(1, 0, 10, 100)], vec![granted(2, 0, 99, 200)]]);
        assert_eq!(findings.overlaps.len(), 1, "{findings:?}");
        // A long lease, and a short one in between.
        let long = vec![granted(1, 0, 10, 500), renewed(1, 20, 600)];
        let findings = found(&[long, vec![granted(2, 0, 601, 610), granted(3, 605, 650, 700)]]);
        assert!(findings.is_clean(), "{findings:?}");
        let long = vec![granted(1, 0, 10, 500)];
        let findings = found(&[long, vec![granted(2, 0, 20, 30), granted(3, 25, 40, 50)]]);
        assert_eq!(findings.overlaps.len(), 2, "{findings:?}");
    }

    #[test]
    fn tokens_that_do_not_grow_are_seen() {
        let findings = found(&[vec![granted(2, 0, 10, 20)], vec![granted(1, 30, 40, 50)]]);
        assert_eq!(findings.disorder.len(), 1, "{findings:?}");
        let findings = found(&[vec![granted(1, 0, 10, 20)], vec![granted(1, 30, 40, 50)]]);
        assert!(!findings.disorder.is_empty(), "{findings:?}");
    }

    #[test]
    fn a_renewal_that_came_too_late_is_seen() {
        let findings =
            found(&[vec![granted(1, 0, 10, 20), renewed(1, 60, 80)], vec![granted(2, 25, 50, 55)]]);
        assert!(!findings.disorder.is_empty(), "{findings:?}");
    }

    #[test]
    fn a_refusal_without_a_holder_is_found() {
        let late = Deed::Refused { lock: "l".to_owned(), holder: Some(1), asked: Moment(60), at: Moment(70) };
        let findings = found(&[vec![granted(1, 0, 10, 20), granted(2, 25, 50, 55)], vec![late]]);
        assert_eq!(findings.groundless.len(), 1, "{findings:?}");
    }

    #[test]
    fn stale_writes_are_seen() {
        let write = |token, accepted| Write { lock: "l".to_owned(), token, accepted };
        assert!(check(&[], &[write(1, true), write(2, true), write(1, false)]).is_clean());
        assert_eq!(check(&[], &[write(1, true), write(2, true), write(1, true)]).stale_writes.len(), 1);
    }
}
