//! Chaos, which a demo cluster alone offers: real signals to real processes.

use crate::id::NodeId;
use serde::{Deserialize, Serialize};

/// What may be done to a node of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
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

impl Chaos {
    pub const ALL: &[Chaos] = &[Chaos::Kill, Chaos::Pause, Chaos::Resume, Chaos::Restart];

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    Running,
    Paused,
    Exited,
}

/// The answer of `POST /v1/demo/nodes` and `POST /v1/demo/nodes/{id}/…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DemoNode {
    pub node: NodeId,
    pub state: ProcessState,
    pub pid: Option<u32>,
    pub url: String,
}
