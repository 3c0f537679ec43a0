//! What a stopped node has on disk, as text and as JSON.

use crate::{
    cli::table::{Cell, Column, Table},
    out::Paint,
};
use ringmaster_cluster::State;
use ringmaster_common::{
    cluster::NodeStatus,
    id::{Incarnation, NodeId},
};
use ringmaster_replication::recovery::Remains;
use ringmaster_storage::data_dir::Identity;
use serde::Serialize;
use std::{cmp::Reverse, collections::BTreeSet, path::Path};

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub data_dir: String,
    pub cluster_id: String,
    pub cluster_name: String,
    pub incarnation: Incarnation,
    pub node: NodeId,
    pub node_name: String,
    pub last_term: u64,
    pub last_index: u64,
    /// The last entry that the node knew to be committed.
    pub committed_index: u64,
    pub snapshot_index: u64,
    pub voted_term: Option<u64>,
    pub voted_for: Option<NodeId>,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    pub members: Vec<Member>,
    /// Of the state after the last entry: nodes with the same last entry have the same.
    pub digest: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Member {
    pub id: NodeId,
    pub name: String,
    pub status: NodeStatus,
    pub api_addr: String,
    pub peer_addr: String,
}

impl Report {
    pub fn new(data_dir: &Path, identity: &Identity, remains: &Remains<State>) -> Report {
        let state = &remains.state;
        let member = |node: &ringmaster_common::cluster::Node| Member {
            id: node.id,
            name: node.name.clone(),
            status: node.status,
            api_addr: node.api_addr.clone(),
            peer_addr: node.peer_addr.clone(),
        };
        Report {
            data_dir: data_dir.display().to_string(),
            cluster_id: identity.cluster_id.clone(),
            cluster_name: state.name.clone(),
            incarnation: identity.incarnation,
            node: identity.node_id,
            node_name: identity.name.clone(),
            last_term: remains.last.term,
            last_index: remains.last.index,
            committed_index: remains.committed,
            snapshot_index: remains.snapshot,
            voted_term: remains.voted.map(|(term, _)| term),
            voted_for: remains.voted.map(|(_, node)| node),
            voters: remains.voters.clone(),
            learners: remains.learners.clone(),
            members: state.membership.iter().map(member).collect(),
            digest: state.digest(),
        }
    }

    /// A node with a higher one has more.
    fn rank(&self) -> (Incarnation, u64, u64) {
        (self.incarnation, self.last_term, self.last_index)
    }

    pub fn text(&self) -> String {
        let kept = match self.last_index - self.committed_index {
            0 => String::new(),
            more => format!("; {more} further may be, and nothing of it is dropped"),
        };
        let voted = match (self.voted_for, self.voted_term) {
            (Some(node), Some(term)) => format!("for node {node} in term {term}"),
            _ => "-".to_owned(),
        };
        format!(
            "Node {} ({}) of cluster {} ({}), incarnation {}\n  \
             last entry   {} in term {}\n  \
             committed    {} at least{kept}\n  \
             last vote    {voted}\n  \
             snapshot     {}\n  \
             voters       {}\n  \
             learners     {}\n  \
             members      {}\n  \
             digest       {}\n",
            self.node,
            self.node_name,
            self.cluster_name,
            self.cluster_id,
            self.incarnation,
            self.last_index,
            self.last_term,
            self.committed_index,
            if self.snapshot_index == 0 {
                "-".to_owned()
            } else {
                format!("through entry {}", self.snapshot_index)
            },
            list(&self.voters),
            list(&self.learners),
            self.members
                .iter()
                .map(|member| format!("{} ({}) at {}", member.id, member.name, member.api_addr))
                .collect::<Vec<_>>()
                .join(", "),
            self.digest,
        )
    }
}

fn list(nodes: &BTreeSet<NodeId>) -> String {
    if nodes.is_empty() {
        return "-".to_owned();
    }
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}

/// One report, or a comparison of several.
pub fn show(reports: &[Report], json: bool, paint: Paint) -> String {
    if json {
        let line = |report| serde_json::to_string(report).expect("plain data is JSON") + "\n";
        return reports.iter().map(line).collect();
    }
    let mut text: String = reports.iter().map(|report| report.text() + "\n").collect();
    if reports.len() > 1 {
        text.push_str(&compare(reports, paint));
    }
    text
}

fn compare(reports: &[Report], paint: Paint) -> String {
    let mut ranked: Vec<&Report> = reports.iter().collect();
    ranked.sort_by_key(|report| Reverse(report.rank()));
    let mut table = Table::new(&[
        Column::Left("DATA DIR"),
        Column::Right("NODE"),
        Column::Right("LAST TERM"),
        Column::Right("LAST INDEX"),
        Column::Right("COMMITTED"),
        Column::Left("DIGEST"),
    ]);
    for report in &ranked {
        table.row([
            Cell::from(report.data_dir.clone()),
            Cell::from(report.node.to_string()),
            Cell::from(report.last_term.to_string()),
            Cell::from(report.last_index.to_string()),
            Cell::from(report.committed_index.to_string()),
            Cell::from(report.digest.chars().take(12).collect::<String>()),
        ]);
    }
    let first = ranked[0];
    let advice = if ranked.iter().any(|other| other.cluster_id != first.cluster_id) {
        "These are nodes of different clusters.".to_owned()
    } else if ranked.iter().any(|other| other.incarnation != first.incarnation) {
        format!(
            "The cluster was recovered before: node {} is of incarnation {}, and nodes of an earlier one do not join it.",
            first.node, first.incarnation
        )
    } else if let Some(same) = ranked[1..].iter().find(|other| other.rank() == first.rank()) {
        match same.digest == first.digest {
            true => format!("Nodes {} and {} have the same; recover either.", first.node, same.node),
            false => format!(
                "Nodes {} and {} end with the same entry and have different states: keep copies of both, and report it.",
                first.node, same.node
            ),
        }
    } else {
        format!(
            "Node {} has the most; recover it: ringmaster recover --data-dir {}",
            first.node, first.data_dir
        )
    };
    format!("{}\n{advice}\n", table.render(paint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;

    fn report(node: u64, (term, index): (u64, u64)) -> Report {
        Report {
            data_dir: format!("d{node}"),
            cluster_id: "c".to_owned(),
            cluster_name: "demo".to_owned(),
            incarnation: Incarnation(1),
            node: NodeId(node),
            node_name: "amber-fox".to_owned(),
            last_term: term,
            last_index: index,
            committed_index: index - 2,
            snapshot_index: 0,
            voted_term: Some(term),
            voted_for: Some(NodeId(2)),
            voters: [1, 2, 3].map(NodeId).into(),
            learners: BTreeSet::new(),
            members: Vec::new(),
            digest: format!("{term}-{index}"),
        }
    }

    fn advice(reports: &[Report]) -> String {
        let out = Out::plain(Box::new(std::io::sink()));
        show(reports, false, out.paint()).lines().last().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_node_with_the_most_is_named() {
        let (one, three) = (report(1, (4, 90)), report(3, (5, 80)));
        let wanted = "Node 3 has the most; recover it: ringmaster recover --data-dir d3";
        assert_eq!(advice(&[one.clone(), three.clone()]), wanted, "a later term stands above a higher index");
        let longer = report(3, (4, 91));
        assert_eq!(advice(&[longer, one.clone()]), wanted);
        let same = report(3, (4, 90));
        assert_eq!(advice(&[one.clone(), same.clone()]), "Nodes 1 and 3 have the same; recover either.");
        let differs = Report { digest: "other".to_owned(), ..same };
        assert!(advice(&[one.clone(), differs]).contains("different states"));
        let recovered = Report { incarnation: Incarnation(2), ..report(3, (1, 10)) };
        assert!(advice(&[one.clone(), recovered]).starts_with("The cluster was recovered before: node 3"));
        let foreign = Report { cluster_id: "d".to_owned(), ..three };
        assert_eq!(advice(&[one, foreign]), "These are nodes of different clusters.");
    }

    #[test]
    fn entries_that_may_be_committed_are_named() {
        let text = report(1, (4, 90)).text();
        assert!(text.contains("last entry   90 in term 4"), "{text}");
        assert!(text.contains("88 at least; 2 further may be, and nothing of it is dropped"), "{text}");
        assert!(text.contains("last vote    for node 2 in term 4"), "{text}");
    }
}
