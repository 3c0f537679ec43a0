//! Plans and operations in words: titles, the name of the button, the outcome.

use crate::{
    format::{self, capitalised},
    tone::Tone,
};
use ringmaster_common::{
    Timestamp,
    action::Action,
    id::{NodeId, Revision},
    operation::{Operation, OperationStatus, Step, StepStatus},
    plan::{Fact, Impact, Plan, PlannedStep},
    traffic::upstream::EndpointState,
    view::ClusterView,
};

/// The title of the drawer.
pub fn title(action: &Action) -> String {
    match action {
        Action::TransferLeadership { to, .. } => format!("Transfer leadership to node {to}"),
        Action::AddNode { node } => format!("Add node {}", node.id),
        Action::ChangeVoters { voters } => {
            let ids: Vec<NodeId> = voters.iter().copied().collect();
            match ids.as_slice() {
                [one] => format!("Make node {one} the only voter"),
                many => format!("Make nodes {} the voters", format::listed(many)),
            }
        }
        Action::RemoveNode { node } => format!("Remove node {node}"),
        Action::DrainNode { node } => format!("Drain node {node}"),
        Action::ActivateNode { node } => format!("Activate node {node}"),
        Action::ReleaseLock { name, .. } => format!("Force-release {name}"),
        Action::SetEndpointState { endpoint, state, .. } => match state {
            EndpointState::Ready => format!("Make {endpoint} ready"),
            EndpointState::Drain => format!("Drain {endpoint}"),
            EndpointState::Maintenance => format!("Put {endpoint} into maintenance"),
        },
        Action::FailOverUpstream { upstream, .. } => format!("Fail over {upstream}"),
        Action::Undo { operation } => format!("Undo operation {operation}"),
    }
}

/// From where to where, if leadership moves.
pub fn direction(plan: &Plan) -> Option<(u64, u64)> {
    let (before, after) = (plan.impact.leader_before?, plan.impact.leader_after?);
    (before != after).then_some((before.0, after.0))
}

/// The label of the button that applies the plan.
pub fn verb(plan: &Plan) -> String {
    match (&plan.action, direction(plan)) {
        (Action::Undo { .. }, Some((_, leader))) => format!("Transfer leadership back to node {leader}"),
        (action, _) => title(action),
    }
}

/// Whether the plan takes something away for good: a node, or a lock from its holder.
pub fn is_final(plan: &Plan) -> bool {
    !plan.undoable && matches!(plan.action, Action::RemoveNode { .. } | Action::ReleaseLock { .. })
}

/// What has to be typed before the plan is applied: the name of a node whose removal costs redundancy for good.
pub fn name_to_type<'a>(plan: &Plan, name_of: impl Fn(NodeId) -> Option<&'a str>) -> Option<&'a str> {
    let Impact { failures_tolerated_before, failures_tolerated_after, .. } = plan.impact;
    match plan.action {
        Action::RemoveNode { node } if failures_tolerated_after < failures_tolerated_before => name_of(node),
        _ => None,
    }
}

/// What has changed since the plan was computed, of the facts that it has read: it would be refused. The server
/// decides; the page says it before the click, as far as it knows.
pub fn out_of_date(plan: &Plan, view: &ClusterView) -> Option<String> {
    let changed = |fact: &Fact| -> Option<(String, Revision)> {
        let name = fact.fact.as_str();
        if name == "leadership" {
            let elected = view.elected.as_ref()?;
            return Some((format!("node {} was elected", elected.leader), elected.revision));
        }
        if let Some(id) = name.strip_prefix("node/") {
            let node = view.nodes.get(&id.parse().ok()?)?;
            return Some((format!("node {} is {}", node.id, node.status.as_str()), node.status_revision));
        }
        let upstream = view.upstreams.get(&name.strip_prefix("upstream/")?.to_owned())?;
        Some((format!("upstream {} was configured", upstream.name), upstream.version))
    };
    let newer = plan.footprint.iter().filter_map(changed).find(|(_, at)| *at > plan.revision);
    newer.map(|(what, at)| format!("Plan is out of date: {what} at revision {}.", format::grouped(at.0)))
}

/// Whether the operation can still be aborted with nothing changed. The server decides; the page only hides a
/// button that would be refused.
pub fn is_abortable(operation: &Operation) -> bool {
    let running = operation.steps.iter().position(|step| step.status == StepStatus::Running);
    operation.status == OperationStatus::Running
        && running.is_some_and(|position| match operation.action {
            Action::AddNode { .. } => position == 0,
            _ => matches!(operation.steps[position].name.as_str(), "preflight" | "catch_up"),
        })
}

/// Whether it can be undone by a new plan.
pub fn is_undoable(operation: &Operation) -> bool {
    operation.undoable && operation.status == OperationStatus::Succeeded && operation.undone_by.is_none()
}

pub fn status_tone(status: OperationStatus) -> Tone {
    match status {
        OperationStatus::Succeeded => Tone::Good,
        OperationStatus::Failed => Tone::Bad,
        OperationStatus::Aborted | OperationStatus::Reverted => Tone::Warning,
        OperationStatus::Running | OperationStatus::AwaitingKeep => Tone::Note,
    }
}

pub fn status_word(status: OperationStatus) -> &'static str {
    match status {
        OperationStatus::AwaitingKeep => "to be confirmed",
        other => other.as_str(),
    }
}

/// The outcome or the current state, as a sentence.
pub fn outcome(operation: &Operation, now: Timestamp) -> String {
    let took = took_ms(operation).map(format::duration);
    let transfer = operation.steps.iter().rev().find(|step| step.moved_leadership()).and_then(Step::took_ms);
    let why = operation.error.as_ref().map(|error| capitalised(error.detail.trim_end_matches('.')));
    match operation.status {
        OperationStatus::Running if operation.error.is_some() => {
            format!("{}; it is being reverted.", why.unwrap_or_default())
        }
        OperationStatus::Running => {
            "Running. It continues even if its node fails or this page is closed.".to_owned()
        }
        OperationStatus::AwaitingKeep => {
            let left = operation.keep_until.map_or(0, |until| format::seconds_left(until, now));
            format!("Done. Confirm within {left} s or it is reverted.")
        }
        OperationStatus::Succeeded => match (took, transfer) {
            (Some(took), Some(pause)) => {
                format!("Done in {took}; leadership moved in {}.", format::duration(pause))
            }
            (Some(took), None) => format!("Done in {took}."),
            _ => "Done.".to_owned(),
        },
        OperationStatus::Failed => {
            format!("It failed. {}.", why.unwrap_or_else(|| "No reason was given".to_owned()))
        }
        OperationStatus::Aborted => {
            format!("{}. Nothing was changed.", why.unwrap_or_else(|| "It was aborted".to_owned()))
        }
        OperationStatus::Reverted => {
            format!(
                "Reverted. {}.",
                why.unwrap_or_else(|| "The state is the one before the operation".to_owned())
            )
        }
    }
}

pub fn took_ms(operation: &Operation) -> Option<u64> {
    operation.ended_at.map(|ended| format::age_ms(operation.started_at, ended))
}

/// A step as the list shows it: planned, under way, or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepLine {
    pub name: String,
    pub title: String,
    pub status: StepStatus,
    /// The bound, or the time it took.
    pub time: String,
    pub detail: Option<String>,
}

impl From<&PlannedStep> for StepLine {
    fn from(step: &PlannedStep) -> Self {
        StepLine {
            name: step.name.clone(),
            title: step.title.clone(),
            status: StepStatus::Pending,
            time: format::bound(step.bound_ms),
            detail: None,
        }
    }
}

impl From<&Step> for StepLine {
    fn from(step: &Step) -> Self {
        let time = match (step.status, step.took_ms()) {
            (StepStatus::Skipped, _) => "skipped".to_owned(),
            (_, Some(took)) => format::duration(took),
            _ => format::bound(step.bound_ms),
        };
        StepLine {
            name: step.name.clone(),
            title: step.title.clone(),
            status: step.status,
            time,
            detail: step.detail.clone(),
        }
    }
}

/// The command that does the same in a terminal.
pub fn cli(plan: &Plan, keep_within_ms: Option<u64>) -> String {
    let keep = keep_within_ms.map_or_else(String::new, |ms| format!(" --keep-within {}s", ms / 1_000));
    format!("ringmaster apply {}{keep}", plan.action.cli_arguments())
}

/// The request that this page would send.
pub fn curl(plan: &Plan, base: &str, keep_within_ms: Option<u64>) -> String {
    let body = keep_within_ms.map_or_else(|| "{}".to_owned(), |ms| format!("{{\"keep_within_ms\":{ms}}}"));
    format!(
        "curl -X POST {base}/v1/plans/{}/apply \\\n  -H 'content-type: application/json' \\\n  -d '{body}'",
        plan.id
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::{
        error::{Code, Refusal},
        id::{GroupId, OperationId, PlanId},
        operation::won_election,
        view::Election,
    };

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn operation(status: OperationStatus, running: Option<&str>) -> Operation {
        let step = |name: &str| Step {
            name: name.to_owned(),
            title: name.to_owned(),
            bound_ms: 1_000,
            status: if running == Some(name) { StepStatus::Running } else { StepStatus::Succeeded },
            started_at: Some(at(100)),
            ended_at: (running != Some(name)).then(|| at(141)),
            detail: (name == "transfer_leadership").then(|| won_election(NodeId(3), 7)),
        };
        Operation {
            id: OperationId(3),
            plan: PlanId(8),
            action: Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(3) },
            scope: ringmaster_common::plan::Scope::Cluster,
            summary: String::new(),
            status,
            steps: ["preflight", "catch_up", "transfer_leadership", "verify"].map(step).to_vec(),
            error: None,
            started_by: "operator".to_owned(),
            started_at: at(0),
            ended_at: status.is_final().then(|| at(212)),
            keep_within_ms: None,
            keep_until: None,
            undoable: true,
            undo_of: None,
            undone_by: None,
            revision: Revision(1),
        }
    }

    fn plan(action: Action) -> Plan {
        Plan {
            id: PlanId(814),
            revision: Revision(1),
            action,
            scope: ringmaster_common::plan::Scope::Cluster,
            summary: String::new(),
            footprint: Vec::new(),
            observations: Vec::new(),
            steps: Vec::new(),
            impact: Impact {
                leader_before: Some(NodeId(3)),
                leader_after: Some(NodeId(2)),
                ..Impact::default()
            },
            warnings: Vec::new(),
            blockers: Vec::new(),
            undoable: true,
            created_at: at(0),
            created_by: String::new(),
            expires_at: at(0),
            operation: None,
        }
    }

    #[test]
    fn a_button_names_its_effect() {
        let transfer = plan(Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(2) });
        assert_eq!(
            (verb(&transfer), direction(&transfer)),
            ("Transfer leadership to node 2".to_owned(), Some((3, 2)))
        );
        assert_eq!(
            verb(&plan(Action::Undo { operation: OperationId(3) })),
            "Transfer leadership back to node 2"
        );
    }

    #[test]
    fn what_costs_redundancy_for_good_needs_the_name() {
        let name_of = |_: NodeId| Some("eager-stoat");
        let mut removal = plan(Action::RemoveNode { node: NodeId(3) });
        removal.impact.failures_tolerated_before = 1;
        assert_eq!(name_to_type(&removal, name_of), Some("eager-stoat"));
        removal.undoable = false;
        assert!(is_final(&removal));
        removal.impact.failures_tolerated_after = 1;
        assert_eq!(name_to_type(&removal, name_of), None, "nothing is lost with a learner");
        assert_eq!(name_to_type(&plan(Action::DrainNode { node: NodeId(3) }), name_of), None);
    }

    #[test]
    fn a_plan_that_would_be_refused_says_so_before_the_click() {
        let mut open = plan(Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(2) });
        open.revision = Revision(3_400);
        open.footprint = vec![Fact { fact: "leadership".to_owned(), version: Revision(12) }];
        let elected = |revision| ClusterView {
            elected: Some(Election {
                term: 8,
                leader: NodeId(2),
                at: Timestamp::UNIX_EPOCH,
                revision: Revision(revision),
            }),
            ..ClusterView::default()
        };
        assert_eq!(out_of_date(&open, &elected(12)), None);
        assert_eq!(
            out_of_date(&open, &elected(3_402)).as_deref(),
            Some("Plan is out of date: node 2 was elected at revision 3,402.")
        );
        open.footprint[0].fact = "membership".to_owned();
        assert_eq!(out_of_date(&open, &elected(3_402)), None, "it has not read who leads");
    }

    #[test]
    fn the_same_can_be_done_in_a_terminal() {
        let transfer = plan(Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(2) });
        assert_eq!(
            cli(&transfer, Some(60_000)),
            "ringmaster apply transfer_leadership --group 0 --to 2 --keep-within 60s"
        );
        assert!(curl(&transfer, "http://h:7701", Some(60_000)).contains("/v1/plans/814/apply"));
        assert!(curl(&transfer, "http://h:7701", None).ends_with("-d '{}'"));
    }

    #[test]
    fn after_the_transfer_it_cannot_be_aborted() {
        for (step, abortable) in
            [("preflight", true), ("catch_up", true), ("transfer_leadership", false), ("verify", false)]
        {
            assert_eq!(is_abortable(&operation(OperationStatus::Running, Some(step))), abortable, "{step}");
        }
        assert!(!is_abortable(&operation(OperationStatus::AwaitingKeep, None)));
    }

    #[test]
    fn outcomes_are_sentences() {
        let done = operation(OperationStatus::Succeeded, None);
        assert_eq!(outcome(&done, at(0)), "Done in 212 ms; leadership moved in 41 ms.");
        assert!(is_undoable(&done));
        let mut follower_drained = done.clone();
        follower_drained.steps[2].detail = Some("node 3 leads and continues to lead".to_owned());
        assert_eq!(outcome(&follower_drained, at(0)), "Done in 212 ms.", "leadership did not move");
        let mut failed = operation(OperationStatus::Failed, None);
        failed.error =
            Some(Refusal::new(Code::StepTimeout, "the step transfer_leadership did not end within 1000 ms"));
        assert_eq!(
            outcome(&failed, at(0)),
            "It failed. The step transfer_leadership did not end within 1000 ms."
        );
        assert!(!is_undoable(&failed));
        let mut waiting = operation(OperationStatus::AwaitingKeep, None);
        waiting.keep_until = Some(at(41_500));
        assert_eq!(outcome(&waiting, at(500)), "Done. Confirm within 41 s or it is reverted.");
    }

    #[test]
    fn a_step_shows_what_it_took_or_may_take() {
        let operation = operation(OperationStatus::Running, Some("verify"));
        let times: Vec<String> = operation.steps.iter().map(|step| StepLine::from(step).time).collect();
        assert_eq!(times, ["41 ms", "41 ms", "41 ms", "≤ 1 s"]);
    }
}
