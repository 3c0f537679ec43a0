//! What the node decides about a request by its route alone, before its handler runs.

use crate::http::{MAX_BODY_BYTES, MAX_LOCK_BODY_BYTES};
use ringmaster_common::traffic::import::MAX_IMPORT_BYTES;
use ringmaster_services::admission::Class;

/// The policy of one row of the route table.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The label of the route in metrics: its path, as the router spells it.
    pub route: &'static str,
    pub admit: Admit,
    pub time_limit: TimeLimit,
    pub permission: Permission,
}

impl Policy {
    /// The largest body that is read.
    pub fn max_body_bytes(&self) -> usize {
        match self.route {
            "/v1/traffic/import" => MAX_IMPORT_BYTES,
            route if route.starts_with("/v1/locks/") => MAX_LOCK_BODY_BYTES,
            _ => MAX_BODY_BYTES,
        }
    }

    /// Whether it is answered on a connection of the reserve, which is for probes, operators and lock holders.
    pub fn is_of_reserve(&self) -> bool {
        match self.admit {
            Admit::Always => true,
            Admit::In(class) => matches!(class, Class::Control | Class::Probes | Class::Leases),
            Admit::AfterBody(_) | Admit::ByService => false,
        }
    }
}

/// How a request counts towards the bounds of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// It is in progress in this class until its response begins.
    In(Class),
    /// Its service admits it, for longer than the response takes to begin.
    ByService,
    /// Its service admits it by the input. Until its body has arrived, it is in progress in this class.
    AfterBody(Class),
    /// It is answered from memory.
    Always,
}

/// How long a request may take until its response begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLimit {
    /// [`REQUEST_TIMEOUT`](crate::http::REQUEST_TIMEOUT).
    Standard,
    /// The request says how long it waits, and its service returns by then.
    OfTheRequest,
}

/// The right that a request needs. It is documented, and not enforced: without authentication every client has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// None: probes, the description of the API, the files of the dashboard.
    Public,
    /// To see the state of the cluster.
    View,
    /// To use the cluster as a service does: locks, registrations, heartbeats.
    Use,
    /// To change its configuration, and to plan and run operations.
    Operate,
    /// To endanger the cluster: chaos in a demo.
    Administer,
}

impl Permission {
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Public => "public",
            Permission::View => "view",
            Permission::Use => "use",
            Permission::Operate => "operate",
            Permission::Administer => "administer",
        }
    }
}
