//! `/plans/814`, as the API names it, opens the drawer over the overview.

use crate::components::desk::use_desk;
use leptos::prelude::*;
use leptos_router::hooks::use_params_map;

#[component]
pub fn PlanPage() -> impl IntoView {
    let desk = use_desk();
    let params = use_params_map();
    Effect::new(move |_| {
        if let Some(id) = params.with(|params| params.get("id")) {
            desk.go(&crate::address::with_parameter("/", "", "plan", Some(&id)), true);
        }
    });
}
