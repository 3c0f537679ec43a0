//! How many requests are in progress at a time, by class.
//!
//! Each class has a bound of its own and takes nothing from another class: the bound of `control` is the reserve of
//! operators, so a flood of writes cannot keep an operator from failing over. Beyond the bound a request is refused
//! at once, before its body is read. It does not queue: a queue would make every request late, and clients know
//! better than a node when to retry.
//!
//! What always holds: the link to the leader has room for all requests that the classes admit together, streams
//! apart. Responses from memory need no class: `/livez`, `/metrics`, the dashboard's files.
//!
//! Requests that wait for a lock and streams each hold a connection for long, so they have no more than their share of
//! the connections that the node may have: the rest is for requests that are answered soon.
//!
//! Deliberately absent: the identity of the client. A forwarded request was admitted on the node that received it.

use crate::cluster_group::locks::MAX_PROPOSING_WAITERS;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use ringmaster_metrics::families::Families;
use ringmaster_peer::MAX_IN_FLIGHT_BULK;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The cluster, its nodes, plans, operations and traffic configuration: all that an operator needs.
pub const CONTROL_BOUND: usize = 128;
/// Reads of everything else.
pub const READS_BOUND: usize = 256;
/// Readiness probes: each asks the leader.
pub const PROBES_BOUND: usize = 32;
/// Writes of settings.
pub const SETTINGS_BOUND: usize = 256;
/// Acquiring locks without a wait, and verifying tokens.
pub const LOCKS_BOUND: usize = 160;
/// Renewals and releases of leases: the reserve of lock holders.
pub const LEASES_BOUND: usize = 160;
/// Requests for a lock whose body has not arrived yet: only then is it known whether they wait.
pub const LOCK_INTAKE_BOUND: usize = 1024;
/// The most requests that wait for a lock, and the most streams for as long as they are open ...
pub const HELD_BOUND: usize = 4096;
/// ... and the share of the connections that each of the two may hold, in eighths.
const HELD_EIGHTHS: usize = 3;

const _: () = assert!(
    CONTROL_BOUND
        + READS_BOUND
        + PROBES_BOUND
        + SETTINGS_BOUND
        + LOCKS_BOUND
        + LEASES_BOUND
        + MAX_PROPOSING_WAITERS
        <= MAX_IN_FLIGHT_BULK
);

const _: () = {
    let mut position = 0;
    while position < Class::ALL.len() {
        assert!(Class::ALL[position] as usize == position);
        position += 1;
    }
};

/// The class that a request is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Control,
    Reads,
    Probes,
    Settings,
    Locks,
    Leases,
    LockIntake,
    LockWaits,
    Stream,
}

impl Class {
    /// In the order of their numbers, by which a gate is found.
    const ALL: [Class; Class::Stream as usize + 1] = [
        Class::Control,
        Class::Reads,
        Class::Probes,
        Class::Settings,
        Class::Locks,
        Class::Leases,
        Class::LockIntake,
        Class::LockWaits,
        Class::Stream,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Reads => "reads",
            Class::Probes => "probes",
            Class::Settings => "settings",
            Class::Locks => "locks",
            Class::Leases => "leases",
            Class::LockIntake => "lock_intake",
            Class::LockWaits => "lock_waits",
            Class::Stream => "stream",
        }
    }

    /// The bound of a node that may have so many connections.
    fn bound(self, connections: usize) -> usize {
        match self {
            Class::Control => CONTROL_BOUND,
            Class::Reads => READS_BOUND,
            Class::Probes => PROBES_BOUND,
            Class::Settings => SETTINGS_BOUND,
            Class::Locks => LOCKS_BOUND,
            Class::Leases => LEASES_BOUND,
            Class::LockIntake => LOCK_INTAKE_BOUND,
            Class::LockWaits | Class::Stream => (connections * HELD_EIGHTHS / 8).clamp(1, HELD_BOUND),
        }
    }
}

/// The bounds of this node, and the requests in progress within them.
#[derive(Debug)]
pub struct Admission([Gate; Class::ALL.len()]);

#[derive(Debug)]
struct Gate {
    class: Class,
    bound: usize,
    permits: Arc<Semaphore>,
    refused: AtomicU64,
}

/// The class has as many requests in progress as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded {
    pub class: Class,
    pub bound: usize,
}

/// A request that is in progress until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// Those of a node that may have so many connections.
    pub fn new(connections: usize) -> Arc<Self> {
        Arc::new(Admission(Class::ALL.map(|class| {
            let bound = class.bound(connections);
            let permits = Arc::new(Semaphore::new(bound));
            Gate { class, bound, permits, refused: AtomicU64::new(0) }
        })))
    }

    pub fn enter(&self, class: Class) -> Result<Admitted, Overloaded> {
        let gate = &self.0[class as usize];
        match gate.permits.clone().try_acquire_owned() {
            Ok(permit) => Ok(Admitted { _permit: permit }),
            Err(_) => {
                gate.refused.fetch_add(1, Ordering::Relaxed);
                Err(Overloaded { class, bound: gate.bound })
            }
        }
    }
}

impl Collector for Admission {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        let label = |gate: &Gate| [("class", gate.class.as_str().to_owned())];
        out.gauges(
            "admission_under_way",
            "Requests in progress",
            None,
            self.0.iter().map(|gate| {
                let taken = gate.bound.saturating_sub(gate.permits.available_permits());
                (label(gate), taken as f64)
            }),
        )?;
        out.gauges(
            "admission_bound",
            "The limit of requests in progress",
            None,
            self.0.iter().map(|gate| (label(gate), gate.bound as f64)),
        )?;
        out.counters(
            "admission_refused",
            "Requests refused at the limit of their class",
            None,
            self.0.iter().map(|gate| (label(gate), gate.refused.load(Ordering::Relaxed))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_class_takes_nothing_of_another() {
        let admission = Admission::new(8192);
        let held: Vec<_> = (0..SETTINGS_BOUND).map(|_| admission.enter(Class::Settings).unwrap()).collect();
        let refused = admission.enter(Class::Settings).unwrap_err();
        assert_eq!(refused, Overloaded { class: Class::Settings, bound: SETTINGS_BOUND });
        admission.enter(Class::Control).unwrap();
        drop(held);
        admission.enter(Class::Settings).unwrap();
    }

    #[test]
    fn what_holds_connections_leaves_some_for_all_else() {
        for connections in [1, 8, 192, 8_192, 100_000] {
            let admission = Admission::new(connections);
            let most = |class| {
                let held: Vec<_> = std::iter::from_fn(|| admission.enter(class).ok()).collect();
                held.len()
            };
            let (waits, streams) = (most(Class::LockWaits), most(Class::Stream));
            assert!(waits > 0 && waits <= HELD_BOUND && waits == streams, "{connections}: {waits}");
            assert!(connections < 8 || waits + streams <= connections * 3 / 4, "{connections}: {waits}");
        }
    }
}
