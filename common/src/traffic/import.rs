//! Upstreams and routes that are put together: all of them, or none.

use super::{route::RouteSpec, upstream::UpstreamSpec};
use crate::id::Revision;
use serde::{Deserialize, Serialize};

/// The largest body of an import, in bytes: 256 upstreams of 256 endpoints fit where an id and an address together have
/// up to 75. An import is one entry of the log, and an entry must fit into a frame between nodes, which has 16 MiB.
pub const MAX_IMPORT_BYTES: usize = 7 << 20;

/// The body of `POST /v1/traffic/import`. Upstreams and routes that it does not name stay unchanged.
// `import` is a keyword of the languages that clients are generated for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TrafficImport))]
#[serde(deny_unknown_fields, default)]
pub struct Import {
    pub upstreams: Vec<Put<UpstreamSpec>>,
    pub routes: Vec<Put<RouteSpec>>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Put<T> {
    pub name: String,
    /// The version that it has now; null where there is none yet.
    #[serde(default)]
    pub version: Option<Revision>,
    pub spec: T,
}

/// What an import stored: each resource is at `version` now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Imported {
    pub version: Revision,
    pub upstreams: Vec<PutResult>,
    pub routes: Vec<PutResult>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PutResult {
    pub name: String,
    pub created: bool,
}

impl Import {
    pub fn is_empty(&self) -> bool {
        self.upstreams.is_empty() && self.routes.is_empty()
    }
}
