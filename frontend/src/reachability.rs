//! Reachability: each member's opinion of each other.
//!
//! Opinions are replicated and change rarely; links are measured and carry a round-trip time. A fresh measurement of
//! the observer comes before its replicated opinion.

use crate::metrics;
use ringmaster_common::{
    cluster::Liveness,
    id::NodeId,
    telemetry::{Link, Sample},
    view::ClusterView,
};

/// The opinion of one member about another.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// The diagonal.
    Itself,
    /// Measured, and fresh.
    Measured(Link),
    /// The last opinion that the log holds; the observer itself is silent.
    Remembered(Liveness),
    /// No opinion.
    Nothing,
}

impl Cell {
    pub fn sees(&self) -> Option<Liveness> {
        match self {
            Cell::Measured(link) => Some(link.sees),
            Cell::Remembered(sees) => Some(*sees),
            Cell::Itself | Cell::Nothing => None,
        }
    }

    /// The fault of the link.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Cell::Measured(link) => link.trouble.as_deref(),
            _ => None,
        }
    }
}

/// The opinion of `observer` about `subject`.
pub fn cell(view: &ClusterView, sample: Option<&Sample>, observer: NodeId, subject: NodeId) -> Cell {
    if observer == subject {
        return Cell::Itself;
    }
    let link = sample
        .and_then(|sample| metrics::fresh(sample, observer))
        .and_then(|aged| aged.report.links.iter().find(|link| link.peer == subject));
    if let Some(link) = link {
        return Cell::Measured(link.clone());
    }
    let opinion = view
        .nodes
        .get(&subject)
        .and_then(|node| node.opinions.iter().find(|opinion| opinion.observer == observer));
    opinion.map_or(Cell::Nothing, |opinion| Cell::Remembered(opinion.sees))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leadership::tests::{report, sample};
    use ringmaster_common::cluster::{Node, Role};

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
        ClusterView { nodes: nodes.into_iter().collect(), ..ClusterView::default() }
    }

    fn sees(observer: u64, subject: u64, sees: Liveness) -> ringmaster_common::telemetry::AgedReport {
        let mut aged = report(observer, Role::Follower, 1);
        aged.report.links = vec![Link { peer: NodeId(subject), sees, ..Link::default() }];
        aged
    }

    #[test]
    fn a_measurement_is_newer_than_an_opinion() {
        let measured = sample(vec![sees(1, 2, Liveness::Alive)]);
        let cell_of = |observer, subject| cell(&view(), Some(&measured), NodeId(observer), NodeId(subject));
        assert_eq!(cell_of(1, 2), Cell::Measured(Link { peer: NodeId(2), ..Link::default() }));
        assert_eq!(cell_of(2, 1), Cell::Remembered(Liveness::Suspect));
        assert_eq!(cell_of(1, 1), Cell::Itself);
        assert_eq!(cell_of(1, 7), Cell::Nothing);
    }
}
