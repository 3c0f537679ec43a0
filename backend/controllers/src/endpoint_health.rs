//! The health of endpoints: from what each node's checks say to what the cluster says.
//!
//! Each node reports what it sees, as telemetry. The leader has it recorded where somebody changed their mind,
//! with the verdict that follows: that of the majority of those nodes that report and have an opinion. Where they
//! are evenly split, the verdict stays as it was, and so it does while nobody reports.
//!
//! A node that has only just started has no opinion of an endpoint yet. What it said before stays on record until
//! it has one, and does not count.

use crate::{PROPOSAL_DEADLINE, request};
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
use ringmaster_net::clock;
use ringmaster_telemetry::{SeenByNode, Telemetry};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// An observer whose report is older than this has no say.
const FRESH: Duration = Duration::from_millis(1_500);
/// How often the leader looks even if no report came in.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How many endpoints one log entry tells of. The rest follows in the next.
const MAX_CHANGES: usize = 256;

pub async fn run(group: ClusterGroup, telemetry: Arc<Telemetry>) {
    let mut reports = telemetry.watch();
    loop {
        let term = group.until_leading().await;
        let state = group.state();
        if state.feature_level >= traffic::LEVEL {
            let changes = judge(&state, &telemetry.seen_of_endpoints());
            if !changes.is_empty() {
                let command = Command::Traffic(Box::new(TrafficCommand::RecordHealth { changes }));
                let deadline = clock::now() + PROPOSAL_DEADLINE;
                if let Err(refusal) = group.propose_in(term, request(group.me()), command, deadline).await {
                    tracing::debug!(%refusal, "a change of endpoints' health was not recorded; the leader looks again");
                }
            }
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, reports.changed()).await {
            return;
        }
    }
}

/// What the nodes that count say of each endpoint.
type Said<'a> = BTreeMap<(&'a str, &'a str), Vec<(NodeId, &'a EndpointOpinion)>>;

fn judge(state: &State, seen: &[SeenByNode]) -> Vec<HealthChange> {
    let mut said = Said::new();
    let fresh = seen.iter().filter(|seen| seen.age <= FRESH && state.membership.get(seen.node).is_some());
    for seen in fresh {
        for opinion in seen.endpoints.iter() {
            let key = (opinion.upstream.as_str(), opinion.endpoint.as_str());
            said.entry(key).or_default().push((seen.node, opinion));
        }
    }
    let endpoints = state
        .upstreams
        .iter()
        .flat_map(|upstream| upstream.config.endpoints.iter().map(move |one| (upstream, one)));
    endpoints
        .filter_map(|(upstream, endpoint)| {
            let said = said.get(&(upstream.name.as_str(), endpoint.id.as_str()));
            judge_one(upstream, endpoint, said.map_or(&[], Vec::as_slice))
        })
        .take(MAX_CHANGES)
        .collect()
}

/// What changed about one endpoint, if anything.
fn judge_one(
    upstream: &Upstream,
    endpoint: &Endpoint,
    said: &[(NodeId, &EndpointOpinion)],
) -> Option<HealthChange> {
    let known = &endpoint.health;
    let is_checked = upstream.config.health_check.is_some() && endpoint.state != EndpointState::Maintenance;
    let (opinions, verdict): (Vec<_>, _) = if is_checked {
        // What was found out of another address says nothing of this one.
        let said = said.iter().filter(|(_, opinion)| opinion.addr == endpoint.addr);
        let held = |observer: NodeId| known.opinions.iter().find(|held| held.observer == observer);
        let changed = said
            .clone()
            .filter(|(observer, said)| held(*observer).is_none_or(|held| held.verdict != said.verdict))
            .map(|(observer, said)| OpinionOfEndpoint {
                observer: *observer,
                verdict: said.verdict,
                detail: said.detail.clone(),
            });
        let verdicts: Vec<_> = said.clone().map(|(_, opinion)| opinion.verdict).collect();
        (changed.collect(), majority(&verdicts).unwrap_or(known.verdict))
    } else {
        let forgotten = known.opinions.iter().map(|held| OpinionOfEndpoint {
            observer: held.observer,
            verdict: Verdict::Unknown,
            detail: "it is not checked any more".to_owned(),
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

/// What more than half of them say.
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
            detail: "so it is".to_owned(),
        }
    }

    /// Judges, records as the log would, and gives the verdict and how many changed their minds.
    fn judged(upstream: &mut Upstream, said: &[(u64, Verdict, &str)]) -> (Verdict, usize) {
        let opinions: Vec<_> =
            said.iter().map(|(node, verdict, addr)| (NodeId(*node), opinion(*verdict, addr))).collect();
        let said: Vec<_> = opinions.iter().map(|(node, opinion)| (*node, opinion)).collect();
        let change = judge_one(upstream, &upstream.config.endpoints[0], &said);
        let health = &mut upstream.config.endpoints[0].health;
        let Some(change) = change else { return (health.verdict, 0) };
        for said in &change.opinions {
            health.set_opinion(said.observer, said.verdict, &said.detail, Timestamp::UNIX_EPOCH);
        }
        health.verdict = change.verdict;
        (health.verdict, change.opinions.len())
    }

    #[test]
    fn the_majority_of_those_that_report_decides() {
        use Verdict::{Healthy, Unhealthy, Unknown};
        let mut web = upstream();
        assert_eq!(judged(&mut web, &[]), (Unknown, 0));
        assert_eq!(judged(&mut web, &[(1, Healthy, ADDR)]), (Healthy, 1), "of one, that one decides");
        let all = |one, two, three| [(1, one, ADDR), (2, two, ADDR), (3, three, ADDR)];
        assert_eq!(judged(&mut web, &all(Healthy, Healthy, Unhealthy)), (Healthy, 2));
        assert_eq!(judged(&mut web, &all(Healthy, Healthy, Unhealthy)), (Healthy, 0), "nothing is new");
        assert_eq!(judged(&mut web, &all(Healthy, Unhealthy, Unhealthy)), (Unhealthy, 1));
        // Node 3 falls silent: one says so, the other not, and the verdict stays.
        assert_eq!(judged(&mut web, &all(Healthy, Unhealthy, Unhealthy)[..2]), (Unhealthy, 0));
        assert_eq!(judged(&mut web, &[]), (Unhealthy, 0), "nobody reports: nothing changes");
    }

    #[test]
    fn what_was_found_of_another_address_does_not_count() {
        let mut web = upstream();
        assert_eq!(judged(&mut web, &[(1, Verdict::Unhealthy, "127.0.0.1:1")]), (Verdict::Unknown, 0));
    }

    #[test]
    fn nobody_knows_of_what_is_not_checked() {
        let mut web = upstream();
        judged(&mut web, &[(1, Verdict::Unhealthy, ADDR)]);
        web.config.endpoints[0].state = EndpointState::Maintenance;
        assert_eq!(judged(&mut web, &[(1, Verdict::Unhealthy, ADDR)]), (Verdict::Unknown, 1));
        assert_eq!(web.config.endpoints[0].health.opinions, []);
        assert_eq!(judged(&mut web, &[(1, Verdict::Unhealthy, ADDR)]), (Verdict::Unknown, 0));
    }
}
