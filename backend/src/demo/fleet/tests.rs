use super::*;
use std::os::unix::fs::PermissionsExt;

/// A fleet whose nodes run `script` instead of this program.
fn fleet(script: &str) -> Fleet {
    let home = Home::open(None, None).unwrap();
    let program = home.path().join("node.sh");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    Fleet::new(Launcher { program, environment: vec![("GREETING", "hello".to_owned())] }, home)
}

const SLEEPS: &str = "exec sleep 60";

/// The state of a process as the kernel has it: `S` sleeping, `T` stopped; none where it is gone.
fn kernel_state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} never came to be");
}

#[tokio::test]
async fn chaos_is_real() {
    let mut fleet = fleet(SLEEPS);
    let id = NodeId(1);
    fleet.start(id).unwrap();
    let pid = fleet.show(id).pid.unwrap();

    let node = fleet.inflict(id, Chaos::Pause).await.unwrap();
    assert_eq!((node.state, node.pid), (ProcessState::Paused, Some(pid)));
    until("the stop", || kernel_state(pid) == Some('T')).await;

    assert_eq!(fleet.inflict(id, Chaos::Resume).await.unwrap().state, ProcessState::Running);
    until("the waking", || kernel_state(pid) != Some('T')).await;

    fleet.inflict(id, Chaos::Pause).await.unwrap();
    let node = fleet.inflict(id, Chaos::Kill).await.unwrap();
    assert_eq!((node.state, node.pid), (ProcessState::Exited, None));
    assert_eq!(kernel_state(pid), None, "a paused process can be killed, and is waited for");

    for chaos in [Chaos::Kill, Chaos::Pause, Chaos::Resume] {
        let refusal = fleet.inflict(id, chaos).await.unwrap_err();
        assert_eq!(refusal.code, Code::DemoFailed);
    }
    let again = fleet.inflict(id, Chaos::Restart).await.unwrap();
    assert_eq!(again.state, ProcessState::Running);
    let third = fleet.inflict(id, Chaos::Restart).await.unwrap();
    assert_ne!(again.pid, third.pid, "a node that runs is killed first");
    fleet.stop(std::future::pending()).await;
    assert!(fleet.is_dead());
}

#[tokio::test]
async fn an_unknown_node_is_refused() {
    let mut fleet = fleet(SLEEPS);
    fleet.start(NodeId(1)).unwrap();
    let refusal = fleet.inflict(NodeId(9), Chaos::Kill).await.unwrap_err();
    assert_eq!(refusal.code, Code::UnknownNode);
    assert!(refusal.detail.ends_with("its nodes are 1"), "{refusal}");
    fleet.stop(std::future::ready(())).await;
}

#[tokio::test]
async fn an_unexpected_exit_is_reported() {
    let mut fleet = fleet("echo $GREETING; exit 3");
    fleet.start(NodeId(1)).unwrap();
    let (id, status) = fleet.next_exit().await;
    assert_eq!((id, status.code()), (NodeId(1), Some(3)));
    assert_eq!(fleet.show(id).state, ProcessState::Exited);
    assert!(fleet.home().end_of_log(id).contains("hello"), "its output is in its log");
}

#[tokio::test]
async fn nodes_that_do_not_stop_are_killed() {
    let mut fleet = fleet("trap '' TERM; echo ready; while :; do sleep 0.1; done");
    fleet.start(NodeId(1)).unwrap();
    until("the trap", || fleet.home().end_of_log(NodeId(1)).contains("ready")).await;
    let pid = fleet.show(NodeId(1)).pid.unwrap();
    fleet.stop(sleep(Duration::from_millis(200))).await;
    assert_eq!(kernel_state(pid), None);
}

#[tokio::test]
async fn a_paused_node_stops_gently() {
    let mut fleet = fleet("trap 'echo stopped; exit 0' TERM; echo ready; while :; do sleep 0.1; done");
    let id = NodeId(1);
    fleet.start(id).unwrap();
    until("the trap", || fleet.home().end_of_log(id).contains("ready")).await;
    fleet.inflict(id, Chaos::Pause).await.unwrap();
    fleet.stop(std::future::pending()).await;
    assert!(fleet.home().end_of_log(id).contains("stopped"));
}

#[tokio::test]
async fn the_first_node_creates_the_cluster_and_the_others_join_it() {
    let mut fleet = fleet(SLEEPS);
    let start = |fleet: &Fleet, id| {
        let flags = fleet.flags(NodeId(id)).into_iter();
        flags.filter(|flag| flag.starts_with("--bootstrap") || flag.starts_with("--join")).collect::<Vec<_>>()
    };
    assert_eq!(start(&fleet, 1), ["--bootstrap"]);
    fleet.start(NodeId(1)).unwrap();
    assert_eq!(start(&fleet, 2), ["--join=http://127.0.0.1:7701"]);
    fleet.start(NodeId(2)).unwrap();
    assert_eq!(start(&fleet, 3), ["--join=http://127.0.0.1:7701", "--join=http://127.0.0.1:7702"]);

    give_identity(&fleet.home().node(NodeId(2)));
    assert_eq!(
        start(&fleet, 1),
        ["--join=http://127.0.0.1:7702"],
        "it has lost its data and the cluster still exists"
    );
    give_identity(&fleet.home().node(NodeId(1)));
    assert_eq!(start(&fleet, 1), ["--bootstrap"]);
    assert_eq!(fleet.home().known_nodes(), 2);
    fleet.stop(std::future::ready(())).await;
}

#[tokio::test]
async fn a_demo_has_a_bounded_number_of_nodes() {
    let mut fleet = fleet(SLEEPS);
    for id in 1..=MAX_NODES as u64 {
        assert_eq!(fleet.next_id().unwrap(), NodeId(id));
        fleet.start(NodeId(id)).unwrap();
    }
    assert_eq!(fleet.next_id().unwrap_err().code, Code::LimitReached);
    assert_eq!(fleet.list().len(), MAX_NODES);
    fleet.stop(std::future::ready(())).await;
}

/// Makes a directory look like that of a node that has started before.
fn give_identity(path: &std::path::Path) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::write(path.join("identity.json"), "").unwrap();
}
