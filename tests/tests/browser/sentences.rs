//! The largest sentences of the dashboard in the worst states: an upstream is down, there is no quorum, the page is
//! disconnected.

use crate::by_id;
use ringmaster_tests::{SOON, browser::Browser, demo::Demo, eventually, process::free_ports};
use serde_json::{Value, json};
use std::time::Duration;

async fn put(demo: &Demo, path: &str, body: Value) {
    let answer = demo.http.put(format!("{}{path}", demo.url)).json(&body).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_the_headline() {
    let demo = Demo::start(&["--nodes", "1", "--no-load"]).await;
    demo.wait_complete().await;
    let browser = Browser::open(&demo.url, 1280, 800).await;
    browser
        .wait_text(&by_id("state-sentence"), "healthy", |text| text.contains("Healthy: 1 of 1 node"))
        .await;

    // Nothing listens at the endpoint's address.
    let [dead] = free_ports::<1>();
    let check = json!({ "type": "tcp", "interval_ms": 100, "timeout_ms": 100, "rise": 1, "fall": 1 });
    let endpoints = json!([{ "id": "e1", "addr": format!("127.0.0.1:{dead}") }]);
    put(&demo, "/v1/upstreams/web", json!({ "endpoints": endpoints, "health_check": check })).await;
    put(&demo, "/v1/routes/web", json!({ "path_prefix": "/", "upstream": "web" })).await;
    browser
        .wait_text(&by_id("state-sentence"), "about the upstream", |text| {
            text.contains("Upstream web has no available endpoint since") && text.contains("e1 is unhealthy")
        })
        .await;
    browser.wait_text(&by_id("state-short"), "short", |text| text == "web down").await;
    browser.wait_text(&by_id("problems"), "one problem", |text| text.ends_with('1')).await;
    browser.wait_text(&by_id("nav-traffic"), "troubled", |text| text.contains("1 troubled")).await;

    // With requests, their number is in the sentence.
    let (http, url) = (demo.http.clone(), demo.proxy_url(1));
    tokio::spawn(async move { while http.get(&url).send().await.is_ok() {} });
    browser.wait_text(&by_id("state-sentence"), "the effect", |text| text.contains("requests/s fail.")).await;
    browser.click(&by_id("nav-traffic")).await;
    browser.click("[data-testid=upstream-row][data-name=web] a").await;
    browser
        .wait_text(&by_id("upstream-problem"), "the same", |text| {
            text.starts_with("Upstream web has no available endpoint")
        })
        .await;
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_shown_as_if_it_were_agreed() {
    let demo = Demo::start(&["--no-load"]).await;
    demo.wait_complete().await;
    let browser = Browser::open(&format!("{}/consensus", demo.url), 1440, 900).await;
    browser
        .wait_text(&by_id("quorum"), "a quorum", |text| {
            text.contains("Quorum is 2 of 3 voters. 1 failure is tolerated.")
        })
        .await;
    let chaos = async |node: u64, what: &str| {
        let url = format!("{}/v1/demo/nodes/{node}/{what}", demo.url);
        let done = demo.http.post(url).send().await.expect("an answer");
        assert!(done.status().is_success(), "{what} {node}: {done:?}");
    };
    chaos(2, "kill").await;
    chaos(3, "kill").await;
    browser
        .wait_text(&by_id("quorum"), "none", |text| {
            text.contains("No quorum: 1 of 3 voters answers. Nothing can be written since ")
        })
        .await;
    browser.wait_text(&by_id("state-short"), "none", |text| text == "No quorum").await;
    browser.wait_text(&by_id("metric-leader"), "none", |text| text.contains("no leader")).await;
    let badges: u64 = browser.eval("document.querySelectorAll('.chip.lead').length").await;
    assert_eq!(badges, 0, "a node wears the badge of a leader");

    // What is measured of a silent node comes before what was once agreed.
    browser.click(&by_id("nav-nodes")).await;
    browser.click(&format!("{} a", by_id("node-row-2"))).await;
    browser
        .wait_text("main", "about the silence", |text| {
            text.contains("frozen since") && (text.contains("Silent for") || text.contains("is down"))
        })
        .await;

    // The last node hangs: the page says that it knows nothing, and its clock of the cluster stands still.
    browser.click(&by_id("nav-overview")).await;
    // It may be paused before it can answer the request.
    let pause = demo.http.post(format!("{}/v1/demo/nodes/1/pause", demo.url));
    let _ = pause.timeout(Duration::from_secs(1)).send().await;
    browser
        .wait_text(&by_id("state-sentence"), "disconnected", |text| {
            text.contains("Nothing is known about the cluster since then.")
        })
        .await;
    browser.wait_text(".bar", "the last known", |text| text.contains("last known: revision")).await;
    eventually("no count in the rail", SOON, async || {
        let text = browser.text(&by_id("nav-nodes")).await?;
        if text.contains('/') { Err(text) } else { Ok(()) }
    })
    .await;
    browser.close().await;
}
