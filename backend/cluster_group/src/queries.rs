//! The leader's answers to queries: plans, and renewals of registrations.

use crate::{
    ClusterGroup, Inner,
    application::{Answer, ClusterApplication, Proposal, Query},
};
use futures::future::BoxFuture;
use ringmaster_cluster::command::{Command, Request};
use ringmaster_common::action::Action;
use ringmaster_planner as planner;
use ringmaster_replication::application::{LeaderAnswer, QueryHandler};
use std::{
    sync::{Arc, Weak},
    time::Instant,
};

/// The group owns its handler, so the handler does not own the group.
pub(crate) struct Queries(pub(crate) Weak<Inner>);

impl QueryHandler<ClusterApplication> for Queries {
    fn answer(&self, query: Query, deadline: Instant) -> BoxFuture<'_, LeaderAnswer<Answer>> {
        Box::pin(async move {
            let Some(group) = self.0.upgrade().map(ClusterGroup) else { return LeaderAnswer::NotLeader };
            match query {
                Query::Plan { request, action } => group.plan_here(request, action, deadline).await,
                Query::Renew { upstream, endpoint } => group.renew_here(&upstream, &endpoint),
            }
        })
    }
}

impl ClusterGroup {
    async fn plan_here(&self, request: Request, action: Action, deadline: Instant) -> LeaderAnswer<Answer> {
        if self.leading().is_none() {
            return LeaderAnswer::NotLeader;
        }
        let state = self.state();
        // A repeat gets the first answer: planned again, it might be refused.
        match state.requests.find(&request) {
            Some(Ok(response)) => return LeaderAnswer::Answer(Answer::Plan(Arc::clone(&response))),
            Some(Err(refusal)) => return LeaderAnswer::Refused(refusal),
            None => {}
        }
        match planner::plan(&state, &self.observations(), action) {
            Ok(draft) => {
                let command = Command::CreatePlan { draft: Box::new(draft) };
                self.0.raft.propose_here(Proposal { request, command }, deadline).await.map(Answer::Plan)
            }
            Err(refusal) => LeaderAnswer::Refused(refusal),
        }
    }
}
