//! Beats: small packets beside the connections, which tell the two directions apart.
//!
//! TCP needs both ways: where one is cut, both ends only learn that there is no connection. So each node
//! sends each peer a numbered packet by UDP, from and to the ports of the peer listeners, and says in it
//! which number of the peer's it has heard last. Whoever hears a peer whose word of what it heard stands
//! still knows that what it sends is lost on the way. Who hears nothing cannot tell, and claims nothing:
//! so a cut of both ways, which ends all beats at once, is never taken for a cut of one.
//!
//! Time is counted in a node's own beats, by no clock: one that was paused has missed none.
//!
//! Beats decide nothing. They are no sign of life, prolong no lease, and are no part of Raft; they are
//! not repeated, not answered, and prove no identity. Where UDP is blocked, nothing is known of the
//! directions, and all else goes on.

use super::{Shared, lock};
use ringmaster_common::{
    id::{Incarnation, NodeId},
    telemetry::Reachability,
};
use ringmaster_net::clock;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::UdpSocket, time::sleep};

/// How often each peer is sent a beat.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// After this many beats of one's own in which nothing happened, it no longer happens.
const PATIENCE: u64 = 3;

/// The last byte is the format's version.
const MAGIC: [u8; 4] = *b"RMB\x01";
const BEAT_BYTES: usize = 40;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beat {
    /// Which cluster's, in which incarnation, as a checksum: nodes of another one are passed over.
    history: u32,
    from: NodeId,
    to: NodeId,
    number: u64,
    /// The number of `to` that was heard last; 0 is none.
    heard: u64,
}

impl Beat {
    fn encode(&self) -> [u8; BEAT_BYTES] {
        let mut bytes = [0; BEAT_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.history.to_be_bytes());
        for (field, place) in
            [self.from.0, self.to.0, self.number, self.heard].iter().zip(bytes[8..].chunks_exact_mut(8))
        {
            place.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Beat> {
        let rest = bytes.strip_prefix(&MAGIC).filter(|_| bytes.len() == BEAT_BYTES)?;
        let (history, rest) = rest.split_first_chunk()?;
        let (fields, _) = rest.as_chunks();
        let [from, to, number, heard] = fields else { return None };
        Some(Beat {
            history: u32::from_be_bytes(*history),
            from: NodeId(u64::from_be_bytes(*from)),
            to: NodeId(u64::from_be_bytes(*to)),
            number: u64::from_be_bytes(*number),
            heard: u64::from_be_bytes(*heard),
        })
    }
}

/// What one peer's beats have told.
#[derive(Debug, Default)]
pub(super) struct Beats {
    /// The number of the last one that was sent. It is also the clock of what follows.
    sent: u64,
    /// The number that was heard last.
    heard: u64,
    /// When that was.
    heard_at: Option<u64>,
    /// Which of this node's the peer had heard, as it said last.
    acknowledged: u64,
    /// When that last changed, or the peer was heard again after a silence.
    changed_at: u64,
    /// Whether it has changed at all since that silence.
    is_acknowledged: bool,
}

impl Beats {
    fn next(&mut self) -> (u64, u64) {
        self.sent += 1;
        (self.sent, self.heard)
    }

    fn hear(&mut self, number: u64, acknowledged: u64) {
        let changed = acknowledged != self.acknowledged;
        if changed || self.is_silent() {
            self.changed_at = self.sent;
            self.is_acknowledged = changed;
        }
        self.acknowledged = acknowledged;
        self.heard = number;
        self.heard_at = Some(self.sent);
    }

    fn is_silent(&self) -> bool {
        self.heard_at.is_none_or(|at| self.sent - at > PATIENCE)
    }

    pub(super) fn reachability(&self) -> Reachability {
        if self.is_silent() {
            Reachability::Unknown
        } else if self.sent - self.changed_at > PATIENCE {
            Reachability::InOnly
        } else if self.is_acknowledged {
            Reachability::BothWays
        } else {
            Reachability::Unknown
        }
    }
}

/// Sends and hears beats at the address of the peer listener, for as long as the node has links.
pub(super) async fn exchange(listener: io::Result<SocketAddr>, shared: Arc<Shared>) {
    let bound = match listener {
        Ok(addr) => UdpSocket::bind(addr).await,
        Err(error) => Err(error),
    };
    let socket = match bound {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(
                %error,
                "no UDP beside the peer listener: a link that is cut one way will look cut both ways"
            );
            return;
        }
    };
    let local = &shared.local;
    let history = history(&local.cluster_id, local.incarnation);
    let mut ticks = clock::ticks(BEAT_EVERY);
    // One byte more than a beat has, so that what is longer is seen to be.
    let mut buffer = [0; BEAT_BYTES + 1];
    loop {
        tokio::select! {
            _ = ticks.tick() => shared.send_beats(&socket, history),
            received = socket.recv(&mut buffer) => match received {
                Ok(length) => {
                    let beat = Beat::decode(&buffer[..length]);
                    if let Some(beat) = beat.filter(|beat| beat.history == history) {
                        shared.hear_beat(&beat);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no beats can be heard");
                    sleep(BEAT_EVERY).await;
                }
            },
        }
    }
}

impl Shared {
    fn send_beats(&self, socket: &UdpSocket, history: u32) {
        for dialled in self.read_links().values() {
            let link = &dialled.link;
            // Members are known by addresses that were listened on, not by names.
            let Ok(addr) = link.addr.parse::<SocketAddr>() else { continue };
            let (number, heard) = lock(&link.beats).next();
            let beat = Beat { history, from: self.local.node_id, to: link.peer, number, heard };
            // One that cannot be sent is lost, like one that is lost later.
            let _ = socket.try_send_to(&beat.encode(), addr);
        }
    }

    fn hear_beat(&self, beat: &Beat) {
        if beat.to == self.local.node_id
            && let Some(dialled) = self.read_links().get(&beat.from)
        {
            lock(&dialled.link.beats).hear(beat.number, beat.heard);
        }
    }
}

fn history(cluster_id: &str, incarnation: Incarnation) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(cluster_id.as_bytes());
    hash.update(&incarnation.0.to_be_bytes());
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two ends of a link, and which beats arrive at which.
    #[derive(Default)]
    struct Pair([Beats; 2]);

    impl Pair {
        /// Both beat once. `arrives` says whether what an end sends arrives at the other.
        fn beat(&mut self, arrives: [bool; 2]) -> [Reachability; 2] {
            for end in [0, 1] {
                let (number, heard) = self.0[end].next();
                if arrives[end] {
                    self.0[1 - end].hear(number, heard);
                }
            }
            self.reachability()
        }

        fn beats(&mut self, count: u64, arrives: [bool; 2]) -> Vec<[Reachability; 2]> {
            (0..count).map(|_| self.beat(arrives)).collect()
        }

        fn reachability(&self) -> [Reachability; 2] {
            [self.0[0].reachability(), self.0[1].reachability()]
        }
    }

    const ALL: [bool; 2] = [true, true];
    const ONLY_FROM_THE_FIRST: [bool; 2] = [true, false];
    const NOTHING: [bool; 2] = [false, false];

    #[test]
    fn what_arrives_and_is_heard_of_goes_both_ways() {
        let mut pair = Pair::default();
        pair.beats(3, ALL);
        assert_eq!(pair.reachability(), [Reachability::BothWays; 2]);
        assert!(pair.beats(100, ALL).iter().all(|reachability| *reachability == [Reachability::BothWays; 2]));
    }

    #[test]
    fn who_is_not_heard_and_hears_knows_it() {
        for first in [Pair::default(), {
            let mut pair = Pair::default();
            pair.beats(10, ALL);
            pair
        }] {
            let mut pair = first;
            pair.beats(PATIENCE + 2, ONLY_FROM_THE_FIRST);
            assert_eq!(pair.reachability(), [Reachability::Unknown, Reachability::InOnly]);
            pair.beats(2, ALL);
            assert_eq!(pair.reachability(), [Reachability::BothWays; 2]);
        }
    }

    #[test]
    fn a_cut_of_both_ways_is_never_taken_for_one() {
        let mut pair = Pair::default();
        let mut seen = pair.beats(10, ALL);
        for _ in 0..3 {
            seen.extend(pair.beats(50, NOTHING));
            assert_eq!(pair.reachability(), [Reachability::Unknown; 2]);
            seen.extend(pair.beats(10, ALL));
            assert_eq!(pair.reachability(), [Reachability::BothWays; 2]);
        }
        assert!(seen.iter().flatten().all(|reachability| *reachability != Reachability::InOnly), "{seen:?}");
    }

    #[test]
    fn some_loss_is_no_cut() {
        let mut pair = Pair::default();
        let seen: Vec<_> = (0..60)
            .map(|beat| pair.beat([beat % 3 == 0, beat % 3 == 1]))
            .skip(PATIENCE as usize + 1)
            .collect();
        assert!(seen.iter().all(|reachability| *reachability == [Reachability::BothWays; 2]), "{seen:?}");
    }

    /// A process that was paused finds all that its peer sent meanwhile, and none of it says anything new.
    #[test]
    fn a_pause_is_no_cut() {
        let mut pair = Pair::default();
        pair.beats(10, ALL);
        let (mut sent, mut seen) = (Vec::new(), Vec::new());
        for _ in 0..30 {
            sent.push(pair.0[1].next());
            seen.push(pair.0[1].reachability());
        }
        for (number, heard) in sent {
            pair.0[0].hear(number, heard);
            seen.push(pair.0[0].reachability());
        }
        seen.extend(pair.beats(10, ALL).into_iter().flatten());
        assert!(!seen.contains(&Reachability::InOnly), "{seen:?}");
    }

    #[test]
    fn a_beat_that_is_not_one_is_passed_over() {
        let beat = Beat { history: 7, from: NodeId(1), to: NodeId(2), number: 3, heard: 4 };
        let bytes = beat.encode();
        assert_eq!(Beat::decode(&bytes), Some(beat));
        assert_eq!(Beat::decode(&bytes[..BEAT_BYTES - 1]), None);
        assert_eq!(Beat::decode(&[&bytes[..], &[0]].concat()), None);
        let mut other = bytes;
        other[3] += 1;
        assert_eq!(Beat::decode(&other), None, "another version");
        assert_ne!(history("a", Incarnation(1)), history("a", Incarnation(2)));
        assert_ne!(history("a", Incarnation(1)), history("b", Incarnation(1)));
    }
}
