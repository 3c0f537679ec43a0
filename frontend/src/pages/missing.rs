//! There is nothing at this address.

use crate::components::text::empty;
use leptos::prelude::*;

pub fn missing() -> AnyView {
    let ways = view! {
        <p>
            <a href="/">"Go to the overview"</a>
            ", or press "
            <kbd>"Ctrl K"</kbd>
            " to find what you look for."
        </p>
    };
    view! {
        <div class="page">
            <h1>"There is nothing here"</h1>
            {empty("This address names no page of the dashboard", ways.into_any())}
        </div>
    }
    .into_any()
}
