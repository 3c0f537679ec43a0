//! The listener: takes connections from peers, and gives their requests to services.
//!
//! How many connections there are is bounded, and so is the time that each has to say who it is. A peer needs no time
//! for that, so where too many have not said it, the oldest of them is given up for the newest: strangers that say
//! nothing keep no peer out.

use super::{
    MAX_ACCEPTED, MAX_HANDSHAKES, Shared,
    connection::{Ended, converse},
    frame::{Failure, FailureCode, Frame, Kind, Lane},
    handshake::{self, HandshakeError, Open, RefusalCode},
    in_flight_limit,
    outgoing::{Outgoing, queue},
    service::{self, Answer, Incoming, Service, Session},
};
use ringmaster_common::id::NodeId;
use ringmaster_net::accept::{self, WhenFull};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
};

/// Of how many wrong peers the last refusal is remembered, so that it is logged once.
const MAX_REMEMBERED_REFUSALS: usize = 64;

/// Accepts connections for ever. Dropping this future ends all that it has accepted.
pub(super) async fn listen(listener: TcpListener, shared: Arc<Shared>, services: Arc<[Arc<dyn Service>]>) {
    let permits = Arc::new(Semaphore::new(MAX_ACCEPTED));
    // Oldest first. Dropping one gives its handshake up.
    let mut handshakes = VecDeque::<oneshot::Sender<()>>::new();
    accept::run_owned(&listener, permits, WhenFull::Close, |stream, addr| {
        handshakes.retain(|handshake| !handshake.is_closed());
        while handshakes.len() >= MAX_HANDSHAKES {
            handshakes.pop_front();
        }
        let (handshake, given_up) = oneshot::channel();
        handshakes.push_back(handshake);
        serve(stream, addr, Arc::clone(&shared), Arc::clone(&services), given_up)
    })
    .await;
}

async fn serve(
    stream: TcpStream,
    addr: SocketAddr,
    shared: Arc<Shared>,
    services: Arc<[Arc<dyn Service>]>,
    mut given_up: oneshot::Receiver<()>,
) {
    let mut departed = shared.departed.subscribe();
    let known = Arc::clone(&departed.borrow_and_update());
    let accepted = tokio::select! {
        accepted = handshake::accept(stream, &shared.local, &known) => accepted,
        _ = &mut given_up => {
            tracing::debug!(%addr, "a handshake was given up for a newer one");
            return;
        }
    };
    drop(given_up);
    let Open { socket, format, peer } = match accepted {
        Ok(accepted) => accepted,
        Err(HandshakeError::RefusedHere { peer, refused }) => {
            if refused.code == RefusalCode::ForeignCluster {
                shared.stranger.send_replace(Some(refused.detail.clone()));
            }
            shared.refusals().log_once(peer, addr, &refused.to_string());
            return;
        }
        Err(error) => {
            tracing::debug!(%addr, %error, "a connection to the peer listener came to nothing");
            return;
        }
    };
    let from = peer.node_id;
    shared.refusals().forget(from);
    shared.has_connected(from);

    let (outgoing, queue) = queue(format);
    let mut dispatcher = Dispatcher::new(from, outgoing, &services);
    let conversation = converse(socket, format, queue, |frame| {
        shared.heard(from);
        dispatcher.take(frame)
    });
    let ended = tokio::select! {
        ended = conversation => ended,
        // It dials again, and is refused with the reason.
        _ = departed.wait_for(|departed| departed.contains(&from)) => Ended::Departed,
    };
    tracing::debug!(peer = %from, %ended, "a connection from a peer ended");
}

/// Hands the requests of one connection to the sessions that the services keep for it.
struct Dispatcher {
    from: NodeId,
    outgoing: Outgoing,
    sessions: Vec<(Arc<dyn Service>, Box<dyn Session>)>,
    /// What the peer may still ask for before something is answered, by lane.
    permits: [Arc<Semaphore>; 2],
}

impl Dispatcher {
    fn new(from: NodeId, outgoing: Outgoing, services: &[Arc<dyn Service>]) -> Dispatcher {
        let sessions =
            services.iter().map(|service| (Arc::clone(service), service.connected(from))).collect();
        let permits = [Lane::Urgent, Lane::Bulk].map(|lane| Arc::new(Semaphore::new(in_flight_limit(lane))));
        Dispatcher { from, outgoing, sessions, permits }
    }

    fn take(&mut self, frame: Frame) -> Result<(), Ended> {
        match frame.kind {
            Kind::Ping => {
                // If even a pong finds no room, the peer does not read; its silence will end this.
                let _ = self.outgoing.push(&Frame::bare(Kind::Pong, frame.id));
                Ok(())
            }
            Kind::Request | Kind::Cast => {
                self.dispatch(frame);
                Ok(())
            }
            Kind::Reply | Kind::Failure | Kind::Pong => Err(Ended::WrongWay),
        }
    }

    fn dispatch(&mut self, frame: Frame) {
        let served = self.sessions.iter_mut().find(|(service, _)| service.serves(frame.channel));
        let Some((_, session)) = served else {
            let detail = format!("nothing here serves channel {}", frame.channel.0);
            let failure = Failure::new(FailureCode::UnknownChannel, detail);
            return service::refuse(&frame, &self.outgoing, &failure);
        };
        let Ok(permit) = Arc::clone(&self.permits[frame.lane.position()]).try_acquire_owned() else {
            let detail = format!("{} requests are unanswered", in_flight_limit(frame.lane));
            return service::refuse(&frame, &self.outgoing, &Failure::new(FailureCode::Busy, detail));
        };
        let answer = Answer::new(&frame, &self.outgoing, permit);
        let Frame { channel, group, trace, body, .. } = frame;
        session.receive(Incoming { from: self.from, channel, group, trace, body, answer });
    }
}

/// The last refusal of each wrong peer: a peer that tries again and again is logged once.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    last: BTreeMap<NodeId, String>,
}

impl Refusals {
    fn log_once(&mut self, peer: NodeId, addr: SocketAddr, refused: &str) {
        if self.is_news(peer, refused) {
            tracing::warn!(%addr, claims = %peer, refused, "refused a peer");
        }
    }

    fn is_news(&mut self, peer: NodeId, refused: &str) -> bool {
        if self.last.get(&peer).is_some_and(|last| last == refused) {
            return false;
        }
        if self.last.len() >= MAX_REMEMBERED_REFUSALS {
            self.last.clear();
        }
        self.last.insert(peer, refused.to_owned());
        true
    }

    /// The node has been accepted: a later refusal is news again.
    fn forget(&mut self, peer: NodeId) {
        self.last.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_news_when_it_changes() {
        let mut refusals = Refusals::default();
        let (two, three) = (NodeId(2), NodeId(3));
        assert!(refusals.is_news(two, "foreign"));
        assert!(!refusals.is_news(two, "foreign"));
        assert!(refusals.is_news(three, "foreign"));
        assert!(refusals.is_news(two, "own id"));
        refusals.forget(NodeId(2));
        assert!(refusals.is_news(two, "own id"));
        for id in 0..10 * MAX_REMEMBERED_REFUSALS as u64 {
            refusals.is_news(NodeId(id), "foreign");
            assert!(refusals.last.len() <= MAX_REMEMBERED_REFUSALS);
        }
    }
}
