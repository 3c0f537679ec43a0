//! There is nothing at this address: what it may have been meant for, and a way back.

use crate::{
    address::{Page, use_address},
    components::{live::live, text::empty},
    store::use_store,
};
use leptos::prelude::*;

pub fn missing() -> AnyView {
    let store = use_store();
    let path = use_address().path.get_untracked();
    let above = above(&path);
    // A typed address often names an object correctly and its page wrongly.
    let named = path.rsplit('/').next().unwrap_or_default().to_owned();
    let meant = live(move || {
        store.with_view(|view| {
            let upstream = view.upstreams.get(&named)?;
            let href = format!("/traffic/upstreams/{}", upstream.name);
            Some(
                view! { <p>"There is an upstream of this name: " <a href=href>{named.clone()}</a> "."</p> }
                    .into_any(),
            )
        })
    });
    let back = (above != "/").then(|| {
        view! { <a href=above.clone() data-testid="way-back">"Go back to " {above.clone()}</a> ", " }
            .into_any()
    });
    let ways = view! {
        <p>"No page of the dashboard is at " <code>{path}</code> "."</p>
        {meant}
        <p>
            {back} <a href="/">"go to the overview"</a> ", or press " <kbd>"Ctrl K"</kbd>
            " to search."
        </p>
    };
    view! {
        <div class="page">
            <h1>"Page not found"</h1>
            {empty("This address names no page", ways.into_any())}
        </div>
    }
    .into_any()
}

/// The nearest page above.
fn above(path: &str) -> String {
    let mut path = path.trim_end_matches('/');
    while let Some((above, _)) = path.rsplit_once('/') {
        path = above;
        if Page::of(path) != Page::Missing && !path.is_empty() {
            return path.to_owned();
        }
    }
    "/".to_owned()
}

#[cfg(test)]
mod tests {
    use super::above;

    #[test]
    fn the_way_back_leads_to_a_page() {
        for (path, to) in [
            ("/traffic/web", "/traffic"),
            ("/traffic/upstreams/web/more/", "/traffic/upstreams/web"),
            ("/nodes/x", "/nodes"),
            ("/nowhere/at/all", "/"),
            ("/nowhere", "/"),
        ] {
            assert_eq!(above(path), to, "{path}");
        }
    }
}
