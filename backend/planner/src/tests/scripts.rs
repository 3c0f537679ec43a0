//! Golden scripts: what goes in, and below it what came out.
//!
//! A line of a script is a log entry, and the indented lines below it are its outcome and events:
//!
//! ```text
//! at 1000 by node 1: "tick"             a command, as JSON, at a cluster time in milliseconds
//! at 1000 by ops key=k1: {"put_…": …}   the same from an operator, under a key of their choice
//! at 1000 plan by ops: {"type": …}      the planner's answer to an action, created if there is one
//! members 1 2 | 3                       openraft's membership: voters | learners
//! observe 3 lag=5000 age=10             what planners see of a node from here on
//! joint 1 2 3 | 3 4 5                   a change of voters is under way from here on; without voters: no more
//! ```
//!
//! `UPDATE_GOLDEN=1 cargo nextest run scripts` writes what came out into the files; read the diff.

use crate::plan;
use ringmaster_cluster::{
    Body, Effect, Entry, State,
    command::{Actor, ClusterTime, Command, Outcome, Record, Request, Resource},
    observations::{Observations, PeerObservation},
    version::Formats,
    view::view,
};
use ringmaster_common::{Timestamp, action::Action, id::NodeId, view::ClusterView};
use std::{collections::BTreeSet, fmt::Write, fs, path::Path, time::Duration};

#[test]
fn scripts_come_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/scripts");
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 5, "the scripts are in {}", folder.display());
    let mut differing = Vec::new();
    for path in paths {
        let expected = fs::read_to_string(&path).unwrap();
        let actual = run(&expected);
        if actual != expected {
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&path, actual).unwrap();
            } else {
                differing.push(format!("{}:\n{actual}", path.display()));
            }
        }
    }
    assert!(differing.is_empty(), "these scripts came out differently:\n{}", differing.join("\n"));
}

struct Script {
    state: State,
    view: ClusterView,
    observations: Observations,
    output: String,
}

fn run(text: &str) -> String {
    let mut script = Script {
        state: State::default(),
        view: ClusterView::default(),
        observations: Observations { election_bound: Duration::from_millis(600), ..Observations::default() },
        output: String::new(),
    };
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(script.output, "{line}").unwrap();
        if !line.is_empty() && !line.starts_with('#') {
            script.line(line);
        }
    }
    script.output
}

fn ids(text: &str) -> BTreeSet<NodeId> {
    text.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

impl Script {
    fn line(&mut self, line: &str) {
        match line.split_once(' ').unwrap() {
            ("members", rest) => {
                let (voters, learners) = rest.split_once('|').unwrap_or((rest, ""));
                self.apply(Body::Membership { voters: ids(voters), learners: ids(learners) });
            }
            ("joint", rest) => {
                let sets = rest.split('|').map(ids).filter(|voters| !voters.is_empty());
                self.observations.joint_voters = sets.collect();
            }
            ("observe", rest) => {
                let mut words = rest.split_whitespace();
                let node: NodeId = words.next().unwrap().parse().unwrap();
                let mut number = |name: &str| -> u64 {
                    words.next().unwrap().strip_prefix(name).unwrap().parse().unwrap()
                };
                let peer =
                    PeerObservation { lag: Some(number("lag=")), age: Duration::from_millis(number("age=")) };
                self.observations.peers.insert(node, peer);
            }
            ("at", rest) => {
                let (head, json) = rest.split_once(": ").unwrap();
                let mut words = head.split_whitespace().peekable();
                let stamp = words.next().unwrap().parse().unwrap();
                let planned = words.next_if_eq(&"plan").is_some();
                assert_eq!(words.next(), Some("by"));
                let actor = match (words.next().unwrap(), words.next_if(|word| word.parse::<u64>().is_ok())) {
                    ("node", Some(id)) => Actor::Node(id.parse().unwrap()),
                    (name, _) => Actor::Operator(name.to_owned()),
                };
                let key = words.next().map(|word| word.strip_prefix("key=").unwrap().to_owned());
                let command = if planned {
                    let action: Action = serde_json::from_str(json).unwrap();
                    match plan(&self.state, &self.observations, action) {
                        Ok(draft) => Command::CreatePlan { draft: Box::new(draft) },
                        Err(refusal) => return writeln!(self.output, "  no plan: {refusal}").unwrap(),
                    }
                } else {
                    serde_json::from_str(json).unwrap()
                };
                // The leader writes no other command.
                if let Err(refusal) = command.check_form(self.state.limits()) {
                    return writeln!(self.output, "  not written, {refusal}").unwrap();
                }
                let index = self.state.revision.0 + 1;
                let request = Request {
                    repeatable: key.is_some(),
                    fingerprint: Some(command.fingerprint()),
                    resent_after: None,
                    id: key.unwrap_or_else(|| format!("request-{index}")),
                    actor,
                };
                // Wall time runs beside cluster time here, so that scripts read easily.
                let wall = Timestamp::from_millisecond(stamp as i64).unwrap();
                let record = Record {
                    format: Formats::NEWEST.record,
                    stamp: ClusterTime(stamp),
                    wall,
                    request,
                    command,
                };
                let record = Record::decode(&record.encode()).unwrap();
                self.apply(Body::Command(Box::new(record)));
            }
            other => panic!("{other:?} is not a line of a script"),
        }
    }

    fn apply(&mut self, body: Body) {
        let index = self.state.revision.0 + 1;
        let Effect { response, batch, notices, .. } = self.state.apply(Entry { index, body });
        let outcome = match response.outcome.clone() {
            Outcome::Done => "done".to_owned(),
            Outcome::Refused(refusal) => format!("refused, {refusal}"),
            Outcome::Stored(stored) => {
                let what = match &stored.resource {
                    Resource::Setting(setting) => format!("setting {}", setting.key),
                    Resource::Upstream(upstream) => format!("upstream {}", upstream.name),
                    Resource::Endpoint(detail) => {
                        format!("endpoint {} of {}", detail.endpoint.id, detail.upstream)
                    }
                    Resource::Route(route) => format!("route {}", route.name),
                };
                format!(
                    "{what} {} version {}",
                    if stored.created { "created at" } else { "at" },
                    stored.version
                )
            }
            Outcome::Imported(imported) => format!(
                "imported {} upstreams and {} routes at version {}",
                imported.upstreams.len(),
                imported.routes.len(),
                imported.version
            ),
            Outcome::LockForced { next: None } => "released".to_owned(),
            Outcome::LockForced { next: Some(grant) } => {
                format!("released, token {} for {}", grant.token, grant.owner)
            }
            Outcome::Plan(plan) => {
                let mut text = format!("plan {}: {}", plan.id, plan.summary);
                for blocker in &plan.blockers {
                    write!(
                        text,
                        "\n      blocked, {}: {}; {}",
                        blocker.code, blocker.detail, blocker.lifted_by
                    )
                    .unwrap();
                }
                for warning in &plan.warnings {
                    write!(text, "\n      warning, {}: {}", warning.code, warning.detail).unwrap();
                }
                text
            }
            Outcome::LockGranted(grant) => format!(
                "token {} for {}, {} ms left, depth {}",
                grant.token, grant.owner, grant.expires_in_ms, grant.depth
            ),
            Outcome::LockQueued => "queued".to_owned(),
            Outcome::Operation { operation, started } => format!(
                "operation {} {}{}",
                operation.id,
                operation.status.as_str(),
                if started { ", started" } else { "" }
            ),
        };
        let of = if response.revision.0 == index {
            String::new()
        } else {
            format!(" (as in #{})", response.revision)
        };
        writeln!(self.output, "  #{index}{of} {outcome}").unwrap();
        if let Some(batch) = batch {
            for event in &batch.events {
                writeln!(self.output, "    - {event}").unwrap();
            }
            self.view.fold(&batch);
        }
        for notice in notices {
            writeln!(self.output, "    > {} {:?}", notice.request, notice.result).unwrap();
        }
        assert_eq!(self.view, view(&self.state), "the fold at #{index}");
    }
}
