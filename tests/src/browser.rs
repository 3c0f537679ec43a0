//! A real browser, headless.
//!
//! Whatever the page writes to the console as an error, each exception, and each request that failed
//! is remembered, so that a test can say there was none.

use crate::{SOON, eventually};
use chromiumoxide::{
    Page,
    browser::{Browser as Chromium, BrowserConfig},
    cdp::{
        browser_protocol::{
            emulation::{MediaFeature, SetDeviceMetricsOverrideParams},
            log::EventEntryAdded,
            page::CaptureScreenshotFormat,
        },
        js_protocol::runtime::{ConsoleApiCalledType, EventConsoleApiCalled, EventExceptionThrown},
    },
    page::ScreenshotParams,
};
use futures::StreamExt;
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use tempfile::TempDir;

const ARGUMENTS: &[&str] = &[
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser of its own for a test, with one page.
#[derive(Debug)]
pub struct Browser {
    pub page: Page,
    chromium: Chromium,
    complaints: Arc<Mutex<Vec<String>>>,
    _profile: TempDir,
}

impl Browser {
    pub async fn open(url: &str, width: u32, height: u32) -> Browser {
        let profile = tempfile::tempdir().expect("there is room for a profile");
        let config = BrowserConfig::builder()
            .no_sandbox()
            .new_headless_mode()
            .window_size(width, height)
            .viewport(None)
            .user_data_dir(profile.path())
            .args(ARGUMENTS.iter().copied())
            .build()
            .expect("Chromium is installed; scripts/test does that");
        let (chromium, mut handler) = Chromium::launch(config).await.expect("Chromium starts");
        tokio::spawn(async move { while handler.next().await.is_some() {} });
        let page = chromium.new_page("about:blank").await.expect("a page opens");
        let browser = Browser { page, chromium, complaints: Arc::default(), _profile: profile };
        browser.listen().await;
        browser.resize(width, height).await;
        browser.page.goto(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        browser
    }

    async fn listen(&self) {
        self.page.enable_log().await.expect("the log can be listened to");
        let mut console = self.page.event_listener::<EventConsoleApiCalled>().await.expect("events come");
        let mut exceptions = self.page.event_listener::<EventExceptionThrown>().await.expect("events come");
        let mut entries = self.page.event_listener::<EventEntryAdded>().await.expect("events come");
        let complaints = self.complaints.clone();
        tokio::spawn(async move {
            loop {
                let complaint = tokio::select! {
                    Some(call) = console.next() => match call.r#type {
                        ConsoleApiCalledType::Error | ConsoleApiCalledType::Assert => {
                            format!("console: {:?}", call.args)
                        }
                        _ => continue,
                    },
                    Some(thrown) = exceptions.next() => format!("exception: {:?}", thrown.exception_details),
                    Some(added) = entries.next() => match added.entry.level.as_ref() {
                        "error" => format!("log: {} {:?}", added.entry.text, added.entry.url),
                        _ => continue,
                    },
                    else => return,
                };
                complaints.lock().unwrap_or_else(PoisonError::into_inner).push(complaint);
            }
        });
    }

    pub async fn resize(&self, width: u32, height: u32) {
        let size = SetDeviceMetricsOverrideParams::new(i64::from(width), i64::from(height), 1.0, width < 600);
        self.page.execute(size).await.expect("the page can be resized");
    }

    pub async fn dark(&self, dark: bool) {
        let scheme = MediaFeature::new("prefers-color-scheme", if dark { "dark" } else { "light" });
        self.page.emulate_media_features(vec![scheme]).await.expect("the scheme can be set");
    }

    /// The text of the first element that fits, or why there is none.
    pub async fn text(&self, selector: &str) -> Result<String, String> {
        let script = format!(
            "(() => {{ const e = document.querySelector({selector:?}); return e ? e.innerText : null; }})()"
        );
        let value = self.page.evaluate(script).await.map_err(|error| error.to_string())?;
        value
            .into_value::<Option<String>>()
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("there is no {selector}"))
    }

    pub async fn eval<T: serde::de::DeserializeOwned>(&self, script: &str) -> T {
        let value = self.page.evaluate(script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        value.into_value().unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until the text of an element is as wanted.
    pub async fn wait_text(&self, selector: &str, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(&format!("{selector} to be {what}"), SOON, async || {
            let text = self.text(selector).await?;
            if wanted(&text) { Ok(text) } else { Err(text) }
        })
        .await
    }

    /// Clicks as a user would: it waits until the element is there and enabled, and uses the mouse.
    pub async fn click(&self, selector: &str) {
        eventually(&format!("a click on {selector}"), SOON, async || {
            let ready = format!(
                "(() => {{ const e = document.querySelector({selector:?}); \
                 return !!e && !e.disabled && e.getAttribute('aria-disabled') !== 'true'; }})()"
            );
            if !self.eval::<bool>(&ready).await {
                return Err("it is not there, or disabled".to_owned());
            }
            let element = self.page.find_element(selector).await.map_err(|error| error.to_string())?;
            element.click().await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    pub async fn screenshot(&self, path: &Path) {
        let params = ScreenshotParams::builder().format(CaptureScreenshotFormat::Png).build();
        self.page.save_screenshot(params, path).await.expect("a screenshot can be saved");
    }

    /// All that the browser complained about so far.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub async fn close(mut self) {
        let _ = self.chromium.close().await;
        let _ = self.chromium.wait().await;
    }
}
