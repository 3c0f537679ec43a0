//! Settings are deleted as other objects are.

use reqwest::{Method, StatusCode};
use ringmaster_common::setting::Setting;
use ringmaster_tests::{
    cluster::{Cluster, parse, problem},
    process::binary,
};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

async fn delete(cluster: &Cluster, key: &str, if_match: Option<u64>) -> reqwest::Response {
    let mut request = cluster.http.delete(format!("{}/v1/settings/{key}", cluster.node(1).url));
    if let Some(version) = if_match {
        request = request.header("if-match", format!("\"{version}\""));
    }
    request.send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_is_deleted_and_a_built_in_one_has_its_default_again() {
    let cluster = Cluster::start(1).await;
    let first = cluster.put_setting(1, "team/contact", json!("ada")).await.expect("it is written");
    let second = cluster.put_setting(1, "team/contact", json!("bob")).await.expect("it is written");
    let stale = problem(delete(&cluster, "team/contact", Some(first.version.0)).await).await;
    assert_eq!(stale.code, "precondition_failed");
    let deleted = delete(&cluster, "team/contact", Some(second.version.0)).await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    let gone = cluster.send(1, Method::GET, "/v1/settings/team/contact", None).await.expect("an answer");
    assert_eq!(problem(gone).await.code, "unknown_setting");
    assert_eq!(problem(delete(&cluster, "team/contact", None).await).await.code, "unknown_setting");

    // A node is suspected before it is down: by default after 500 and 2,000 ms.
    let known = |key: &'static str| {
        let cluster = &cluster;
        async move { cluster.get::<Setting>(1, &format!("/v1/settings/{key}")).await.expect("it is there") }
    };
    let (suspect, down) = (known("nodes.suspect_after_ms").await, known("nodes.down_after_ms").await);
    assert_eq!((suspect.version.0, down.version.0), (0, 0));
    let default = down.value.as_u64().expect("a number");
    cluster.put_setting(1, "nodes.down_after_ms", json!(2 * default)).await.expect("it is written");
    cluster.put_setting(1, "nodes.suspect_after_ms", json!(default)).await.expect("it is written");
    assert_eq!(problem(delete(&cluster, "nodes.down_after_ms", None).await).await.code, "invalid_setting");
    for key in ["nodes.suspect_after_ms", "nodes.down_after_ms"] {
        let mut command = Command::new(binary());
        command.args(["settings", "delete", key, "--url", &cluster.node(1).url]).stdin(Stdio::null());
        let output = tokio::task::block_in_place(|| command.output().expect("it starts"));
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("Deleted {key}.\n"));
    }
    assert_eq!(known("nodes.down_after_ms").await, down);
    let unset = problem(delete(&cluster, "nodes.down_after_ms", None).await).await;
    assert!(unset.code == "unknown_setting" && unset.detail.contains("its default is"), "{unset:?}");

    let events = cluster.send(1, Method::GET, "/v1/events?limit=500", None).await.expect("an answer");
    let events: Value = parse(events).await.expect("the events");
    assert_eq!(events.to_string().matches("\"setting_removed\"").count(), 3, "{events}");
    let audit: Value = cluster.get(1, "/v1/audit").await.expect("the audit");
    let asked = |item: &Value| item["request"] == "delete setting team/contact" && item["refused"].is_null();
    assert_eq!(
        audit["items"].as_array().expect("a list").iter().filter(|item| asked(item)).count(),
        1,
        "{audit}"
    );
}
