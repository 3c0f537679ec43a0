//! How much is under way at a time, by class of request.
//!
//! Each class has a bound of its own, and takes nothing of another's: what control has is its reserve,
//! so a flood of writes cannot keep an operator from failing over. Beyond the bound a request is
//! refused at once, before its body is read. It does not wait here: a queue would only make all of
//! them late, and clients know better than a node when to try again.
//!
//! What always holds: what the classes may have under way together, streams apart, finds room on the
//! link to the leader. What is answered from memory is in no class: `/livez`, `/metrics`, the dashboard's files.
//!
//! It deliberately knows nothing of who asks. What a node forwards was admitted where it came in.

use crate::http::{Api, problem::Refused};
use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use ringmaster_cluster_group::locks::MAX_PROPOSING_WAITERS;
use ringmaster_common::error::{Code, Problem, Refusal};
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

/// The cluster and its nodes, plans and operations: what an operator needs to see and to act.
pub const CONTROL_BOUND: usize = 128;
/// Reads of everything else.
pub const READS_BOUND: usize = 256;
/// Questions whether the node is ready: each asks the leader.
pub const PROBES_BOUND: usize = 32;
/// Writes of settings.
pub const SETTINGS_BOUND: usize = 256;
/// Acquiring locks without waiting for them, and asking for tokens.
pub const LOCKS_BOUND: usize = 160;
/// Renewals and releases of leases: a reserve of those who hold locks.
pub const LEASES_BOUND: usize = 160;
/// Requests that wait for a lock.
pub const LOCK_WAITS_BOUND: usize = 4096;
/// Streams, for as long as they are open.
pub const STREAM_BOUND: usize = 4096;

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

/// What a request is counted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Control,
    Reads,
    Probes,
    Settings,
    Locks,
    Leases,
    LockWaits,
    Stream,
}

impl Class {
    /// In their order, by which a gate is found.
    const ALL: [Class; Class::Stream as usize + 1] = [
        Class::Control,
        Class::Reads,
        Class::Probes,
        Class::Settings,
        Class::Locks,
        Class::Leases,
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
            Class::LockWaits => "lock_waits",
            Class::Stream => "stream",
        }
    }

    pub fn bound(self) -> usize {
        match self {
            Class::Control => CONTROL_BOUND,
            Class::Reads => READS_BOUND,
            Class::Probes => PROBES_BOUND,
            Class::Settings => SETTINGS_BOUND,
            Class::Locks => LOCKS_BOUND,
            Class::Leases => LEASES_BOUND,
            Class::LockWaits => LOCK_WAITS_BOUND,
            Class::Stream => STREAM_BOUND,
        }
    }

    /// The class of a request, by the route that the router matched. A stream is counted for longer
    /// than its request takes, and who acquires a lock may wait for it or not, so these ask for themselves.
    fn of(method: &Method, route: &str) -> Option<Class> {
        if route == "/readyz" {
            return Some(Class::Probes);
        }
        let route = route.strip_prefix("/v1/")?;
        match route {
            "stream" | "locks/acquire" => return None,
            "locks/renew" | "locks/release" => return Some(Class::Leases),
            // Those who are there already go before all others; who waits is no burden.
            "upstreams/{upstream}/register" | "upstreams/{upstream}/deregister" => {
                return Some(Class::Leases);
            }
            "upstreams/{upstream}/healthy" => return Some(Class::Stream),
            _ => {}
        }
        let resource = route.split('/').next().unwrap_or_default();
        Some(match (resource, method.is_safe()) {
            ("cluster" | "nodes" | "plans" | "operations" | "demo", _) => Class::Control,
            (_, true) => Class::Reads,
            ("settings", false) => Class::Settings,
            ("locks", false) => Class::Locks,
            (_, false) => Class::Control,
        })
    }
}

/// The bounds of this node, and what is under way within them.
#[derive(Debug)]
pub struct Admission([Gate; Class::ALL.len()]);

#[derive(Debug)]
struct Gate {
    class: Class,
    room: Arc<Semaphore>,
    refused: AtomicU64,
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    _place: OwnedSemaphorePermit,
}

impl Admission {
    pub fn new() -> Arc<Self> {
        Arc::new(Admission(Class::ALL.map(|class| Gate {
            class,
            room: Arc::new(Semaphore::new(class.bound())),
            refused: AtomicU64::new(0),
        })))
    }

    pub fn enter(&self, class: Class) -> Result<Admitted, Refused> {
        let gate = &self.0[class as usize];
        match gate.room.clone().try_acquire_owned() {
            Ok(place) => Ok(Admitted { _place: place }),
            Err(_) => {
                gate.refused.fetch_add(1, Ordering::Relaxed);
                Err(overloaded(class))
            }
        }
    }
}

fn overloaded(class: Class) -> Refused {
    let (name, bound) = (class.as_str(), class.bound());
    let detail = format!(
        "{bound} requests of the class {name} are under way here, its bound; try again, or another node"
    );
    let problem = Problem {
        class: Some(name.to_owned()),
        bound: Some(bound as u64),
        ..Refusal::new(Code::Overloaded, detail).into()
    };
    Refused(Box::new(problem))
}

/// Admits a request, if it is of a class.
pub fn admit(api: &Api, request: &Request) -> Result<Option<Admitted>, Refused> {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    Class::of(request.method(), route).map(|class| api.admission.enter(class)).transpose()
}

/// Refuses a request for good: whoever floods holds no connection that an operator may need.
pub fn hang_up(refused: Refused) -> Response {
    let mut response = refused.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

impl Collector for Admission {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        let label = |gate: &Gate| [("class", gate.class.as_str().to_owned())];
        out.gauges(
            "admission_under_way",
            "Requests that are under way",
            None,
            self.0.iter().map(|gate| {
                let taken = gate.class.bound().saturating_sub(gate.room.available_permits());
                (label(gate), taken as f64)
            }),
        )?;
        out.gauges(
            "admission_bound",
            "How many may be under way",
            None,
            self.0.iter().map(|gate| (label(gate), gate.class.bound() as f64)),
        )?;
        out.counters(
            "admission_refused",
            "Requests that were refused because the bound of their class was reached",
            None,
            self.0.iter().map(|gate| (label(gate), gate.refused.load(Ordering::Relaxed))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_from_routes() {
        for (method, route, class) in [
            (Method::GET, "/v1/cluster", Some(Class::Control)),
            (Method::GET, "/v1/settings/{*key}", Some(Class::Reads)),
            (Method::GET, "/v1/locks", Some(Class::Reads)),
            (Method::POST, "/v1/locks/verify", Some(Class::Locks)),
            (Method::GET, "/v1/operations/{id}", Some(Class::Control)),
            (Method::PUT, "/v1/settings/{*key}", Some(Class::Settings)),
            (Method::POST, "/v1/plans", Some(Class::Control)),
            (Method::GET, "/v1/stream", None),
            (Method::GET, "/readyz", Some(Class::Probes)),
            (Method::GET, "/metrics", None),
            (Method::GET, "", None),
        ] {
            assert_eq!(Class::of(&method, route), class, "{method} {route}");
        }
    }

    #[test]
    fn a_full_class_takes_nothing_of_another() {
        let admission = Admission::new();
        let held: Vec<_> = (0..SETTINGS_BOUND).map(|_| admission.enter(Class::Settings).unwrap()).collect();
        let refused = admission.enter(Class::Settings).unwrap_err();
        assert_eq!(refused.0.bound, Some(SETTINGS_BOUND as u64));
        admission.enter(Class::Control).unwrap();
        drop(held);
        admission.enter(Class::Settings).unwrap();
    }
}
