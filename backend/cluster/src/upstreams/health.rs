//! Health, as the leader judged it from what the nodes report.
//!
//! Opinions and the verdict are recorded where they changed, and kept with a short history. A change that was judged
//! of another address than the endpoint has now is let go: it says nothing of this one.

use super::{UpstreamRecord, Upstreams};
use crate::{Context, membership::Membership};
use ringmaster_common::{
    event::Event,
    id::NodeId,
    traffic::{
        health::{EndpointHealth, HealthCheck, HealthOpinion, HealthRecord, Verdict},
        upstream::EndpointState,
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// What changed about one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthChange {
    pub upstream: String,
    pub endpoint: String,
    pub addr: String,
    /// Of each observer that changed its mind; unknown where it has no opinion any more.
    pub opinions: Vec<OpinionOfEndpoint>,
    /// The verdict that follows.
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpinionOfEndpoint {
    pub observer: NodeId,
    pub verdict: Verdict,
    pub detail: String,
}

impl Upstreams {
    pub(crate) fn record_health(
        &mut self,
        context: &mut Context,
        changes: &[HealthChange],
        membership: &Membership,
    ) {
        for change in changes {
            if let Some(record) = self.by_name.get_mut(change.upstream.as_str()) {
                Arc::make_mut(record).record_health(context, change, membership);
            }
        }
    }

    /// Of who left the cluster, nothing is kept but history.
    pub(crate) fn forget_observer(&mut self, gone: NodeId) {
        let heard_of =
            |health: &EndpointHealth| health.opinions.iter().any(|opinion| opinion.observer == gone);
        let concerned: Vec<_> = self
            .by_name
            .iter()
            .filter(|(_, record)| {
                record.upstream.config.endpoints.iter().any(|endpoint| heard_of(&endpoint.health))
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in concerned {
            if let Some(record) = self.by_name.get_mut(&name) {
                let endpoints = &mut Arc::make_mut(record).upstream.config.endpoints;
                endpoints.iter_mut().for_each(|endpoint| endpoint.health.forget_observer(gone));
            }
        }
    }
}

impl UpstreamRecord {
    /// The endpoints, with their addresses, that receive requests without a verdict: no active check judges them.
    pub(super) fn unjudged_serving(&self) -> BTreeSet<(String, String)> {
        let endpoints = self.upstream.config.endpoints.iter().filter(|endpoint| {
            endpoint.state != EndpointState::Maintenance
                && endpoint.health.verdict == Verdict::Unknown
                && !self.upstream.awaits_first_check(endpoint)
        });
        endpoints.map(|endpoint| (endpoint.id.clone(), endpoint.addr.clone())).collect()
    }

    /// Endpoints that served before an active check was configured keep serving until it has judged them.
    pub(super) fn assume_healthy(&mut self, served: &BTreeSet<(String, String)>) {
        let is_checked = self.upstream.config.health_check.as_ref().is_some_and(HealthCheck::is_active);
        for endpoint in &mut self.upstream.config.endpoints {
            let served = served.contains(&(endpoint.id.clone(), endpoint.addr.clone()));
            endpoint.health.assumed_healthy =
                is_checked && served && endpoint.health.verdict == Verdict::Unknown;
        }
    }

    fn record_health(&mut self, context: &mut Context, change: &HealthChange, membership: &Membership) {
        let Some(endpoint) =
            self.upstream.endpoint_mut(&change.endpoint).filter(|endpoint| endpoint.addr == change.addr)
        else {
            return;
        };
        let mut news = Vec::new();
        let mut health = endpoint.health.clone();
        let members = |opinion: &&OpinionOfEndpoint| membership.get(opinion.observer).is_some();
        for OpinionOfEndpoint { observer, verdict, detail } in change.opinions.iter().filter(members) {
            if health.set_opinion(*observer, *verdict, detail, context.wall) {
                news.push(HealthRecord {
                    at: context.wall,
                    observer: Some(*observer),
                    verdict: *verdict,
                    detail: detail.clone(),
                });
            }
        }
        if health.set_verdict(change.verdict, context.wall) {
            news.push(HealthRecord {
                at: context.wall,
                observer: None,
                verdict: change.verdict,
                detail: why(&health.opinions, change.verdict),
            });
        }
        if news.is_empty() {
            return;
        }
        let history = self.health_history.entry(change.endpoint.clone()).or_default();
        history.extend(news);
        let excess = history.len().saturating_sub(context.limits.health_history);
        history.drain(..excess);
        endpoint.health = health.clone();
        self.touched = context.revision;
        let before = self.upstream.primary.clone();
        self.update_countdown(context);
        context.emit(Event::EndpointHealthChanged {
            upstream: change.upstream.clone(),
            endpoint: change.endpoint.clone(),
            health,
        });
        self.primary_changes(context, before.as_ref(), "health never changes who it is");
    }
}

/// What the first of those who say so found.
fn why(opinions: &[HealthOpinion], verdict: Verdict) -> String {
    let found = opinions.iter().find(|opinion| opinion.verdict == verdict);
    found.map_or_else(|| "no node has an opinion".to_owned(), |opinion| opinion.detail.clone())
}
