//! There is nothing at this address.

use crate::components::text::Empty;
use leptos::prelude::*;

#[component]
pub fn Missing() -> impl IntoView {
    view! {
        <div class="page">
            <h1>"There is nothing here"</h1>
            <Empty title="This address names no page of the dashboard">
                <p><a href="/">"Go to the overview"</a> ", or press " <kbd>"Ctrl K"</kbd> " to find what you look for."</p>
            </Empty>
        </div>
    }
}
