//! Why a service did not do what it was asked for.

use crate::admission::Overloaded;
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
};
use std::{fmt, time::Duration};

/// A refusal, with the metadata that a response to it carries.
#[derive(Debug)]
pub struct ServiceError {
    /// Boxed: results are moved through every service, and most hold no error.
    pub refusal: Box<Refusal>,
    /// The class whose bound was reached, where the request was one too many.
    pub overloaded: Option<Overloaded>,
    /// The id of the refused write. Logs and the audit name it.
    pub request_id: Option<String>,
    /// The state in which a read did not find what it was asked for.
    pub read_at: Option<ReadAt>,
}

/// The state that a read was answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAt {
    /// The revision that this node had applied.
    pub revision: Revision,
    /// How old the state may be: zero where the leader confirmed it, else the time since this node heard of a
    /// leader. None where it never did.
    pub age: Option<Duration>,
}

impl ServiceError {
    /// A refused write.
    pub(crate) fn of_write(refusal: Refusal, request_id: String) -> Self {
        ServiceError { request_id: Some(request_id), ..refusal.into() }
    }

    /// A read that did not find what it was asked for.
    pub(crate) fn of_read(refusal: Refusal, at: ReadAt) -> Self {
        ServiceError { read_at: Some(at), ..refusal.into() }
    }

    /// The outcome of a command does not fit the command.
    pub(crate) fn unexpected_outcome(request_id: String) -> Self {
        let detail =
            "the leader answered with an outcome of another kind; do all nodes run the same version?";
        ServiceError::of_write(Refusal::new(Code::Internal, detail), request_id)
    }
}

impl From<Refusal> for ServiceError {
    fn from(refusal: Refusal) -> Self {
        ServiceError { refusal: Box::new(refusal), overloaded: None, request_id: None, read_at: None }
    }
}

impl From<Overloaded> for ServiceError {
    fn from(overloaded: Overloaded) -> Self {
        let (name, bound) = (overloaded.class.as_str(), overloaded.bound);
        let detail = format!(
            "{bound} requests of the class {name} are in progress on this node, which is the limit; retry later, or on \
             another node"
        );
        ServiceError { overloaded: Some(overloaded), ..Refusal::new(Code::Overloaded, detail).into() }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.refusal.code, self.refusal.detail)
    }
}

impl std::error::Error for ServiceError {}
