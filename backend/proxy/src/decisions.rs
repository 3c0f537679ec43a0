//! Why requests went to their endpoints: a sample, for people to read.
//!
//! Writing a decision down costs more than making it, so one each [`INTERVAL`] is kept, and of those the last
//! [`MAX_DECISIONS`]. What the policy compared is read as the endpoint is chosen, before the request itself is in
//! flight there. Requests that went wrong have a turn of their own, so they are not lost among the others; if theirs
//! was not one of the sampled choices, the loads are those at the end of the request, and are marked as such.

use crate::coarse_clock::Sampler;
use ringmaster_common::traffic::live::Decision;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How many decisions are kept of each upstream.
pub const MAX_DECISIONS: usize = 64;
pub const INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub struct Decisions {
    /// Of the choices of an endpoint: whether one is in the sample is known before its request has an outcome.
    pub chosen: Sampler,
    /// Of requests that went wrong.
    pub bad: Sampler,
    kept: Mutex<VecDeque<Decision>>,
}

impl Decisions {
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
