//! What every service takes beside its input, and what it returns beside its value.

use crate::{
    cluster_group::Consistency,
    error::{ReadAt, ServiceError},
};
use ringmaster_cluster::command::{Actor, Outcome, Request, Resource};
use ringmaster_common::{error::Refusal, id::Revision};
use std::{
    fmt,
    net::IpAddr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// The caller of a service.
///
/// Without authentication every caller is the anonymous operator, known by the kind of its client and by its
/// address. The audit records both: a name that any client could claim would be worse than none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    Anonymous { client: ClientKind, addr: Option<IpAddr> },
}

/// The program that a request comes from, as the request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    Api,
    Cli,
    Dashboard,
    Node,
}

impl ClientKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ClientKind::Api => "api",
            ClientKind::Cli => "cli",
            ClientKind::Dashboard => "dashboard",
            ClientKind::Node => "node",
        }
    }
}

impl fmt::Display for Principal {
    /// As the audit names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Anonymous { client, addr: Some(addr) } => write!(f, "{}@{addr}", client.as_str()),
            Principal::Anonymous { client, addr: None } => f.write_str(client.as_str()),
        }
    }
}

/// A request that changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub principal: Principal,
    /// How fresh the state must be.
    pub consistency: Consistency,
    pub deadline: Instant,
}

/// A request that changes the replicated state.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    pub principal: Principal,
    /// A repeat under the same id gets the first answer.
    id: String,
    /// Whether the client chose the id, and so may repeat the request itself.
    is_repeatable: bool,
    /// The hash of what the client sent, where it may repeat the request.
    fingerprint: Option<u32>,
    /// Where the client sends it again: its first attempt is ordered after this, if at all.
    resent_after: Option<Revision>,
    pub deadline: Instant,
}

impl WriteRequest {
    /// A write under the id that the client chose, or under a new one.
    pub fn new(principal: Principal, chosen_id: Option<String>, deadline: Instant) -> Self {
        let is_repeatable = chosen_id.is_some();
        let id = chosen_id.unwrap_or_else(new_id);
        WriteRequest { principal, id, is_repeatable, fingerprint: None, resent_after: None, deadline }
    }

    /// With what distinguishes it from another request under the same id.
    pub fn with_fingerprint(self, fingerprint: Option<u32>) -> Self {
        WriteRequest { fingerprint, ..self }
    }

    /// With what the client knew before its first attempt.
    pub fn with_resent_after(self, resent_after: Option<Revision>) -> Self {
        WriteRequest { resent_after, ..self }
    }

    /// Passes on what was validated, or refuses this write.
    pub fn check<T>(&self, validated: Result<T, Refusal>) -> Result<T, ServiceError> {
        validated.map_err(|refusal| ServiceError::of_write(refusal, self.id.clone()))
    }

    /// The answer to a request that needed no entry of the log.
    pub(crate) fn without_entry<T>(self, value: T) -> Written<T> {
        Written { value, revision: None, request_id: self.id }
    }

    /// The id, and the request as the log keeps it.
    pub(crate) fn into_command_request(self) -> (String, Request) {
        let request = Request {
            id: self.id.clone(),
            actor: Actor::Operator(self.principal.to_string()),
            repeatable: self.is_repeatable,
            fingerprint: self.fingerprint,
            resent_after: self.resent_after,
        };
        (self.id, request)
    }
}

/// The id of a request whose client chose none: a UUID of this process and a counter. Ids of one process sort by age,
/// so that the entries of the log, the history and the audit that hold them compress well and lie side by side.
fn new_id() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(rand::random);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let bytes = (u128::from(*PROCESS) << 64 | u128::from(count)).to_be_bytes();
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// The value that a read found, and the state that it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Read<T> {
    pub value: T,
    pub at: ReadAt,
}

impl<T> Read<T> {
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Read<U> {
        Read { value: convert(self.value), at: self.at }
    }

    /// The same with what `convert` finds in the value. A refusal says which state it is about.
    pub(crate) fn find<U>(
        self,
        convert: impl FnOnce(T) -> Result<U, Refusal>,
    ) -> Result<Read<U>, ServiceError> {
        match convert(self.value) {
            Ok(value) => Ok(Read { value, at: self.at }),
            Err(refusal) => Err(ServiceError::of_read(refusal, self.at)),
        }
    }
}

/// The value that a write stored, or that answers it, and the id under which it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<T> {
    pub value: T,
    /// The log index of the command; of the first one, if this was a repeat. None where the service knows of none: for
    /// a granted lock, and for the renewal of a registration, which is no entry of the log.
    pub revision: Option<Revision>,
    pub request_id: String,
}

impl<T> Written<T> {
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Written<U> {
        Written { value: convert(self.value), revision: self.revision, request_id: self.request_id }
    }

    /// The same with the value that an outcome must hold.
    pub(crate) fn expect<U>(self, convert: impl FnOnce(T) -> Option<U>) -> Result<Written<U>, ServiceError> {
        let Written { value, revision, request_id } = self;
        match convert(value) {
            Some(value) => Ok(Written { value, revision, request_id }),
            None => Err(ServiceError::unexpected_outcome(request_id)),
        }
    }
}

impl Written<Outcome> {
    /// The resource that the write stored, of the kind that `pick` takes.
    pub(crate) fn stored<T>(
        self,
        pick: impl FnOnce(Resource) -> Option<T>,
    ) -> Result<Written<Stored<T>>, ServiceError> {
        self.expect(|outcome| match outcome {
            Outcome::Stored(stored) => pick(stored.resource).map(|resource| Stored {
                resource,
                version: stored.version,
                created: stored.created,
            }),
            _ => None,
        })
    }
}

/// A resource at a version, which its ETag names. A write returns the version that this write stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<T> {
    pub resource: T,
    pub version: Revision,
    /// Whether this write created it.
    pub created: bool,
}

impl<T> Stored<T> {
    /// A resource that a read found.
    pub(crate) fn found(resource: T, version: Revision) -> Self {
        Stored { resource, version, created: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn deadline() -> Instant {
        ringmaster_net::clock::now() + Duration::from_secs(1)
    }

    #[test]
    fn the_audit_names_the_client_and_its_address() {
        let addr = Some("192.0.2.7".parse().unwrap());
        let known = Principal::Anonymous { client: ClientKind::Cli, addr };
        assert_eq!(known.to_string(), "cli@192.0.2.7");
        assert_eq!(Principal::Anonymous { client: ClientKind::Api, addr: None }.to_string(), "api");
    }

    #[test]
    fn ids_that_a_node_makes_are_uuids_in_order() {
        let principal = Principal::Anonymous { client: ClientKind::Api, addr: None };
        let next = || WriteRequest::new(principal, None, deadline()).into_command_request();
        let ((first, request), (second, _)) = (next(), next());
        assert!(uuid::Uuid::parse_str(&first).is_ok() && first < second, "{first} {second}");
        assert!(!request.repeatable);
        let chosen = WriteRequest::new(principal, Some("mine".to_owned()), deadline());
        let (id, request) = chosen.into_command_request();
        assert_eq!((id.as_str(), request.repeatable), ("mine", true));
    }

    #[test]
    fn a_write_that_fails_validation_is_refused_under_its_id() {
        let principal = Principal::Anonymous { client: ClientKind::Api, addr: None };
        let write = WriteRequest::new(principal, Some("mine".to_owned()), deadline());
        let refusal = Refusal::new(ringmaster_common::error::Code::InvalidRequest, "no");
        let error = write.check::<()>(Err(refusal)).unwrap_err();
        assert_eq!(error.request_id.as_deref(), Some("mine"));
    }
}
