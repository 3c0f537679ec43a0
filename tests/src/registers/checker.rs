//! Whether a history of registers is linearizable, where each write has a value of its own.
//!
//! The calls that concern one value, its write and all reads that saw it, take effect one after the other, without
//! another write between them. So each value has a zone: from the first end of one of its calls to the last beginning.
//! Where the first end comes before the last beginning, the register holds the value all through the zone (*forward*);
//! otherwise all its calls overlap, and any moment of the zone will do (*backward*). A history is linearizable exactly if
//! - no value was read before its write had begun,
//! - no two forward zones overlap,
//! - no backward zone lies within a forward zone of another value.
//!
//! Gibbons and Korach, *Testing Shared Memories*, SIAM Journal on Computing 26 (1997), theorem 4.1.
//!
//! A write without an answer may have taken effect at any time after it had begun, or never; it counts if it was read.

use crate::contention::record::Moment;
use std::collections::BTreeMap;

/// What a client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Without an end it was not answered.
    Write { register: u64, value: u64, begun: Moment, ended: Option<Moment> },
    /// None: there was no value yet.
    Read { register: u64, value: Option<u64>, begun: Moment, ended: Moment },
}

/// The calls that concern one value.
#[derive(Clone, Copy, Debug)]
struct Zone {
    value: Option<u64>,
    /// When its write had begun. The initial value was always there.
    written: Option<Moment>,
    first_end: Moment,
    last_begin: Moment,
    first_read: Moment,
    was_read: bool,
}

const START: Moment = Moment(0);
const NEVER: Moment = Moment(u64::MAX);

/// The contradictions in a history.
pub fn check(calls: &[Call]) -> Vec<String> {
    let mut registers: BTreeMap<u64, BTreeMap<Option<u64>, Zone>> = BTreeMap::new();
    for call in calls {
        let (register, value, begun, ended, is_write) = match *call {
            Call::Write { register, value, begun, ended } => {
                (register, Some(value), begun, ended.unwrap_or(NEVER), true)
            }
            Call::Read { register, value, begun, ended } => (register, value, begun, ended, false),
        };
        let zones = registers.entry(register).or_default();
        let initial = Zone {
            value: None,
            written: Some(START),
            first_end: START,
            last_begin: START,
            first_read: NEVER,
            was_read: true,
        };
        zones.entry(None).or_insert(initial);
        let zone = zones.entry(value).or_insert(Zone {
            value,
            written: None,
            first_end: NEVER,
            last_begin: START,
            first_read: NEVER,
            was_read: false,
        });
        zone.first_end = zone.first_end.min(ended);
        zone.last_begin = zone.last_begin.max(begun);
        if is_write {
            zone.written = Some(begun);
            zone.was_read |= ended != NEVER;
        } else {
            zone.first_read = zone.first_read.min(ended);
            zone.was_read = true;
        }
    }
    registers.iter().flat_map(|(register, zones)| check_register(*register, zones)).collect()
}

fn check_register(register: u64, zones: &BTreeMap<Option<u64>, Zone>) -> Vec<String> {
    let mut found = Vec::new();
    let zones: Vec<&Zone> = zones.values().filter(|zone| zone.was_read).collect();
    for zone in &zones {
        if zone.written.is_none_or(|written| zone.first_read < written) {
            found.push(format!("register {register}: {:?} was read before it was written", zone.value));
        }
    }
    let (mut forward, backward): (Vec<&Zone>, Vec<&Zone>) =
        zones.into_iter().partition(|zone| zone.first_end < zone.last_begin);
    forward.sort_by_key(|zone| zone.first_end);
    for pair in forward.windows(2) {
        if pair[1].first_end < pair[0].last_begin {
            found.push(format!(
                "register {register}: {:?} was there until {:?}, and {:?} from {:?} on",
                pair[0].value, pair[0].last_begin, pair[1].value, pair[1].first_end
            ));
        }
    }
    for zone in backward {
        // Forward zones do not overlap: only the last that begins before it can hold it.
        let before = forward.partition_point(|other| other.first_end < zone.last_begin);
        let Some(around) = before.checked_sub(1).map(|at| forward[at]) else { continue };
        if zone.first_end < around.last_begin {
            found.push(format!(
                "register {register}: {:?} was there between {:?} and {:?}, where {:?} was there all the while",
                zone.value, zone.last_begin, zone.first_end, around.value
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: u64, begun: u64, ended: u64) -> Call {
        Call::Write { register: 0, value, begun: Moment(begun), ended: Some(Moment(ended)) }
    }

    fn unanswered(value: u64, begun: u64) -> Call {
        Call::Write { register: 0, value, begun: Moment(begun), ended: None }
    }

    fn read(value: u64, begun: u64, ended: u64) -> Call {
        let value = (value != 0).then_some(value);
        Call::Read { register: 0, value, begun: Moment(begun), ended: Moment(ended) }
    }

    #[test]
    fn a_stale_read_is_found() {
        assert!(check(&[write(1, 1, 2), write(2, 3, 4), read(2, 5, 6)]).is_empty());
        assert_eq!(check(&[write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)]).len(), 1);
        assert!(!check(&[write(1, 1, 2), read(0, 3, 4)]).is_empty(), "the initial value, after a write");
        assert!(!check(&[write(1, 1, 9), read(1, 2, 3), read(0, 4, 5)]).is_empty(), "there and back");
        assert!(!check(&[read(1, 1, 2), write(1, 3, 4)]).is_empty(), "before the write");
        assert!(!check(&[read(7, 1, 2)]).is_empty(), "never written");
    }

    #[test]
    fn a_write_without_an_answer_may_come_late_or_never() {
        assert!(check(&[unanswered(1, 1), write(2, 3, 4), read(2, 5, 6), read(1, 7, 8)]).is_empty());
        assert!(check(&[unanswered(1, 1), write(2, 3, 4), read(2, 5, 6)]).is_empty());
        let comes_and_goes = [unanswered(1, 1), write(2, 3, 4), read(1, 5, 6), read(2, 7, 8)];
        assert!(!check(&comes_and_goes).is_empty());
    }

    /// Tries all orders.
    fn is_linearizable(calls: &[Call]) -> bool {
        fn go(left: &[Call], value: Option<u64>) -> bool {
            let end = |call: &Call| match call {
                Call::Write { ended, .. } => ended.unwrap_or(NEVER),
                Call::Read { ended, .. } => *ended,
            };
            let must = |call: &Call| end(call) != NEVER;
            if !left.iter().any(must) {
                return true;
            }
            let first_end = left.iter().map(end).min().unwrap_or(NEVER);
            (0..left.len()).any(|next| {
                let rest: Vec<Call> =
                    left.iter().enumerate().filter(|(n, _)| *n != next).map(|(_, c)| *c).collect();
                match left[next] {
                    Call::Write { value: written, begun, .. } => {
                        begun <= first_end && go(&rest, Some(written))
                    }
                    Call::Read { value: seen, begun, .. } => {
                        begun <= first_end && seen == value && go(&rest, value)
                    }
                }
            })
        }
        go(calls, None)
    }

    #[test]
    fn the_zones_say_the_same_as_all_orders() {
        let mut random = 11u64;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        let mut verdicts = [0, 0];
        for _ in 0..4_000 {
            // Moments of their own for each beginning and end.
            let mut moments: Vec<u64> = (1..=14).collect();
            let mut moment =
                |below: &mut dyn FnMut(u64) -> u64| moments.swap_remove(below(moments.len() as u64) as usize);
            let mut calls = Vec::new();
            for n in 0..6 {
                let (a, b) = (moment(&mut below), moment(&mut below));
                calls.push(match n {
                    0 | 1 => write(n + 1, a.min(b), a.max(b)),
                    2 => unanswered(3, a),
                    _ => read(below(4), a.min(b), a.max(b)),
                });
            }
            let expected = is_linearizable(&calls);
            assert_eq!(check(&calls).is_empty(), expected, "{calls:?}");
            verdicts[usize::from(expected)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 200), "{verdicts:?}");
    }
}
