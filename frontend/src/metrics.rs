//! Telemetry of the whole cluster: the metrics of the overview with their last minute.
//!
//! A report counts while it is fresh. An old one is not shown as if it were now.

use crate::leadership::leader;
use ringmaster_common::{
    id::NodeId,
    telemetry::{self, AgedReport, FRESH_MS, Sample},
    view::ClusterView,
};
use std::collections::VecDeque;

/// How many samples the sparklines hold: one minute.
pub const HISTORY: usize = 120;
/// How many samples back a rate is measured from: four seconds.
const RATE_SAMPLES: usize = 8;
/// No rate is made of less than this.
const RATE_AT_LEAST_MS: i64 = 900;

/// The report of `node`, if it is fresh.
pub fn fresh(sample: &Sample, node: NodeId) -> Option<&AgedReport> {
    telemetry::fresh(&sample.nodes, node)
}

/// How many entries `node` lacks, by the leader's count.
pub fn lag(view: &ClusterView, sample: &Sample, node: NodeId) -> Option<u64> {
    leader(view, sample)?.report.replication.iter().find(|entry| entry.node == node).map(|entry| entry.lag)
}

/// The round-trip time from the node that sends the sample.
pub fn rtt_us(sample: &Sample, node: NodeId) -> Option<u64> {
    let links = &fresh(sample, sample.from)?.report.links;
    links.iter().find(|link| link.peer == node)?.rtt_us
}

/// One sample's metrics of the whole cluster; none where nothing was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterMetrics {
    pub writes_per_s: Option<f64>,
    pub commit_p50_us: Option<u64>,
    pub commit_p99_us: Option<u64>,
    /// Of the follower that is furthest behind.
    pub lag: Option<u64>,
    /// Of the leader.
    pub fsyncs_per_s: Option<f64>,
    pub nodes: Vec<NodeMetrics>,
}

/// One node's metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeMetrics {
    pub node: NodeId,
    pub lag: Option<u64>,
    pub fsyncs_per_s: Option<f64>,
    /// The counter that the rate is made of, and when the node read it.
    fsyncs: u64,
    at_ms: i64,
}

impl ClusterMetrics {
    pub fn of(view: &ClusterView, sample: &Sample) -> Self {
        let node = |aged: &AgedReport| NodeMetrics {
            node: aged.report.node,
            lag: lag(view, sample, aged.report.node),
            fsyncs_per_s: None,
            fsyncs: aged.report.fsyncs,
            at_ms: sample.at.as_millisecond() - i64::try_from(aged.age_ms).unwrap_or(i64::MAX),
        };
        let nodes = sample.nodes.iter().filter(|aged| aged.age_ms <= FRESH_MS).map(node).collect();
        let Some(leader) = leader(view, sample) else {
            return ClusterMetrics { nodes, ..ClusterMetrics::default() };
        };
        let report = &leader.report;
        ClusterMetrics {
            writes_per_s: Some(report.proposals_per_s),
            commit_p50_us: report.commit_p50_us,
            commit_p99_us: report.commit_p99_us,
            lag: report.replication.iter().map(|entry| entry.lag).max(),
            fsyncs_per_s: None,
            nodes,
        }
    }

    pub fn node(&self, id: NodeId) -> Option<&NodeMetrics> {
        self.nodes.iter().find(|metrics| metrics.node == id)
    }
}

/// The metrics of the last minute, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History(VecDeque<ClusterMetrics>);

impl History {
    /// Takes a sample in. `leader` is the one whose rates stand for the cluster.
    pub fn push(&mut self, mut metrics: ClusterMetrics, leader: Option<NodeId>) {
        for node in &mut metrics.nodes {
            node.fsyncs_per_s = self.fsyncs_per_s(node);
        }
        metrics.fsyncs_per_s = leader.and_then(|leader| metrics.node(leader)?.fsyncs_per_s);
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(metrics);
    }

    /// From a counter to a rate. A counter that went back belongs to a process that was started anew.
    fn fsyncs_per_s(&self, now: &NodeMetrics) -> Option<f64> {
        let mut earlier = self.0.iter().rev().take(RATE_SAMPLES).filter_map(|metrics| metrics.node(now.node));
        let then = earlier.next_back()?;
        let (count, ms) = (now.fsyncs.checked_sub(then.fsyncs)?, now.at_ms - then.at_ms);
        (ms >= RATE_AT_LEAST_MS).then(|| count as f64 * 1_000.0 / ms as f64)
    }

    pub fn latest(&self) -> Option<&ClusterMetrics> {
        self.0.back()
    }

    /// One metric over time.
    pub fn of(&self, metric: impl Fn(&ClusterMetrics) -> Option<f64>) -> Vec<Option<f64>> {
        self.0.iter().map(metric).collect()
    }
}

/// The line of a sparkline `width` × `height`, as SVG path data: newest at the right, zero at the
/// bottom, and a gap where nothing was measured. Its top is the largest value, or `least_top`, so that
/// what is next to nothing looks like it.
pub fn spark_path(values: &[Option<f64>], least_top: f64, width: f64, height: f64) -> String {
    let top = values.iter().flatten().copied().fold(least_top, f64::max);
    let step = width / (HISTORY - 1) as f64;
    let start = width - step * values.len().saturating_sub(1) as f64;
    let mut path = String::new();
    let mut pen_down = false;
    for (position, value) in values.iter().enumerate() {
        let Some(value) = value else {
            pen_down = false;
            continue;
        };
        let x = start + step * position as f64;
        let share = if top > 0.0 { value / top } else { 0.0 };
        let y = (height - 1.5) - share * (height - 3.0);
        path.push(if pen_down { 'L' } else { 'M' });
        path.push_str(&format!("{x:.1} {y:.1}"));
        pen_down = true;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leadership::tests::{follower, report, sample, view};
    use ringmaster_common::{
        Timestamp,
        cluster::{Liveness, Role},
        telemetry::{Link, Replication},
    };

    #[test]
    fn an_old_report_is_not_now() {
        let mut old = report(2, Role::Leader, 7);
        old.age_ms = FRESH_MS + 1;
        let sample = sample(vec![old]);
        assert_eq!(fresh(&sample, NodeId(2)), None);
        assert_eq!(ClusterMetrics::of(&view(3), &sample), ClusterMetrics::default());
    }

    #[test]
    fn a_counter_becomes_a_rate() {
        let at = |ms: i64, fsyncs: u64| {
            let mut aged = report(1, Role::Leader, 7);
            (aged.age_ms, aged.report.fsyncs) = (0, fsyncs);
            ClusterMetrics::of(
                &view(1),
                &Sample { at: Timestamp::from_millisecond(ms).unwrap(), ..sample(vec![aged]) },
            )
        };
        let mut history = History::default();
        for (ms, fsyncs) in [(0, 100), (500, 105), (1_000, 110), (1_500, 3)] {
            history.push(at(ms, fsyncs), Some(NodeId(1)));
        }
        let rates = history.of(|metrics| metrics.fsyncs_per_s);
        assert_eq!(rates, [None, None, Some(10.0), None], "too early, too early, measured, started anew");
    }

    #[test]
    fn the_figures_are_those_of_the_leader() {
        let mut lead = report(1, Role::Leader, 7);
        lead.report.proposals_per_s = 812.0;
        lead.report.links = vec![Link {
            peer: NodeId(3),
            sees: Liveness::Alive,
            rtt_us: Some(400),
            silent_ms: Some(20),
            ..Link::default()
        }];
        lead.report.replication = [(2, 0), (3, 9)]
            .map(|(node, lag)| Replication { node: NodeId(node), matched_index: 0, lag })
            .to_vec();
        let sample = sample(vec![lead, follower(2, 1, 7)]);
        let metrics = ClusterMetrics::of(&view(3), &sample);
        assert_eq!((metrics.writes_per_s, metrics.lag), (Some(812.0), Some(9)));
        assert_eq!((lag(&view(3), &sample, NodeId(3)), rtt_us(&sample, NodeId(3))), (Some(9), Some(400)));
        assert_eq!((lag(&view(3), &sample, NodeId(1)), rtt_us(&sample, NodeId(1))), (None, None));
    }

    #[test]
    fn history_is_bounded() {
        let mut history = History::default();
        for _ in 0..HISTORY + 5 {
            history.push(ClusterMetrics::default(), None);
        }
        assert_eq!(history.of(|_| Some(0.0)).len(), HISTORY);
    }

    #[test]
    fn a_gap_lifts_the_pen() {
        let path = spark_path(&[Some(0.0), Some(2.0), None, Some(1.0)], 0.0, 119.0, 26.0);
        assert_eq!(path, "M116.0 24.5L117.0 1.5M119.0 13.0");
        assert_eq!(spark_path(&[], 0.0, 119.0, 26.0), "");
        assert_eq!(spark_path(&[Some(1.0)], 10.0, 119.0, 23.0), "M119.0 19.5");
    }
}
