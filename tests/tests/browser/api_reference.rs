//! The page that shows the API's documentation.

use ringmaster_tests::{SOON, browser::Browser, cluster::Cluster, eventually};
use serde_json::Value;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_calm_and_complete_in_light_and_dark() {
    let cluster = Cluster::start(1).await;
    let document: Value = cluster.get(1, "/openapi.json").await.expect("the document");
    let browser = Browser::open(&format!("{}/docs", cluster.node(1).url), 1280, 900).await;
    browser.wait_text("h1", "the title", |text| text == "Ringmaster API").await;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for operation in operations.as_object().expect("operations").values() {
            let id = operation["operationId"].as_str().expect("a name");
            let heading = browser.text(&format!("#{id} h3")).await.expect("an article");
            assert!(heading.contains(path), "{heading}");
        }
    }
    let dead: Vec<String> = browser
        .eval(
            "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href'))\
             .filter(href => !document.getElementById(href.slice(1)))",
        )
        .await;
    assert!(dead.is_empty(), "links that lead nowhere: {dead:?}");
    let mut backgrounds = BTreeSet::new();
    for dark in [false, true] {
        browser.dark(dark).await;
        backgrounds.insert(browser.eval::<String>("getComputedStyle(document.body).backgroundColor").await);
        browser.screenshot(&cluster.dir().join(format!("docs-{dark}.png"))).await;
    }
    assert_eq!(backgrounds.len(), 2, "light and dark differ: {backgrounds:?}");
    for width in [390, 1280] {
        browser.resize(width, 900).await;
        eventually("the page to fit", SOON, async || {
            let over: bool = browser.eval("document.documentElement.scrollWidth > innerWidth").await;
            if over { Err(format!("it is wider than {width}")) } else { Ok(()) }
        })
        .await;
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.close().await;
}
