//! Nodes that are killed at an fsync. `ringmaster-bench crash-points` goes through all of them.

use ringmaster_tests::{
    cluster::Program,
    crash_points::{Work, check_strace, crash},
};

/// Some fsyncs of each work: the first ones, and further apart the later ones.
const POINTS: [u32; 5] = [1, 2, 4, 8, 12];

async fn check(work: Work) {
    check_strace().expect("scripts/setup.sh installs it");
    for nth in POINTS {
        let crash = crash(Program::default(), work, nth).await;
        assert!(crash.losses.is_empty(), "{work:?}, fsync {nth}: {:?}", crash.losses);
        eprintln!("{work:?}, fsync {nth}: killed {}, {} acknowledged", crash.killed, crash.acknowledged);
        assert!(crash.killed || nth > 1, "{work:?} was never killed");
        if !crash.killed {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_survives_its_birth() {
    check(Work::Birth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_survives_its_votes_and_appends() {
    check(Work::Append).await;
    check(Work::Vote).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_survives_a_change_of_members() {
    check(Work::Membership).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_survives_its_snapshot() {
    check(Work::Snapshot).await;
}
