//! Traffic configuration: upstreams, their endpoints, and the routes to them.
//!
//! All of it is configured by whole values under ETags. A put never touches the state of an endpoint (ready, drain,
//! maintenance), its health, or the registered endpoints.

pub mod endpoints;
pub mod import;
pub mod routes;
pub mod upstreams;

use crate::{ServiceError, Services, WriteRequest, Written};
use ringmaster_cluster::{
    command::{Command, Outcome},
    traffic::TrafficCommand,
};

impl Services {
    /// Writes a change of traffic configuration.
    pub(crate) async fn write_traffic(
        &self,
        request: WriteRequest,
        command: TrafficCommand,
    ) -> Result<Written<Outcome>, ServiceError> {
        self.write(request, Command::Traffic(Box::new(command))).await
    }
}
