//! Who sees whom: each member's opinion of each other, and links that are cut one way.
//!
//! Opinions are replicated and change rarely; links are measured and carry a round-trip time. Where
//! an observer's fresh measurement exists it is the newer word; else its replicated opinion stands.

use crate::figures;
use ringmaster_common::{
    cluster::{NodeStatus, Sees},
    id::NodeId,
    telemetry::Sample,
    view::ClusterView,
};
use std::fmt;

/// What one member says of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The diagonal.
    Itself,
    /// Measured, and fresh.
    Measured { sees: Sees, rtt_us: Option<u64>, silent_ms: Option<u64> },
    /// The last opinion that the log holds; the observer itself is silent.
    Remembered(Sees),
    /// It has said nothing.
    Nothing,
}

impl Cell {
    pub fn sees(self) -> Option<Sees> {
        match self {
            Cell::Measured { sees, .. } | Cell::Remembered(sees) => Some(sees),
            Cell::Itself | Cell::Nothing => None,
        }
    }
}

/// What `observer` says of `subject`.
pub fn cell(view: &ClusterView, sample: Option<&Sample>, observer: NodeId, subject: NodeId) -> Cell {
    if observer == subject {
        return Cell::Itself;
    }
    let link = sample
        .and_then(|sample| figures::fresh(sample, observer))
        .and_then(|aged| aged.report.links.iter().find(|link| link.peer == subject));
    if let Some(link) = link {
        return Cell::Measured { sees: link.sees, rtt_us: link.rtt_us, silent_ms: link.silent_ms };
    }
    let opinion = view
        .nodes
        .get(&subject)
        .and_then(|node| node.opinions.iter().find(|opinion| opinion.observer == observer));
    opinion.map_or(Cell::Nothing, |opinion| Cell::Remembered(opinion.sees))
}

/// A link that carries one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneWayFault {
    /// Who does not hear the other.
    pub deaf: NodeId,
    /// Who is not heard, and hears.
    pub unheard: NodeId,
}

impl fmt::Display for OneWayFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OneWayFault { deaf, unheard } = self;
        write!(f, "Node {deaf} does not hear node {unheard}, but node {unheard} hears node {deaf}")
    }
}

/// Every pair of living nodes of which one hears the other, and the other does not.
pub fn one_way_faults(view: &ClusterView, sample: &Sample) -> Vec<OneWayFault> {
    let alive: Vec<NodeId> = view
        .nodes
        .values()
        .filter(|node| node.status != NodeStatus::Down && figures::fresh(sample, node.id).is_some())
        .map(|node| node.id)
        .collect();
    let mut faults = Vec::new();
    for &deaf in &alive {
        for &unheard in &alive {
            let silence = cell(view, Some(sample), deaf, unheard).sees();
            let other = cell(view, Some(sample), unheard, deaf).sees();
            // Where the other has said nothing, it has nothing to complain of: opinions are of silence.
            if deaf != unheard
                && matches!(silence, Some(Sees::Dead))
                && !matches!(other, Some(Sees::Dead | Sees::Suspect))
            {
                faults.push(OneWayFault { deaf, unheard });
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::{report, sample};
    use ringmaster_common::{
        cluster::{Node, Role},
        telemetry::Link,
    };

    /// Two nodes, each of which the other once suspected.
    fn view() -> ClusterView {
        let node = |id: u64| {
            serde_json::json!({
                "id": id, "name": "n", "zone": "z", "weight": 1, "api_addr": "", "peer_addr": "", "public_url": "",
                "status": "up", "status_reason": "", "status_since": "2026-01-01T00:00:00Z", "status_revision": 1,
                "voter": true,
                "opinions": [{"observer": 3 - id, "sees": "suspect", "since": "2026-01-01T00:00:00Z"}],
            })
        };
        let nodes = [node(1), node(2)].map(|node| serde_json::from_value::<Node>(node).unwrap());
        ClusterView { nodes: nodes.map(|node| (node.id, node)).into(), ..ClusterView::default() }
    }

    fn sees(observer: u64, subject: u64, sees: Sees) -> ringmaster_common::telemetry::AgedReport {
        let mut aged = report(observer, Role::Follower, 1);
        aged.report.links = vec![Link {
            peer: NodeId(subject),
            sees,
            rtt_us: Some(300),
            silent_ms: Some(40),
            trouble: None,
            feature_level: None,
        }];
        aged
    }

    #[test]
    fn a_measurement_is_newer_than_an_opinion() {
        let measured = sample(vec![sees(1, 2, Sees::Alive)]);
        let cell_of = |observer, subject| cell(&view(), Some(&measured), NodeId(observer), NodeId(subject));
        assert_eq!(
            cell_of(1, 2),
            Cell::Measured { sees: Sees::Alive, rtt_us: Some(300), silent_ms: Some(40) }
        );
        assert_eq!(cell_of(2, 1), Cell::Remembered(Sees::Suspect));
        assert_eq!(cell_of(1, 1), Cell::Itself);
        assert_eq!(cell_of(1, 7), Cell::Nothing);
    }

    #[test]
    fn only_one_way_is_a_one_way_fault() {
        let both = sample(vec![sees(1, 2, Sees::Dead), sees(2, 1, Sees::Dead)]);
        assert_eq!(one_way_faults(&view(), &both), []);
        let one = sample(vec![sees(1, 2, Sees::Dead), sees(2, 1, Sees::Alive)]);
        assert_eq!(one_way_faults(&view(), &one), [OneWayFault { deaf: NodeId(1), unheard: NodeId(2) }]);
    }

    #[test]
    fn a_dead_node_is_no_one_way_fault() {
        let silent = sample(vec![sees(1, 2, Sees::Dead)]);
        assert_eq!(one_way_faults(&view(), &silent), []);
    }
}
