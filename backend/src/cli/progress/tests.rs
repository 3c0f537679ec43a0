use super::*;
use ringmaster_common::{
    Timestamp,
    action::Action,
    id::{GroupId, NodeId, OperationId, PlanId, Revision},
};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ms(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

fn step(name: &str, status: StepStatus) -> Step {
    let ended = !matches!(status, StepStatus::Pending | StepStatus::Running);
    Step {
        name: name.to_owned(),
        title: format!("the title of {name}"),
        bound_ms: 1_000,
        status,
        started_at: Some(ms(1_000)),
        ended_at: ended.then(|| ms(1_080)),
        detail: None,
    }
}

fn operation(status: OperationStatus, steps: Vec<Step>) -> Operation {
    Operation {
        id: OperationId(17),
        plan: PlanId(12),
        action: Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(2) },
        scope: ringmaster_common::plan::Scope::Cluster,
        summary: String::new(),
        status,
        steps,
        error: None,
        started_by: "ops".to_owned(),
        started_at: ms(1_000),
        ended_at: status.is_final().then(|| ms(2_250)),
        keep_within_ms: None,
        keep_until: None,
        undoable: true,
        undo_of: None,
        undone_by: None,
        revision: Revision(1),
    }
}

#[test]
fn each_step_is_printed_once_when_it_has_ended() {
    let written = Written::default();
    let out = Out::plain(Box::new(written.clone()));
    let mut printed = Printed::default();
    use StepStatus::{Pending, Running, Skipped, Succeeded};
    for (first, second) in [
        (Running, Pending),
        (Running, Pending),
        (Succeeded, Running),
        (Succeeded, Running),
        (Succeeded, Skipped),
    ] {
        let steps = vec![step("preflight", first), step("transfer_leadership", second)];
        printed.print(&operation(OperationStatus::Running, steps), &out).unwrap();
    }
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    assert_eq!(
        text,
        "  1/2  preflight            succeeded     80 ms  the title of preflight\n  \
           2/2  transfer_leadership  skipped       80 ms  the title of transfer_leadership\n"
    );
}

#[test]
fn the_outcome_names_the_next_commands() {
    let done = outcome(&operation(OperationStatus::Succeeded, Vec::new()), Paint::NONE);
    assert_eq!(done, "Operation 17 succeeded in 1.25 s.\nTo undo it: ringmaster undo 17\n");
    let waiting = outcome(&operation(OperationStatus::AwaitingKeep, Vec::new()), Paint::NONE);
    assert!(waiting.contains("ringmaster keep 17") && waiting.contains("ringmaster abort 17"), "{waiting}");
    let failed = outcome(&operation(OperationStatus::Failed, Vec::new()), Paint::NONE);
    assert_eq!(failed, "Operation 17 failed in 1.25 s.\n");
}
