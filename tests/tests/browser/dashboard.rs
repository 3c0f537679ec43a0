//! The dashboard in a real browser, on a real demo: what an operator sees and clicks.

use crate::by_id;
use ringmaster_common::id::NodeId;
use ringmaster_tests::{SOON, browser::Browser, demo::Demo, eventually};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The most that the page may need to show what happened. Loose: the machine may be busy.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
/// The dashboard's budget: all that a first visit loads, compressed.
const MAX_BUNDLE_BYTES: usize = 500_000;

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
    browser
        .wait_text(&by_id("state-sentence"), "healthy", |text| text.contains("Healthy: 3 of 3 nodes"))
        .await;
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
async fn the_page_continues_when_its_node_dies() {
    let demo = Demo::start(&[]).await;
    demo.wait_complete().await;
    let browser = Browser::open(&demo.url, 1680, 900).await;
    browser
        .wait_text(&by_id("state-sentence"), "healthy", |text| text.contains("Healthy: 3 of 3 nodes"))
        .await;
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
    for path in [
        "/",
        "/nodes",
        "/nodes/1",
        "/consensus",
        "/operations",
        "/operations/1",
        "/events",
        "/audit",
        "/locks",
        "/settings",
        "/traffic",
        "/traffic?new=upstream",
        "/traffic/upstreams/web",
        "/traffic/upstreams/none",
        "/traffic/web",
    ] {
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

/// Empties a field and types into it, as a user would.
async fn fill(browser: &Browser, id: &str, text: &str) {
    browser.click(&by_id(id)).await;
    let cleared: bool = browser
        .eval(&format!("(() => {{ document.querySelector('{}').select(); return true; }})()", by_id(id)))
        .await;
    assert!(cleared);
    let field = browser.page.find_element(by_id(id)).await.expect("it was there a moment ago");
    field.type_str(text).await.expect("a field takes text");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_is_edited_and_nothing_is_overwritten_unseen() {
    const KEY: &str = "nodes.suspect_after_ms";
    let demo = Demo::start(&["--no-load"]).await;
    demo.wait_complete().await;
    let browser = Browser::open(&format!("{}/settings", demo.url), 1280, 800).await;
    let value = by_id(&format!("setting-value-{KEY}"));
    browser.wait_text(&value, "the default", |text| text == "500").await;

    browser.click(&by_id(&format!("edit-{KEY}"))).await;
    fill(&browser, "field-value", "700").await;
    browser.click(&by_id("form-save")).await;
    browser.wait_text(&value, "as it was set", |text| text == "700").await;

    // A value that it does not take is refused with its bounds, and nothing changes.
    browser.click(&by_id(&format!("edit-{KEY}"))).await;
    fill(&browser, "field-value", "7").await;
    browser.click(&by_id("form-save")).await;
    browser
        .wait_text(&by_id("field-error"), "about the bounds", |text| text.contains("from 200 to 60000"))
        .await;
    browser.wait_text(&value, "as it was", |text| text == "700").await;

    // Somebody else is quicker: the form shows what is there now, and saving is refused.
    let url = format!("{}/v1/settings/{KEY}", demo.url);
    let put = demo.http.put(&url).json(&json!({ "value": 650 })).send().await.expect("an answer");
    assert!(put.status().is_success(), "{put:?}");
    browser.wait_text(&by_id("form-conflict"), "about the other", |text| text.contains("meanwhile")).await;
    fill(&browser, "field-value", "800").await;
    browser.click(&by_id("form-save")).await;
    browser
        .wait_text(&by_id("refusal"), "a precondition that failed", |text| {
            text.contains("precondition_failed")
        })
        .await;
    browser.wait_text(&value, "what the other wrote", |text| text == "650").await;

    // Seen and decided: now it is overwritten.
    browser.click(&by_id("form-overwrite")).await;
    browser.click(&by_id("form-save")).await;
    browser.wait_text(&value, "as decided", |text| text == "800").await;
    let stored: serde_json::Value =
        demo.http.get(&url).send().await.expect("an answer").json().await.expect("a setting");
    assert_eq!(stored["value"], 800);

    // The refusal is in the audit, with its code, and can be linked to.
    browser.click(&by_id("nav-audit")).await;
    browser.click(&by_id("filter-outcome-refused")).await;
    let refused = "[data-testid=\"audit-row\"][data-outcome=\"refused\"]";
    browser
        .wait_text(refused, "the refused write", |text| {
            text.contains("Set nodes.suspect_after_ms") && text.contains("precondition_failed")
        })
        .await;
    browser.click(&format!("{refused} a.plain")).await;
    browser
        .wait_text(&by_id("audit-entry"), "all of the entry", |text| {
            text.contains("dashboard@127.0.0.1") && text.contains("precondition_failed")
        })
        .await;
    let link: String = browser.eval("location.pathname + location.search").await;
    assert!(link.starts_with("/audit?") && link.contains("entry="), "{link}");

    // The refusals are the browser's only complaints.
    let others: Vec<_> = browser
        .complaints()
        .into_iter()
        .filter(|complaint| !(complaint.starts_with("log: ") && complaint.contains("/v1/settings/")))
        .collect();
    assert_eq!(others, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consensus_shows_live_lag_and_changes_members() {
    let demo = Demo::start(&[]).await;
    demo.wait_complete().await;
    let browser = Browser::open(&format!("{}/consensus", demo.url), 1440, 900).await;
    browser
        .wait_text(&by_id("quorum"), "the arithmetic", |text| {
            text.contains("Quorum is 2 of 3 voters. 1 failure is tolerated.")
        })
        .await;
    let paused = eventually("a follower with a lag, other than the node of the page", SOON, async || {
        for id in [2, 3] {
            if browser.text(&by_id(&format!("log-lag-{id}"))).await?.parse::<u64>().is_ok() {
                return Ok(id);
            }
        }
        Err("none".to_owned())
    })
    .await;
    let lag = by_id(&format!("log-lag-{paused}"));

    // A follower that stands still falls behind, on the page too; its line rises.
    let chaos = async |what: &str| {
        let url = format!("{}/v1/demo/nodes/{paused}/{what}", demo.url);
        let done = demo.http.post(url).send().await.expect("an answer");
        assert!(done.status().is_success(), "{what}: {done:?}");
    };
    chaos("pause").await;
    browser.wait_text(&lag, "growing", |text| text.parse::<u64>().is_ok_and(|lag| lag >= 3)).await;
    chaos("resume").await;
    browser.wait_text(&lag, "small again", |text| text.parse::<u64>().is_ok_and(|lag| lag <= 1)).await;
    browser.wait_text(&by_id(&format!("log-row-{paused}")), "up", |text| text.contains("follower")).await;

    // Fewer voters: the page counts before anything happens, and the plan says the same.
    browser.click(&by_id(&format!("voter-{paused}"))).await;
    browser
        .wait_text("main", "about an even number", |text| text.contains("losing either stops writes"))
        .await;
    browser.click(&by_id("plan-voters")).await;
    let summary = browser.wait_text(&by_id("plan-summary"), "there", |text| !text.is_empty()).await;
    assert!(summary.contains("in place of nodes 1, 2 and 3"), "{summary}");
    browser.click(&by_id("plan-cancel")).await;
    assert_eq!(
        demo.cluster(1).await.expect("an answer").nodes.iter().filter(|node| node.node.voter).count(),
        3
    );

    // A drain by click, and its end.
    browser.click(&by_id(&format!("drain-{paused}"))).await;
    browser.click(&by_id("plan-apply")).await;
    browser
        .wait_text(&by_id("operation-status"), "done", |text| text.to_lowercase().contains("succeeded"))
        .await;
    let outcome = browser.text(&by_id("operation-outcome")).await.expect("an outcome");
    assert!(!outcome.contains("leadership"), "a drain of a follower moves nothing: {outcome}");
    browser.click(&by_id("plan-cancel")).await;
    browser.click(&by_id(&format!("activate-{paused}"))).await;
    browser.click(&by_id("plan-apply")).await;
    browser
        .wait_text(&by_id("operation-status"), "done", |text| text.to_lowercase().contains("succeeded"))
        .await;
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_list_rolls_up_and_holds_still() {
    const BEAT: Duration = Duration::from_millis(300);
    let demo = Demo::start(&["--no-load"]).await;
    demo.wait_complete().await;
    let (http, url) = (demo.http.clone(), format!("{}/v1/settings/beat", demo.url));
    tokio::spawn(async move {
        for beat in 0_u64.. {
            // The last one is lost with the demo.
            let _ = http.put(&url).json(&json!({ "value": beat })).send().await;
            tokio::time::sleep(BEAT).await;
        }
    });
    let browser = Browser::open(&format!("{}/events?kind=settings", demo.url), 1280, 800).await;
    // A frequent event is a line or two, however often it happens.
    let row = by_id("event-row");
    let beats = |text: &str| {
        let digits = text.split(" changes, last shown").next()?.split_whitespace().last()?;
        digits.parse::<u64>().ok()
    };
    browser.wait_text(&row, "rolled up", |text| text.contains("beat") && beats(text) >= Some(10)).await;
    let rows: u64 = browser.eval("document.querySelectorAll('[data-testid=event-row]').length").await;
    assert!(rows < 5, "{rows} lines");
    let marked: bool = browser
        .eval(
            "(() => { document.querySelector('[data-testid=event-row]').dataset.kept = 1; return true; })()",
        )
        .await;
    assert!(marked);
    let first = browser.text(&row).await.expect("a row");
    browser.wait_text(&row, "another beat", |text| text != first).await;
    let kept: Option<String> =
        browser.eval("document.querySelector('[data-testid=event-row]').dataset.kept ?? null").await;
    assert_eq!(kept.as_deref(), Some("1"), "the row changed in place");

    // Paused, it stands still, and says what came in.
    browser.click(&by_id("hold")).await;
    browser.wait_text(&by_id("hold"), "paused", |text| text.contains("Paused")).await;
    let held = browser.text(&row).await.expect("a row");
    let put =
        demo.http.put(format!("{}/v1/settings/mine", demo.url)).json(&json!({ "value": 1 })).send().await;
    assert!(put.expect("an answer").status().is_success());
    browser.wait_text(&by_id("hold"), "about a new line", |text| text.contains("new line")).await;
    assert_eq!(browser.text(&row).await.expect("a row"), held);
    browser.click(&by_id("hold")).await;
    browser.wait_text("main", "about the new setting", |text| text.contains("Setting mine is now 1")).await;
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}

/// How long the page takes, from before a write is sent and from its acknowledgement, to the element that
/// shows it. The browser's clock and this one are of the same machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_seen_at_once() {
    const WRITES: usize = 250;
    const KEY: &str = "seen";
    let demo = Demo::start(&["--no-load"]).await;
    demo.wait_complete().await;
    let url = format!("{}/v1/settings/{KEY}", demo.url);
    let put = async |value: usize| {
        let written = demo.http.put(&url).json(&json!({ "value": value })).send().await.expect("an answer");
        assert!(written.status().is_success(), "{written:?}");
    };
    put(0).await;
    let browser = Browser::open(&format!("{}/settings", demo.url), 1280, 800).await;
    let shown = by_id(&format!("setting-value-{KEY}"));
    browser.wait_text(&shown, "there", |text| text == "0").await;
    let watched: bool = browser
        .eval(&format!(
            "(() => {{ const e = document.querySelector('{shown}'); window.seen = {{}}; \
             const look = () => {{ window.seen[e.textContent] ??= performance.timeOrigin + performance.now(); }}; \
             new MutationObserver(look).observe(e, {{ childList: true, characterData: true, subtree: true }}); \
             return true; }})()"
        ))
        .await;
    assert!(watched);
    let mut writes = Vec::new();
    for value in 1..=WRITES {
        let sent = epoch_ms();
        put(value).await;
        writes.push((value, sent, epoch_ms()));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    browser.wait_text(&shown, "at the last value", |text| text == WRITES.to_string()).await;
    let seen: std::collections::HashMap<String, f64> = browser.eval("window.seen").await;
    let latencies = |since: fn(&(usize, f64, f64)) -> f64| {
        let mut took: Vec<f64> =
            writes.iter().map(|write| seen[&write.0.to_string()] - since(write)).collect();
        took.sort_by(f64::total_cmp);
        (took[WRITES / 2], took[WRITES * 99 / 100])
    };
    let (p50, p99) = latencies(|(_, sent, _)| *sent);
    let (after_p50, after_p99) = latencies(|(_, _, acknowledged)| *acknowledged);
    println!(
        "{WRITES} writes to the page: p50 {p50:.1} ms, p99 {p99:.1} ms from before the request; \
         p50 {after_p50:.1} ms, p99 {after_p99:.1} ms from its acknowledgement"
    );
    assert!(p99 < 1_000.0, "{p99} ms");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}

fn epoch_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs_f64() * 1_000.0
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_shown_live_and_taken_away_by_plan() {
    let demo = Demo::start(&["--no-load"]).await;
    demo.wait_complete().await;
    let browser = Browser::open(&format!("{}/locks", demo.url), 1280, 900).await;
    browser.wait_text("main", "about nothing yet", |text| text.contains("No locks are held")).await;

    let acquire = |name: &str, owner: &str, wait_ms: u64| {
        let body = json!({
            "name": name, "owner": owner, "ttl_ms": 60_000, "wait_ms": wait_ms, "meta": { "why": "a test" },
        });
        demo.http.post(format!("{}/v1/locks/acquire", demo.url)).json(&body).send()
    };
    let granted = async |name: &str, owner: &str| {
        let answer = acquire(name, owner, 0).await.expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
    };
    granted("jobs/nightly", "ann").await;
    granted("jobs/hourly", "bob").await;
    for number in 0..60 {
        granted(&format!("many/{number:02}"), "crowd").await;
    }
    browser.wait_text(&by_id("locks-held"), "counted", |text| text == "62").await;
    let row = "[data-testid=lock-row][data-name=\"jobs/nightly\"]";
    browser.wait_text(row, "held", |text| text.contains("ann") && text.contains(" s")).await;
    let rows = "document.querySelectorAll('[data-testid=lock-row]').length";
    assert_eq!(browser.eval::<u64>(rows).await, 50);
    browser.click(&by_id("locks-next")).await;
    browser.wait_text(&by_id("filter-count"), "at the next page", |text| text.starts_with("12 shown")).await;
    fill(&browser, "filter-words", "jobs/").await;
    browser.wait_text(&by_id("filter-count"), "about two", |text| text.starts_with("2 shown")).await;

    // Each waits for what the other holds.
    let waiting = [acquire("jobs/hourly", "ann", 30_000), acquire("jobs/nightly", "bob", 30_000)];
    let waiting = waiting.map(tokio::spawn);
    browser.wait_text(row, "in a deadlock", |text| text.contains("deadlock") && text.contains("bob")).await;
    browser.click(&format!("{row} a")).await;
    browser.wait_text(&by_id("deadlock"), "named", |text| text.contains("2 waits in a cycle")).await;
    browser
        .wait_text(&by_id("lock-waiter"), "bob", |text| text.contains("bob") && text.contains("a test"))
        .await;
    browser.wait_text(&by_id("lock-record"), "queued", |text| text.contains("Queued bob")).await;

    browser.click(&by_id("release-lock")).await;
    browser.wait_text(&by_id("impact-loses"), "ann", |text| text.contains("ann")).await;
    browser.wait_text(&by_id("impact-gets"), "bob", |text| text.contains("bob")).await;
    browser.click(&by_id("plan-apply")).await;
    browser
        .wait_text(&by_id("operation-status"), "done", |text| text.to_lowercase().contains("succeeded"))
        .await;
    browser.click(&by_id("plan-cancel")).await;
    browser.wait_text(&by_id("lock-holder"), "bob", |text| text.contains("bob")).await;
    browser.wait_text(&by_id("lock-detail"), "told of it", |text| text.contains("Forced ann")).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}
