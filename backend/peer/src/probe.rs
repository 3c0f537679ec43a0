//! Reachability probes: small packets beside the connections, which distinguish the two directions of a link.
//!
//! TCP needs both ways: where one is cut, both ends only learn that there is no connection. So each node sends each
//! peer a numbered packet by UDP, from and to the ports of the peer listeners, with the last number that it has received
//! from the peer. A node that receives a peer, and sees that the number which the peer acknowledges no longer changes,
//! knows that its own packets are lost. A node that receives nothing makes no claim: so a cut of both
//! ways, which ends all probes at once, is never taken for a cut of one.
//!
//! Time is counted in a node's own probes, by no clock: a node that was paused has missed none.
//!
//! Probes decide nothing. They are no sign of life, prolong no lease, and are no part of Raft; they are not repeated,
//! not answered, and prove no identity. Where UDP is blocked, the directions are unknown, and all else works.

use super::{Shared, lock};
use ringmaster_common::{
    id::{Incarnation, NodeId},
    telemetry::Reachability,
};
use ringmaster_net::clock;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::UdpSocket, time::sleep};

/// How often a probe is sent to each peer.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// A peer is silent after this many probes of this node without one of the peer.
const SILENT_AFTER: u64 = 3;

/// The last byte is the format's version.
const MAGIC: [u8; 4] = *b"RMB\x01";
const PROBE_BYTES: usize = 40;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReachabilityProbe {
    /// A checksum of cluster and incarnation: probes of others are ignored.
    history: u32,
    from: NodeId,
    to: NodeId,
    number: u64,
    /// The last number that was received from `to`; 0 is none.
    heard: u64,
}

impl ReachabilityProbe {
    fn encode(&self) -> [u8; PROBE_BYTES] {
        let mut bytes = [0; PROBE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.history.to_be_bytes());
        for (field, place) in
            [self.from.0, self.to.0, self.number, self.heard].iter().zip(bytes[8..].chunks_exact_mut(8))
        {
            place.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<ReachabilityProbe> {
        let rest = bytes.strip_prefix(&MAGIC).filter(|_| bytes.len() == PROBE_BYTES)?;
        let (history, rest) = rest.split_first_chunk()?;
        let (fields, _) = rest.as_chunks();
        let [from, to, number, heard] = fields else { return None };
        Some(ReachabilityProbe {
            history: u32::from_be_bytes(*history),
            from: NodeId(u64::from_be_bytes(*from)),
            to: NodeId(u64::from_be_bytes(*to)),
            number: u64::from_be_bytes(*number),
            heard: u64::from_be_bytes(*heard),
        })
    }
}

/// The state of the probes between this node and one peer.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// The number of the last one that was sent. It is also the clock of what follows.
    sent: u64,
    /// The last number that was received.
    heard: u64,
    /// When that was.
    heard_at: Option<u64>,
    /// The last number of this node that the peer had received, as it said last.
    acknowledged: u64,
    /// When that last changed, or the peer was received again after a silence.
    changed_at: u64,
    /// Whether it has changed at all since that silence.
    is_acknowledged: bool,
}

impl Probes {
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
        self.heard_at.is_none_or(|at| self.sent - at > SILENT_AFTER)
    }

    pub(super) fn reachability(&self) -> Reachability {
        if self.is_silent() {
            Reachability::Unknown
        } else if self.sent - self.changed_at > SILENT_AFTER {
            Reachability::InOnly
        } else if self.is_acknowledged {
            Reachability::BothWays
        } else {
            Reachability::Unknown
        }
    }
}

/// Sends and receives probes at the address of the peer listener, for as long as the node has links.
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
    let mut ticks = clock::ticks(PROBE_INTERVAL);
    // One byte more than a probe has, so that a longer packet is seen to be longer.
    let mut buffer = [0; PROBE_BYTES + 1];
    loop {
        tokio::select! {
            _ = ticks.tick() => shared.send_probes(&socket, history),
            received = socket.recv(&mut buffer) => match received {
                Ok(length) => {
                    let probe = ReachabilityProbe::decode(&buffer[..length]);
                    if let Some(probe) = probe.filter(|probe| probe.history == history) {
                        shared.receive_probe(&probe);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no probes can be received");
                    sleep(PROBE_INTERVAL).await;
                }
            },
        }
    }
}

impl Shared {
    fn send_probes(&self, socket: &UdpSocket, history: u32) {
        for dialled in self.read_links().values() {
            let link = &dialled.link;
            // Members are known by addresses that were listened on, not by names.
            let Ok(addr) = link.addr.parse::<SocketAddr>() else { continue };
            let (number, heard) = lock(&link.probes).next();
            let probe = ReachabilityProbe { history, from: self.local.node_id, to: link.peer, number, heard };
            // A probe that cannot be sent is lost, like one that is lost later.
            let _ = socket.try_send_to(&probe.encode(), addr);
        }
    }

    fn receive_probe(&self, probe: &ReachabilityProbe) {
        if probe.to == self.local.node_id
            && let Some(dialled) = self.read_links().get(&probe.from)
        {
            lock(&dialled.link.probes).hear(probe.number, probe.heard);
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

    /// Two ends of a link.
    #[derive(Default)]
    struct Pair([Probes; 2]);

    impl Pair {
        /// Both send one. `arrives` says whether what an end sends arrives at the other.
        fn probe(&mut self, arrives: [bool; 2]) -> [Reachability; 2] {
            for end in [0, 1] {
                let (number, heard) = self.0[end].next();
                if arrives[end] {
                    self.0[1 - end].hear(number, heard);
                }
            }
            self.reachability()
        }

        fn probes(&mut self, count: u64, arrives: [bool; 2]) -> Vec<[Reachability; 2]> {
            (0..count).map(|_| self.probe(arrives)).collect()
        }

        fn reachability(&self) -> [Reachability; 2] {
            [self.0[0].reachability(), self.0[1].reachability()]
        }
    }

    const ALL: [bool; 2] = [true, true];
    const ONLY_FROM_THE_FIRST: [bool; 2] = [true, false];
    const NOTHING: [bool; 2] = [false, false];

    #[test]
    fn probes_that_arrive_and_are_acknowledged_go_both_ways() {
        let mut pair = Pair::default();
        pair.probes(3, ALL);
        assert_eq!(pair.reachability(), [Reachability::BothWays; 2]);
        assert!(
            pair.probes(100, ALL).iter().all(|reachability| *reachability == [Reachability::BothWays; 2])
        );
    }

    #[test]
    fn a_node_that_receives_and_is_not_received_knows_it() {
        for first in [Pair::default(), {
            let mut pair = Pair::default();
            pair.probes(10, ALL);
            pair
        }] {
            let mut pair = first;
            pair.probes(SILENT_AFTER + 2, ONLY_FROM_THE_FIRST);
            assert_eq!(pair.reachability(), [Reachability::Unknown, Reachability::InOnly]);
            pair.probes(2, ALL);
            assert_eq!(pair.reachability(), [Reachability::BothWays; 2]);
        }
    }

    #[test]
    fn a_cut_of_both_ways_is_never_taken_for_one() {
        let mut pair = Pair::default();
        let mut seen = pair.probes(10, ALL);
        for _ in 0..3 {
            seen.extend(pair.probes(50, NOTHING));
            assert_eq!(pair.reachability(), [Reachability::Unknown; 2]);
            seen.extend(pair.probes(10, ALL));
            assert_eq!(pair.reachability(), [Reachability::BothWays; 2]);
        }
        assert!(seen.iter().flatten().all(|reachability| *reachability != Reachability::InOnly), "{seen:?}");
    }

    #[test]
    fn some_loss_is_no_cut() {
        let mut pair = Pair::default();
        let seen: Vec<_> = (0..60)
            .map(|probe| pair.probe([probe % 3 == 0, probe % 3 == 1]))
            .skip(SILENT_AFTER as usize + 1)
            .collect();
        assert!(seen.iter().all(|reachability| *reachability == [Reachability::BothWays; 2]), "{seen:?}");
    }

    /// A process that was paused finds all that its peer sent meanwhile, and none of it says anything new.
    #[test]
    fn a_pause_is_no_cut() {
        let mut pair = Pair::default();
        pair.probes(10, ALL);
        let (mut sent, mut seen) = (Vec::new(), Vec::new());
        for _ in 0..30 {
            sent.push(pair.0[1].next());
            seen.push(pair.0[1].reachability());
        }
        for (number, heard) in sent {
            pair.0[0].hear(number, heard);
            seen.push(pair.0[0].reachability());
        }
        seen.extend(pair.probes(10, ALL).into_iter().flatten());
        assert!(!seen.contains(&Reachability::InOnly), "{seen:?}");
    }

    #[test]
    fn bytes_that_are_no_probe_are_ignored() {
        let probe = ReachabilityProbe { history: 7, from: NodeId(1), to: NodeId(2), number: 3, heard: 4 };
        let bytes = probe.encode();
        assert_eq!(ReachabilityProbe::decode(&bytes), Some(probe));
        assert_eq!(ReachabilityProbe::decode(&bytes[..PROBE_BYTES - 1]), None);
        assert_eq!(ReachabilityProbe::decode(&[&bytes[..], &[0]].concat()), None);
        let mut other = bytes;
        other[3] += 1;
        assert_eq!(ReachabilityProbe::decode(&other), None, "another version");
        assert_ne!(history("a", Incarnation(1)), history("a", Incarnation(2)));
        assert_ne!(history("a", Incarnation(1)), history("b", Incarnation(1)));
    }
}
