//! What goes into the choice of an endpoint, and what comes out: data without behaviour.

use ringmaster_common::traffic::MAX_ENDPOINTS;

/// The parts of a request that matter to the choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelectionHints {
    /// The hash of what a consistent hash goes by.
    pub key: u64,
    /// The value of the client's sticky cookie.
    pub sticky: Option<u64>,
    /// Where the request failed already.
    pub tried: SlotSet,
}

/// A set of slots: a bit for each.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotSet([u64; MAX_ENDPOINTS.div_ceil(64)]);

impl SlotSet {
    pub fn add(&mut self, slot: usize) {
        let word = slot / 64 % self.0.len();
        self.0[word] |= 1 << (slot % 64);
    }

    pub fn has(&self, slot: usize) -> bool {
        self.0[slot / 64 % self.0.len()] & 1 << (slot % 64) != 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub slot: usize,
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Primary,
    Sticky,
    OnlyOne,
    RoundRobin,
    WeightedRoundRobin,
    LeastConnections,
    BetterOf(usize, usize),
    FirstForKey,
    NextForKey,
}

/// Why an endpoint cannot be chosen, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ineligible {
    Standby,
    Drained,
    Maintenance,
    Unhealthy,
    Unchecked,
    Full,
    Tried,
    Ejected,
}

impl Ineligible {
    pub fn as_str(self) -> &'static str {
        match self {
            Ineligible::Standby => "on standby",
            Ineligible::Drained => "drained",
            Ineligible::Maintenance => "in maintenance",
            Ineligible::Unhealthy => "unhealthy",
            Ineligible::Unchecked => "waiting for the first check",
            Ineligible::Full => "at the limit of requests",
            Ineligible::Tried => "tried before",
            Ineligible::Ejected => "ejected",
        }
    }
}

/// With how many endpoints are ineligible for which reason, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoEligibleEndpoint(pub String);
