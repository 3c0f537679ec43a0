//! The page's own address. It names the content, so that every state of the page can be shared, survives a reload,
//! and the browser's back button works.
//!
//! There is one level of pages, so an enum and a match are the whole router.

use leptos::{ev, prelude::*};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ringmaster_common::id::{NodeId, OperationId, PlanId};
use wasm_bindgen::{JsCast, JsValue};

/// A page of the dashboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    Overview,
    Nodes,
    Node(NodeId),
    Consensus,
    Locks,
    Traffic,
    Upstream(String),
    Operations,
    Operation(OperationId),
    Plan(PlanId),
    Events,
    Audit,
    Settings,
    Missing,
}

impl Page {
    /// The name of the page, for the window's title.
    pub fn title(&self) -> String {
        match self {
            Page::Overview | Page::Plan(_) => "Overview".to_owned(),
            Page::Nodes => "Nodes".to_owned(),
            Page::Node(id) => format!("Node {id}"),
            Page::Consensus => "Consensus".to_owned(),
            Page::Locks => "Locks".to_owned(),
            Page::Traffic => "Traffic".to_owned(),
            Page::Upstream(name) => format!("Upstream {name}"),
            Page::Operations => "Operations".to_owned(),
            Page::Operation(id) => format!("Operation {id}"),
            Page::Events => "Events".to_owned(),
            Page::Audit => "Audit".to_owned(),
            Page::Settings => "Settings".to_owned(),
            Page::Missing => "Page not found".to_owned(),
        }
    }

    pub fn of(path: &str) -> Page {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let page = match (parts.next(), parts.next()) {
            (Some("traffic"), None) => Some(Page::Traffic),
            (Some("traffic"), Some("upstreams")) => parts.next().map(|name| Page::Upstream(name.to_owned())),
            (None, _) => Some(Page::Overview),
            (Some("nodes"), None) => Some(Page::Nodes),
            (Some("nodes"), Some(id)) => id.parse().ok().map(Page::Node),
            (Some("consensus"), None) => Some(Page::Consensus),
            (Some("locks"), None) => Some(Page::Locks),
            (Some("operations"), None) => Some(Page::Operations),
            (Some("operations"), Some(id)) => id.parse().ok().map(Page::Operation),
            (Some("plans"), Some(id)) => id.parse().ok().map(Page::Plan),
            (Some("events"), None) => Some(Page::Events),
            (Some("audit"), None) => Some(Page::Audit),
            (Some("settings"), None) => Some(Page::Settings),
            _ => None,
        };
        page.filter(|_| parts.next().is_none()).unwrap_or(Page::Missing)
    }
}

/// The current address.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub path: RwSignal<String>,
    search: RwSignal<String>,
}

impl Address {
    /// Follows the browser's buttons, and the links of the page.
    pub fn follow() -> Self {
        let address = Address { path: RwSignal::new(String::new()), search: RwSignal::new(String::new()) };
        address.read();
        window_event_listener(ev::popstate, move |_| address.read());
        window_event_listener(ev::click, move |event| {
            if let Some(to) = followed_link(&event) {
                event.prevent_default();
                address.go(&to, false);
            }
        });
        address
    }

    fn read(self) {
        let location = window().location();
        let path = location.pathname().unwrap_or_default();
        crate::signal::set(self.search, location.search().unwrap_or_default());
        crate::signal::set(self.path, path);
    }

    /// Goes to a path of this page. `replace` makes no entry for the back button.
    pub fn go(self, to: &str, replace: bool) {
        let Ok(history) = window().history() else { return };
        let went = if replace {
            history.replace_state_with_url(&JsValue::NULL, "", Some(to))
        } else {
            history.push_state_with_url(&JsValue::NULL, "", Some(to))
        };
        if went.is_ok() {
            self.read();
        }
    }

    pub fn parameter(self, key: &str) -> Option<String> {
        self.search.with(|search| parameter(search, key))
    }

    pub fn set_parameter(self, key: &str, value: Option<&str>, replace: bool) {
        let path = self.path.get_untracked();
        let to = self.search.with_untracked(|search| with_parameter(&path, search, key, value));
        self.go(&to, replace);
    }
}

pub fn use_address() -> Address {
    expect_context::<Address>()
}

/// The target of a click, if it is a plain click on a link to a page of this dashboard.
fn followed_link(event: &ev::MouseEvent) -> Option<String> {
    let plain = event.button() == 0
        && !event.default_prevented()
        && !(event.ctrl_key() || event.meta_key() || event.shift_key() || event.alt_key());
    let link = event.target()?.dyn_into::<web_sys::Element>().ok()?.closest("a[href]").ok()??;
    let link = link.dyn_into::<web_sys::HtmlAnchorElement>().ok()?;
    let stays = link.origin() == window().location().origin().ok()?
        && link.rel().is_empty()
        && link.hash().is_empty()
        && link.get_attribute("href").is_some_and(|href| !href.is_empty());
    (plain && stays).then(|| format!("{}{}", link.pathname(), link.search()))
}

fn parameter(search: &str, key: &str) -> Option<String> {
    parameters(search).find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}

fn parameters(search: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(search.trim_start_matches('?').as_bytes())
}

/// The address with one query parameter set or taken away. The others keep their order.
pub fn with_parameter(path: &str, search: &str, key: &str, value: Option<&str>) -> String {
    let others = parameters(search).filter(|(name, _)| name != key);
    let mut query = form_urlencoded::Serializer::new(String::new());
    let query = query.extend_pairs(others).extend_pairs(value.map(|value| (key, value))).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// A text as one segment of a path: percent-encodes all but letters, digits and `-._~`.
pub fn escaped(text: &str) -> String {
    const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, UNRESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_page() {
        for (path, page) in [
            ("/", Page::Overview),
            ("/nodes", Page::Nodes),
            ("/nodes/", Page::Nodes),
            ("/nodes/3", Page::Node(NodeId(3))),
            ("/nodes/x", Page::Missing),
            ("/nodes/3/more", Page::Missing),
            ("/consensus", Page::Consensus),
            ("/locks", Page::Locks),
            ("/traffic", Page::Traffic),
            ("/traffic/upstreams", Page::Missing),
            ("/traffic/upstreams/web", Page::Upstream("web".to_owned())),
            ("/traffic/upstreams/web/more", Page::Missing),
            ("/audit", Page::Audit),
            ("/settings", Page::Settings),
            ("/settings/x", Page::Missing),
            ("/operations/17", Page::Operation(OperationId(17))),
            ("/plans/814", Page::Plan(PlanId(814))),
            ("/plans", Page::Missing),
            ("/events", Page::Events),
            ("/nowhere", Page::Missing),
        ] {
            assert_eq!(Page::of(path), page, "{path}");
        }
    }

    #[test]
    fn one_parameter_changes_and_the_others_stay() {
        for (search, value, expected) in [
            ("", None, "/nodes"),
            ("", Some("4"), "/nodes?plan=4"),
            ("?sort=lag", Some("4"), "/nodes?sort=lag&plan=4"),
            ("?plan=3&sort=lag", Some("4"), "/nodes?sort=lag&plan=4"),
            ("sort=lag&plan=3", None, "/nodes?sort=lag"),
            ("?planet=1", None, "/nodes?planet=1"),
            ("", Some("a b&ü"), "/nodes?plan=a+b%26%C3%BC"),
        ] {
            assert_eq!(with_parameter("/nodes", search, "plan", value), expected);
        }
    }

    #[test]
    fn parameters_are_escaped_and_read_back() {
        for value in ["node 3", "a&b=c", "ü%", ""] {
            let search = format!("?kind=x&words={}", escaped(value));
            assert_eq!(parameter(&search, "words").as_deref(), Some(value));
        }
        assert_eq!(parameter("?words=a+b%zz", "words").as_deref(), Some("a b%zz"));
        assert_eq!(parameter("?words=1", "plan"), None);
    }
}
