//! Chaos actions, in a demo cluster only: real signals to real processes.

use crate::{id::NodeId, string_enum::string_enum};
use serde::{Deserialize, Serialize};

/// A chaos action on a node of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Chaos {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// Starts the process again; kills it first where it runs.
    Restart,
}

string_enum!(Chaos: Kill Pause Resume Restart);

impl Chaos {
    pub fn as_str(self) -> &'static str {
        match self {
            Chaos::Kill => "kill",
            Chaos::Pause => "pause",
            Chaos::Resume => "resume",
            Chaos::Restart => "restart",
        }
    }
}

/// The state of a node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum ProcessState {
    Running,
    Paused,
    Exited,
}

string_enum!(ProcessState: Running Paused Exited);

impl ProcessState {
    pub fn as_str(self) -> &'static str {
        match self {
            ProcessState::Running => "running",
            ProcessState::Paused => "paused",
            ProcessState::Exited => "exited",
        }
    }
}

/// The message of a node that ends because it was removed from its cluster.
pub const REMOVED: &str = "was removed from the cluster, and";

/// The answer of `POST /v1/demo/nodes` and `POST /v1/demo/nodes/{id}/…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DemoNode {
    pub node: NodeId,
    pub state: ProcessState,
    pub pid: Option<u32>,
    pub url: String,
}
