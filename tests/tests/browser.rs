//! The dashboard in a real browser, on a real demo: what an operator sees and clicks.

use ringmaster_common::id::NodeId;
use ringmaster_tests::{SOON, browser::Browser, demo::Demo, eventually};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// The most that the page may need to show what happened. Loose: the machine may be busy.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
/// The dashboard's budget, compressed.
const MAX_BUNDLE_BYTES: usize = 300 * 1024;

fn by_id(id: &str) -> String {
    format!("[data-testid=\"{id}\"]")
}

async fn leader(demo: &Demo, node: u16) -> u64 {
    eventually("a leader", SOON, async || {
        demo.cluster(node).await?.leader.map(|NodeId(id)| id).ok_or_else(|| "there is none".to_owned())
    })
    .await
}

/// Writes all the while, and gives the longest time between two acknowledgements.
fn write_gap(demo: &Demo, node: u16) -> (Arc<AtomicBool>, tokio::task::JoinHandle<Duration>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, url) = (stop.clone(), format!("{}/v1/settings/gap", demo.node_url(node)));
    let http = demo.http.clone();
    let task = tokio::spawn(async move {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while !stopped.load(Ordering::Relaxed) {
            let written = http.put(&url).json(&json!({ "value": 1 })).send().await;
            if written.is_ok_and(|response| response.status().is_success()) {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        }
        longest
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_click_and_its_undo() {
    let demo = Demo::start(&[]).await;
    demo.wait_complete().await;
    let from = leader(&demo, 1).await;
    let to = from % 3 + 1;
    let browser = Browser::open(&demo.url, 1280, 720).await;
    browser.wait_text(&by_id("state-sentence"), "all well", |text| text.contains("All is well")).await;
    for node in 1..=3 {
        browser.wait_text(&by_id(&format!("node-status-{node}")), "up", |text| text.contains("up")).await;
    }
    browser.wait_text(&by_id(&format!("node-role-{from}")), "leader", |text| text.contains("leader")).await;
    browser.wait_text(&by_id("connection"), "live", |text| text.contains("live from node 1")).await;

    let (stop, gap) = write_gap(&demo, 1);
    browser.click(&by_id(&format!("make-leader-{to}"))).await;
    let summary = browser.wait_text(&by_id("plan-summary"), "there", |text| !text.is_empty()).await;
    assert!(summary.contains(&format!("node {to}")), "{summary}");
    assert_eq!(leader(&demo, 1).await, from, "a plan does nothing");

    let confirmed = Instant::now();
    browser.click(&by_id("plan-apply")).await;
    browser.wait_text(&by_id(&format!("node-role-{to}")), "leader", |text| text.contains("leader")).await;
    let shown = confirmed.elapsed();
    browser
        .wait_text(&by_id("operation-status"), "done", |text| text.to_lowercase().contains("succeeded"))
        .await;
    stop.store(true, Ordering::Relaxed);
    let gap = gap.await.expect("the writer does not panic");
    println!("from the click to the new leader on the page: {shown:?}; the longest write gap: {gap:?}");
    assert!(shown < SHOWN_WITHIN, "{shown:?}");
    assert!(gap < Duration::from_secs(2), "{gap:?}");
    assert_eq!(leader(&demo, 1).await, to);

    browser.click(&by_id("undo")).await;
    browser
        .wait_text(&by_id("plan-summary"), "about the way back", |text| {
            text.contains(&format!("to node {from}"))
        })
        .await;
    browser.click(&by_id("plan-apply")).await;
    browser.wait_text(&by_id(&format!("node-role-{from}")), "leader", |text| text.contains("leader")).await;
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_goes_on_when_its_node_dies() {
    let demo = Demo::start(&[]).await;
    demo.wait_complete().await;
    let browser = Browser::open(&demo.url, 1680, 900).await;
    browser.wait_text(&by_id("state-sentence"), "all well", |text| text.contains("All is well")).await;
    browser.wait_text(&by_id("connection"), "live", |text| text.contains("live from node 1")).await;

    // Node 1 leads, and serves the page: its death is seen through another node.
    assert_eq!(leader(&demo, 2).await, 1);
    browser.click(&by_id("nav-nodes")).await;
    browser.click(&by_id("chaos-kill-1")).await;
    browser
        .wait_text(&by_id("connection"), "live from another node", |text| {
            text.contains("live from node 2") || text.contains("live from node 3")
        })
        .await;
    browser.wait_text(&by_id("node-status-1"), "down", |text| text.contains("down")).await;
    browser.wait_text(&by_id("state-short"), "no longer well", |text| !text.contains("All well")).await;
    let next = leader(&demo, 2).await;
    browser.wait_text(&by_id(&format!("node-role-{next}")), "leader", |text| text.contains("leader")).await;

    browser.click(&by_id("chaos-restart-1")).await;
    browser.wait_text(&by_id("node-status-1"), "up again", |text| text.contains("up")).await;
    browser.wait_text(&by_id("state-short"), "well again", |text| text.contains("All well")).await;

    // The browser itself reports what it could not reach while the node was dead; the page is to
    // have thrown nothing.
    let thrown: Vec<_> =
        browser.complaints().into_iter().filter(|complaint| !complaint.starts_with("log: ")).collect();
    assert_eq!(thrown, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_is_small_compressed_and_kept() {
    let demo = Demo::start(&["--nodes", "1", "--no-load"]).await;
    let get = async |path: &str, encoding: &str| {
        let request = demo.http.get(format!("{}{path}", demo.url)).header("accept-encoding", encoding);
        request.send().await.unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let page = get("/", "br").await;
    assert_eq!(page.headers()["cache-control"], "no-cache");
    let policy = page.headers()["content-security-policy"].to_str().expect("a policy").to_owned();
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let plain = get("/", "identity").await.text().await.expect("a page");
    let assets: Vec<_> = plain
        .split(['"', '\''])
        .filter(|word| word.starts_with("/assets/") && word.contains('.'))
        .map(str::to_owned)
        .collect();
    assert!(assets.iter().any(|path| path.ends_with(".css")), "{plain}");
    let mut total = page.bytes().await.expect("a body").len();
    let mut seen = Vec::new();
    let mut open = assets;
    while let Some(path) = open.pop() {
        if seen.contains(&path) {
            continue;
        }
        let response = get(&path, "gzip, br").await;
        assert!(response.status().is_success(), "{path}");
        assert_eq!(response.headers()["content-encoding"], "br", "{path}");
        let cache = response.headers()["cache-control"].to_str().expect("text").to_owned();
        assert!(cache.contains("immutable") && cache.contains("max-age=31536000"), "{path}: {cache}");
        total += response.bytes().await.expect("a body").len();
        seen.push(path);
    }
    assert!(seen.iter().any(|path| path.ends_with(".wasm")), "the page names its module: {seen:?}");
    println!("the dashboard has {total} bytes, compressed: {seen:?}");
    assert!(total <= MAX_BUNDLE_BYTES, "{total} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_can_be_linked_to_and_fit_a_phone() {
    let demo = Demo::start(&[]).await;
    demo.wait_complete().await;
    let browser = Browser::open(&format!("{}/nodes/2", demo.url), 375, 812).await;
    browser
        .wait_text("main", "about node 2", |text| text.contains("calm-wren") || text.contains("node 2"))
        .await;
    for path in ["/", "/nodes", "/operations", "/events"] {
        browser.page.goto(format!("{}{path}", demo.url)).await.expect("the page opens");
        browser.wait_text("main", "there", |text| text.len() > 40).await;
        browser
            .wait_text(&by_id("connection"), "live", |text| text.contains("live") || text.contains('1'))
            .await;
        let wider: i64 =
            browser.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
        assert_eq!(wider, 0, "{path} is wider than the screen");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}
