//! Conditional writes: a write that expects a version is refused where another one is stored.

use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
};
use serde::{Deserialize, Serialize};

/// The version that a conditional write expects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precondition {
    #[default]
    None,
    /// `If-Match` with versions.
    AnyOf(Vec<Revision>),
    /// `If-Match: *`
    Exists,
    /// `If-None-Match: *`
    Absent,
}

impl Precondition {
    pub(crate) fn check(&self, what: &str, version: Option<Revision>) -> Result<(), Refusal> {
        let holds = match self {
            Precondition::None => true,
            Precondition::AnyOf(versions) => version.is_some_and(|version| versions.contains(&version)),
            Precondition::Exists => version.is_some(),
            Precondition::Absent => version.is_none(),
        };
        if holds {
            return Ok(());
        }
        let stands = match version {
            Some(version) => format!("{what} is at version {version}"),
            None => format!("{what} does not exist"),
        };
        Err(Refusal::new(Code::PreconditionFailed, format!("{stands}; read it again and decide anew")))
    }
}
