//! Takes the reports of other nodes off the peer links.

use crate::store::Telemetry;
use ringmaster_common::id::NodeId;
use ringmaster_peer::{Channel, Incoming, Service, Session};
use std::sync::Arc;

/// Reports to other nodes.
pub const TELEMETRY: Channel = Channel(17);

/// The receiving end of [`TELEMETRY`].
#[derive(Debug)]
pub struct Receiver(pub Arc<Telemetry>);

impl Service for Receiver {
    fn serves(&self, channel: Channel) -> bool {
        channel == TELEMETRY
    }

    fn connected(&self, _: NodeId) -> Box<dyn Session> {
        Box::new(Receiver(self.0.clone()))
    }
}

impl Session for Receiver {
    fn receive(&mut self, request: Incoming) {
        self.0.receive(request.from, &request.body);
    }
}
