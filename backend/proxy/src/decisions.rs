//! Why requests went where they went: few of them, as they come.
//!
//! To take one down costs more than to decide it, so there is one each while at the most, and room for
//! the last ones only. Requests that went wrong have a turn of their own, and are not lost among the others.

use super::moment::Moment;
use ringmaster_common::traffic::live::Decision;
use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// How many decisions are kept of each upstream.
pub const MAX_DECISIONS: usize = 64;
/// How much time lies between two that are taken down.
const EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub struct Decisions {
    next_good: AtomicU64,
    next_bad: AtomicU64,
    kept: Mutex<VecDeque<Decision>>,
}

impl Decisions {
    /// Whether this one is to be taken down. It says so once each while.
    pub fn wants(&self, went_wrong: bool, now: Moment) -> bool {
        let next = if went_wrong { &self.next_bad } else { &self.next_good };
        let due = next.load(Relaxed);
        now.0 >= due && next.compare_exchange(due, now.after(EVERY).0, Relaxed, Relaxed).is_ok()
    }

    pub fn keep(&self, decision: Decision) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == MAX_DECISIONS {
            kept.pop_front();
        }
        kept.push_back(decision);
    }

    /// The oldest first.
    pub fn kept(&self) -> Vec<Decision> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
