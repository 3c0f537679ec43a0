//! Endpoint health: turns the results of each node's checks into the cluster's verdict.
//!
//! Each node reports its opinions as telemetry. The leader records changed opinions, with the verdict that follows:
//! that of the majority of the nodes that report and have an opinion. On a tie the verdict stays, and so it does while
//! no node reports.
//!
//! A node that has just started has no opinion of an endpoint yet. Its earlier opinion stays on record until it has a
//! new one, and does not count.

use crate::reconcile::{self, Controller, Leadership, NextLook};
use ringmaster_cluster::{
    State,
    command::Command,
    traffic::{self, TrafficCommand},
    upstreams::health::{HealthChange, OpinionOfEndpoint},
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{
    id::NodeId,
    traffic::{
        health::{EndpointOpinion, Verdict},
        upstream::{Endpoint, EndpointState, Upstream},
    },
};
use ringmaster_telemetry::{NodeOpinions, Telemetry};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The opinions in an older report do not count.
const MAX_REPORT_AGE: Duration = Duration::from_millis(1_500);
/// How often the leader looks even if no report comes.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How many endpoints one log entry changes. Further ones follow in the next.
const MAX_CHANGES: usize = 256;

pub async fn run(group: ClusterGroup, telemetry: Arc<Telemetry>) {
    let changes = telemetry.watch();
    reconcile::run(group, changes, EndpointHealth { telemetry }).await;
}

struct EndpointHealth {
    telemetry: Arc<Telemetry>,
}

impl Controller for EndpointHealth {
    async fn reconcile(&mut self, leadership: &Leadership) -> NextLook {
        let state = leadership.state();
        if state.feature_level >= traffic::LEVEL {
            let changes = judge(&state, &self.telemetry.endpoint_opinions());
            if !changes.is_empty() {
                let command = Command::Traffic(Box::new(TrafficCommand::RecordHealth { changes }));
                if let Err(refusal) = leadership.propose(command).await {
                    tracing::debug!(%refusal, "a change of endpoint health was not recorded; the leader tries again");
                }
            }
        }
        NextLook::within(POLL_INTERVAL)
    }
}

/// The opinions that count, by upstream and endpoint.
type Opinions<'a> = BTreeMap<(&'a str, &'a str), Vec<(NodeId, &'a EndpointOpinion)>>;

/// The changes to record, in the order of upstreams and endpoints.
fn judge(state: &State, reported: &[NodeOpinions]) -> Vec<HealthChange> {
    let mut opinions = Opinions::new();
    let counts =
        |report: &&NodeOpinions| report.age <= MAX_REPORT_AGE && state.membership.get(report.node).is_some();
    for report in reported.iter().filter(counts) {
        for opinion in report.endpoints.iter() {
            let key = (opinion.upstream.as_str(), opinion.endpoint.as_str());
            opinions.entry(key).or_default().push((report.node, opinion));
        }
    }
    let endpoints = state
        .upstreams
        .iter()
        .flat_map(|upstream| upstream.config.endpoints.iter().map(move |one| (upstream, one)));
    endpoints
        .filter_map(|(upstream, endpoint)| {
            let opinions = opinions.get(&(upstream.name.as_str(), endpoint.id.as_str()));
            judge_one(upstream, endpoint, opinions.map_or(&[], Vec::as_slice))
        })
        .take(MAX_CHANGES)
        .collect()
}

/// The change of one endpoint's health, if there is one.
fn judge_one(
    upstream: &Upstream,
    endpoint: &Endpoint,
    reported: &[(NodeId, &EndpointOpinion)],
) -> Option<HealthChange> {
    let known = &endpoint.health;
    let is_checked = upstream.config.health_check.is_some() && endpoint.state != EndpointState::Maintenance;
    let (opinions, verdict): (Vec<_>, _) = if is_checked {
        // An opinion of another address says nothing about this one.
        let reported = reported.iter().filter(|(_, opinion)| opinion.addr == endpoint.addr);
        let recorded = |observer: NodeId| known.opinions.iter().find(|opinion| opinion.observer == observer);
        let changed = reported
            .clone()
            .filter(|(observer, opinion)| {
                recorded(*observer).is_none_or(|known| known.verdict != opinion.verdict)
            })
            .map(|(observer, opinion)| OpinionOfEndpoint {
                observer: *observer,
                verdict: opinion.verdict,
                detail: opinion.detail.clone(),
            });
        let verdicts: Vec<_> = reported.clone().map(|(_, opinion)| opinion.verdict).collect();
        (changed.collect(), majority(&verdicts).unwrap_or(known.verdict))
    } else {
        let forgotten = known.opinions.iter().map(|opinion| OpinionOfEndpoint {
            observer: opinion.observer,
            verdict: Verdict::Unknown,
            detail: "it is no longer checked".to_owned(),
        });
        (forgotten.collect(), Verdict::Unknown)
    };
    if opinions.is_empty() && verdict == known.verdict {
        return None;
    }
    Some(HealthChange {
        upstream: upstream.name.clone(),
        endpoint: endpoint.id.clone(),
        addr: endpoint.addr.clone(),
        opinions,
        verdict,
    })
}

/// The verdict of more than half of them.
fn majority(verdicts: &[Verdict]) -> Option<Verdict> {
    [Verdict::Healthy, Verdict::Unhealthy]
        .into_iter()
        .find(|wanted| verdicts.iter().filter(|verdict| *verdict == wanted).count() * 2 > verdicts.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::{
        Timestamp,
        id::Revision,
        traffic::{
            health::HealthCheck,
            upstream::{EndpointSpec, UpstreamSpec},
        },
    };

    const ADDR: &str = "127.0.0.1:9001";

    fn upstream() -> Upstream {
        let spec = EndpointSpec { id: "e1".to_owned(), addr: ADDR.to_owned(), weight: 1 };
        let config = UpstreamSpec {
            health_check: Some(HealthCheck::Heartbeat { ttl_ms: 1_000 }),
            ..UpstreamSpec::default()
        };
        Upstream {
            name: "web".to_owned(),
            config: config.with_endpoints(vec![Endpoint::new(&spec, Timestamp::UNIX_EPOCH)]),
            primary: None,
            version: Revision(1),
            updated_at: Timestamp::UNIX_EPOCH,
            updated_by: String::new(),
        }
    }

    fn opinion(verdict: Verdict, addr: &str) -> EndpointOpinion {
        EndpointOpinion {
            upstream: "web".to_owned(),
            endpoint: "e1".to_owned(),
            addr: addr.to_owned(),
            verdict,
            detail: "answered 200".to_owned(),
        }
    }

    /// Judges and records as the log would; returns the verdict and the number of changed opinions.
    fn judged(upstream: &mut Upstream, reported: &[(u64, Verdict, &str)]) -> (Verdict, usize) {
        let opinions: Vec<_> =
            reported.iter().map(|(node, verdict, addr)| (NodeId(*node), opinion(*verdict, addr))).collect();
        let reported: Vec<_> = opinions.iter().map(|(node, opinion)| (*node, opinion)).collect();
        let change = judge_one(upstream, &upstream.config.endpoints[0], &reported);
        let health = &mut upstream.config.endpoints[0].health;
        let Some(change) = change else { return (health.verdict, 0) };
        for opinion in &change.opinions {
            health.set_opinion(opinion.observer, opinion.verdict, &opinion.detail, Timestamp::UNIX_EPOCH);
        }
        health.verdict = change.verdict;
        (health.verdict, change.opinions.len())
    }

    #[test]
    fn the_majority_of_the_reporting_nodes_decides() {
        use Verdict::{Healthy, Unhealthy, Unknown};
        let mut web = upstream();
        assert_eq!(judged(&mut web, &[]), (Unknown, 0));
        assert_eq!(judged(&mut web, &[(1, Healthy, ADDR)]), (Healthy, 1), "one observer alone decides");
        let all = |one, two, three| [(1, one, ADDR), (2, two, ADDR), (3, three, ADDR)];
        assert_eq!(judged(&mut web, &all(Healthy, Healthy, Unhealthy)), (Healthy, 2));
        assert_eq!(judged(&mut web, &all(Healthy, Healthy, Unhealthy)), (Healthy, 0), "nothing is new");
        assert_eq!(judged(&mut web, &all(Healthy, Unhealthy, Unhealthy)), (Unhealthy, 1));
        // Node 3 falls silent: the other two disagree, and the verdict stays.
        assert_eq!(judged(&mut web, &all(Healthy, Unhealthy, Unhealthy)[..2]), (Unhealthy, 0));
        assert_eq!(judged(&mut web, &[]), (Unhealthy, 0), "without a report nothing changes");
    }

    #[test]
    fn an_opinion_of_another_address_does_not_count() {
        let mut web = upstream();
        assert_eq!(judged(&mut web, &[(1, Verdict::Unhealthy, "127.0.0.1:1")]), (Verdict::Unknown, 0));
    }

    #[test]
    fn opinions_of_an_endpoint_that_is_not_checked_are_forgotten() {
        let mut web = upstream();
        judged(&mut web, &[(1, Verdict::Unhealthy, ADDR)]);
        web.config.endpoints[0].state = EndpointState::Maintenance;
        assert_eq!(judged(&mut web, &[(1, Verdict::Unhealthy, ADDR)]), (Verdict::Unknown, 1));
        assert_eq!(web.config.endpoints[0].health.opinions, []);
        assert_eq!(judged(&mut web, &[(1, Verdict::Unhealthy, ADDR)]), (Verdict::Unknown, 0));
    }
}
