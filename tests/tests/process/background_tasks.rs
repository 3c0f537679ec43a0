//! A node does not outlive its background tasks: one that panics ends the node, which says which task it was.

use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Host, Program},
    eventually,
};
use std::time::Duration;

/// The test hook of a node: the task of this name panics shortly after its start.
const PANIC_TASK: &str = "RINGMASTER_TEST_PANIC_TASK";
/// The most that a node may run on after one of its tasks has panicked. It takes milliseconds, and more where the
/// machine is busy.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Of each kind one: the loops of a leader, watches of the state, servers, and measurement.
const TASKS: [&str; 8] = [
    "expiry",
    "failover",
    "failure-detector",
    "operations",
    "election-recorder",
    "membership-watch",
    "http-server",
    "telemetry",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_the_node_and_names_the_task() {
    let mut cluster = Cluster::empty(Program::default());
    cluster.add_on(&Host::default());
    for task in TASKS {
        let node = cluster.node_mut(1);
        // To find the names for a backtrace takes seconds in a build with debug information.
        node.enter = vec!["env".to_owned(), "RUST_BACKTRACE=0".to_owned(), format!("{PANIC_TASK}={task}")];
        node.start();
        eventually(&format!("the task {task} to panic"), SOON, async || {
            let output = node.log();
            if output.contains(&format!("{PANIC_TASK} names this task")) { Ok(()) } else { Err(output) }
        })
        .await;
        let status = node.process().wait(ENDS_WITHIN);
        node.kill();
        let output = node.log();
        assert!(!status.success() && status.code().is_some(), "{task}: {status}\n{output}");
        let last = output.lines().last().unwrap_or_default();
        assert!(last.contains(&format!("task {task} panicked")), "{task} is not named at last:\n{output}");
        cluster.wipe(1);
        std::fs::remove_file(cluster.dir().join("node-1.log")).expect("the log is there");
    }
    let node = cluster.node_mut(1);
    node.enter.clear();
    node.start();
    cluster.wait_formed(1).await;
}
