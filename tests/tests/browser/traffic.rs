//! The pages of traffic in a real browser, with real processes behind the proxy.

use crate::by_id;
use ringmaster_tests::{
    SOON,
    browser::Browser,
    demo::Demo,
    eventually,
    process::{Process, free_ports},
};
use serde_json::{Value, json};
use std::{fs, process::Command, time::Duration};
use tempfile::TempDir;

/// A process that serves its own name, and the log of what it was asked for.
struct Endpoint {
    id: &'static str,
    addr: String,
    process: Process,
    _files: TempDir,
}

impl Endpoint {
    fn start(id: &'static str, port: u16) -> Endpoint {
        let files = tempfile::tempdir().expect("there is room for two files");
        fs::write(files.path().join("who"), id).expect("a file can be written");
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
        command.current_dir(files.path());
        let process = Process::start(&mut command, &files.path().join("log"));
        Endpoint { id, addr: format!("127.0.0.1:{port}"), process, _files: files }
    }

    fn requests(&self) -> usize {
        self.process.output().matches("GET /who").count()
    }
}

struct Service {
    demo: Demo,
    endpoints: [Endpoint; 3],
}

impl Service {
    /// Three endpoints behind the proxies of a demo, as one upstream with a route.
    async fn start(mut config: Value) -> Service {
        let demo = Demo::start(&["--no-load"]).await;
        demo.wait_complete().await;
        let ports = free_ports::<3>();
        let endpoints = [("e1", ports[0]), ("e2", ports[1]), ("e3", ports[2])];
        let endpoints = endpoints.map(|(id, port)| Endpoint::start(id, port));
        let spec = |endpoint: &Endpoint| json!({ "id": endpoint.id, "addr": endpoint.addr });
        config["endpoints"] = endpoints.iter().map(spec).collect();
        config["health_check"] = json!({ "type": "http", "path": "/", "interval_ms": 200, "timeout_ms": 1000, "rise": 1, "fall": 2 });
        let service = Service { demo, endpoints };
        service.put("/v1/upstreams/web", config).await;
        service.put("/v1/routes/web", json!({ "path_prefix": "/", "upstream": "web" })).await;
        service
    }

    async fn put(&self, path: &str, body: Value) {
        let url = format!("{}{path}", self.demo.url);
        let answer = self.demo.http.put(&url).json(&body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap_or_default());
    }

    /// The endpoint that answers a request through the proxy of a node.
    async fn ask(&self, node: u16) -> Result<String, String> {
        let url = format!("http://127.0.0.1:{}/who", self.demo.base_port + 200 + node);
        let answer = self.demo.http.get(url).send().await.map_err(|error| error.to_string())?;
        answer
            .error_for_status()
            .map_err(|error| error.to_string())?
            .text()
            .await
            .map_err(|error| error.to_string())
    }

    /// Waits until the proxies of all nodes send requests to one alone; then sends some more, and gives how many each
    /// endpoint has got of those.
    async fn only(&self, wanted: &str) -> [usize; 3] {
        for node in 1..=3 {
            eventually(&format!("node {node} to send requests to {wanted}"), SOON, async || {
                let who = self.ask(node).await?;
                if who == wanted { Ok(()) } else { Err(who) }
            })
            .await;
        }
        let before = self.endpoints.each_ref().map(Endpoint::requests);
        for request in 0..30 {
            assert_eq!(self.ask(request % 3 + 1).await.as_deref(), Ok(wanted));
        }
        let after = self.endpoints.each_ref().map(Endpoint::requests);
        std::array::from_fn(|place| after[place] - before[place])
    }
}

async fn apply(browser: &Browser) {
    browser.click(&by_id("plan-apply")).await;
    browser
        .wait_text(&by_id("operation-status"), "done", |text| text.to_lowercase().contains("succeeded"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_fails_over_by_click_and_back() {
    let service = Service::start(
        json!({ "active_standby": { "automatic": false, "grace_ms": 2_000, "hold_down_ms": 0 } }),
    )
    .await;
    assert_eq!(service.only("e1").await, [30, 0, 0]);
    let browser = Browser::open(&format!("{}/traffic/upstreams/web", service.demo.url), 1440, 900).await;
    browser.wait_text(&by_id("primary"), "e1", |text| text == "e1").await;
    browser.wait_text(&by_id("part-e1"), "primary", |text| text.contains("primary")).await;
    browser
        .wait_text("[data-testid=endpoint-row][data-id=e2]", "healthy", |text| text.contains("healthy"))
        .await;

    browser.click(&by_id("primary-e2")).await;
    let summary = browser.wait_text(&by_id("plan-summary"), "there", |text| !text.is_empty()).await;
    assert!(summary.contains("e2"), "{summary}");
    assert_eq!(service.only("e1").await, [30, 0, 0], "a plan does nothing");
    apply(&browser).await;
    browser.wait_text(&by_id("primary"), "e2", |text| text == "e2").await;
    assert_eq!(service.only("e2").await, [0, 30, 0]);

    // The timeline shows each step.
    browser
        .wait_text("main", "about the failover", |text| {
            text.contains("Endpoint e2 is primary of web in epoch")
                && text.contains("fail over upstream web to e2")
        })
        .await;
    browser.click(&by_id("undo")).await;
    browser.wait_text(&by_id("plan-summary"), "about the way back", |text| text.contains("e1")).await;
    apply(&browser).await;
    browser.wait_text(&by_id("primary"), "e1", |text| text == "e1").await;
    assert_eq!(service.only("e1").await, [30, 0, 0]);
    browser.click(&by_id("plan-cancel")).await;
    // And why a request went there, with all that were considered.
    browser.wait_text("[data-testid=decision][data-chosen=e1]", "there", |text| text.contains("/who")).await;
    browser.click("[data-testid=decision][data-chosen=e1] summary").await;
    browser.wait_text("details[open] [data-testid=candidate]", "considered", |text| text.contains('e')).await;

    // Armed by a click, the cluster fails over automatically, and the page counts down to it.
    browser.click(&by_id("automatic")).await;
    let Service { demo, endpoints: [first, ..] } = &service;
    first.process.signal(nix::sys::signal::Signal::SIGKILL);
    browser.wait_text(&by_id("countdown"), "running", |text| text.contains("Automatic failover in")).await;
    browser.wait_text(&by_id("primary"), "another one", |text| text == "e2" || text == "e3").await;
    browser
        .wait_text("[data-testid=endpoint-row][data-id=e1]", "unhealthy", |text| text.contains("unhealthy"))
        .await;
    for node in 1..=3 {
        let seen = format!("[data-testid=seen-e1-{node}][data-verdict=unhealthy]");
        eventually("every node to see it", SOON, async || browser.text(&seen).await).await;
    }
    assert!(demo.cluster(1).await.is_ok());
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_drained_by_click_and_a_route_is_made_by_form() {
    let service = Service::start(json!({})).await;
    let browser = Browser::open(&format!("{}/traffic", service.demo.url), 1440, 900).await;
    let row = "[data-testid=upstream-row][data-name=web]";
    browser.wait_text(row, "complete", |text| text.contains("3/3")).await;

    // Its requests are seen, summed up over the nodes.
    let asked = async {
        for request in 0.. {
            let _ = service.ask(request % 3 + 1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let rate = by_id("traffic-rate");
    let seen = browser.wait_text(&rate, "more than nothing", |text| {
        text.split_whitespace()
            .next()
            .and_then(|number| number.parse::<f64>().ok())
            .is_some_and(|rate| rate > 5.0)
    });
    tokio::select! {
        () = asked => {}
        _ = seen => {}
    }

    browser.click(&format!("{row} a")).await;
    browser.click(&by_id("drain-e1")).await;
    browser.wait_text(&by_id("impact-taking-after"), "two", |text| text.contains('2')).await;
    apply(&browser).await;
    browser.click(&by_id("plan-cancel")).await;
    browser.wait_text(&by_id("part-e1"), "draining", |text| text.contains("draining")).await;
    let before = service.endpoints[0].requests();
    for request in 0..30 {
        let who = service.ask(request % 3 + 1).await.expect("the others answer");
        assert_ne!(who, "e1");
    }
    assert_eq!(service.endpoints[0].requests(), before, "it gets nothing new");

    // A form: what is refused stands beside its field, and what is right is there at once.
    browser.page.goto(format!("{}/traffic?new=route", service.demo.url)).await.expect("the page opens");
    let fill = async |id: &str, text: &str| {
        browser.click(&by_id(id)).await;
        let selected: bool = browser
            .eval(&format!("(() => {{ document.querySelector('{}').select(); return true; }})()", by_id(id)))
            .await;
        assert!(selected);
        let field = browser.page.find_element(by_id(id)).await.expect("it was there a moment ago");
        field.type_str(text).await.expect("a field takes text");
    };
    fill("field-name", "api").await;
    fill("field-upstream", "web").await;
    fill("field-path_prefix", "api").await;
    browser.click(&by_id("form-save")).await;
    browser
        .wait_text("label:has([data-testid=field-path_prefix])", "refused", |text| {
            text.contains("begins with /")
        })
        .await;
    fill("field-path_prefix", "/api").await;
    browser.click(&by_id("form-save")).await;
    browser.wait_text("[data-testid=route-row][data-name=api]", "there", |text| text.contains("/api")).await;
    // The other one, which matches everything, gives way to it.
    browser.wait_text("[data-testid=route-row][data-name=web]", "marked", |text| text.contains("api")).await;
    // The table of routes sorts and filters as the others do.
    let names =
        "[...document.querySelectorAll('[data-testid=route-row]')].map(row => row.dataset.name).join()";
    for (query, expected) in [
        ("", "api,web"),
        ("?route-sort=match&route-order=desc", "api,web"),
        ("?route-sort=match", "web,api"),
        ("?words=/api", "api"),
        ("?words=nothing", ""),
    ] {
        browser.page.goto(format!("{}/traffic{query}", service.demo.url)).await.expect("the page opens");
        browser.wait_text(&by_id("route-count"), "known", |text| text.ends_with("of 2 routes")).await;
        assert_eq!(browser.eval::<String>(names).await, expected, "{query}");
    }
    let others: Vec<_> = browser
        .complaints()
        .into_iter()
        .filter(|complaint| !(complaint.starts_with("log: ") && complaint.contains("/v1/routes/")))
        .collect();
    assert_eq!(others, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_another_operator_is_not_overwritten_unseen() {
    let service = Service::start(json!({ "active_standby": { "automatic": false } })).await;
    let path = "/v1/upstreams/web";
    let configured = async || -> Value {
        let url = format!("{}{path}", service.demo.url);
        let answer = service.demo.http.get(url).send().await.expect("an answer");
        answer.json().await.expect("it is JSON")
    };
    let browser =
        Browser::open(&format!("{}/traffic/upstreams/web?edit=", service.demo.url), 1440, 900).await;
    let checked_at = by_id("field-health_check.path");
    let value = |id: &str| format!("document.querySelector({:?})?.value ?? ''", by_id(id));
    let wait_value = async |id: &str, wanted: &str| {
        eventually(&format!("{id} to be {wanted}"), SOON, async || {
            let shown: String = browser.eval(&value(id)).await;
            if shown == wanted { Ok(()) } else { Err(shown) }
        })
        .await;
    };
    let choose = async |policy: &str| {
        let script = format!(
            "(() => {{ const e = document.querySelector({:?}); e.value = {policy:?}; \
             e.dispatchEvent(new Event('input', {{ bubbles: true }})); return true; }})()",
            by_id("field-policy")
        );
        assert!(browser.eval::<bool>(&script).await);
    };
    wait_value("field-health_check.path", "/").await;
    choose("consistent_hash").await;

    let mut theirs = configured().await;
    theirs["health_check"]["path"] = "/who".into();
    service.put(path, theirs).await;
    browser
        .wait_text(&by_id("form-conflict"), "about the other", |text| {
            text.contains("has changed it meanwhile")
        })
        .await;
    browser.click(&by_id("form-save")).await;
    browser.wait_text(&by_id("refusal"), "there", |text| text.contains("precondition_failed")).await;
    browser.wait_text(&by_id("form-conflict"), "there still", |text| text.contains("Load theirs")).await;
    let now = configured().await;
    assert_eq!((&now["policy"], &now["health_check"]["path"]), (&json!("round_robin"), &json!("/who")));

    browser.click(&by_id("form-theirs")).await;
    wait_value("field-health_check.path", "/who").await;
    wait_value("field-policy", "round_robin").await;
    assert!(browser.text(&by_id("form-conflict")).await.is_err(), "nothing is in conflict any more");
    choose("least_connections").await;
    browser.click(&by_id("form-save")).await;
    eventually("the form to close", SOON, async || match browser.text(&checked_at).await {
        Ok(text) => Err(text),
        Err(_) => Ok(()),
    })
    .await;
    let now = configured().await;
    assert_eq!((&now["policy"], &now["health_check"]["path"]), (&json!("least_connections"), &json!("/who")));

    // The switch is where the cluster says, not where it was clicked to: this change names an older version.
    let is_on =
        async || -> bool { browser.eval("document.querySelector('[data-testid=automatic]').checked").await };
    let stale = "(() => { window.asIs = window.fetch; window.fetch = (url, init) => { \
        if (init?.method === 'PUT') init.headers.set('If-Match', '\"1\"'); return window.asIs(url, init); }; \
        return true; })()";
    assert!(browser.eval::<bool>(stale).await);
    browser.click(&by_id("automatic")).await;
    browser.wait_text(&by_id("refusal"), "there", |text| text.contains("precondition_failed")).await;
    assert!(!is_on().await, "it was refused");
    assert!(browser.eval::<bool>("(() => { window.fetch = window.asIs; return true; })()").await);
    browser.click(&by_id("automatic")).await;
    eventually(
        "the switch to be on",
        SOON,
        async || if is_on().await { Ok(()) } else { Err("it is off".to_owned()) },
    )
    .await;
    assert_eq!(configured().await["active_standby"]["automatic"], true);

    // An old link shows what is wrong, and the way back.
    browser.page.goto(format!("{}/traffic/web", service.demo.url)).await.expect("the page opens");
    browser
        .wait_text("main", "about the way", |text| text.contains("There is an upstream of this name"))
        .await;
    browser.page.goto(format!("{}/traffic/upstreams/gone", service.demo.url)).await.expect("the page opens");
    browser.wait_text(&by_id("unknown-upstream"), "its name", |text| text == "gone").await;
    let others: Vec<_> =
        browser.complaints().into_iter().filter(|complaint| !complaint.contains("412")).collect();
    assert_eq!(others, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_checks_is_shown_as_its_requests_fare() {
    let service = Service::start(json!({})).await;
    let [port] = free_ports::<1>();
    let dead = json!({ "endpoints": [{ "id": "d1", "addr": format!("127.0.0.1:{port}") }] });
    service.put("/v1/upstreams/dead", dead).await;
    service.put("/v1/routes/dead", json!({ "path_prefix": "/dead", "upstream": "dead" })).await;
    let browser = Browser::open(&format!("{}/traffic", service.demo.url), 1440, 900).await;
    let asked = async {
        let url = format!("http://127.0.0.1:{}/dead", service.demo.base_port + 201);
        loop {
            let _ = service.demo.http.get(&url).send().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let seen = async {
        browser.wait_text("[data-testid=taking-dead] .bad", "red", |text| text.contains("1/1")).await;
        browser.wait_text(&by_id("problems-count"), "one", |text| text == "1").await;
        browser.page.goto(format!("{}/traffic/upstreams/dead", service.demo.url)).await.expect("it opens");
        browser.wait_text("[data-testid=upstream-status] .bad", "red", |text| text.contains("1 of 1")).await;
        // It was sent there, in vain: the upstream has an endpoint.
        browser
            .wait_text("[data-testid=decision][data-chosen=d1]", "there", |text| text.contains("502"))
            .await;
    };
    tokio::select! {
        () = asked => {}
        () = seen => {}
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}
