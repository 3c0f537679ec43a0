//! Ringmaster's dashboard: one page that folds the cluster's history and shows it live.
//!
//! The idea: a node streams its replicated state once, and then every event; the page folds them with the same code
//! as the servers ([`ringmaster_common::view`]). The logic is pure and tested without a browser: sentences
//! ([`cluster_summary`], [`timeline`], [`linkify`]), the choice of the node to stream from ([`peers`]), numbers
//! ([`metrics`], [`mod@format`]). Everything that touches the world is thin: [`stream`], [`api`], [`browser`].
//!
//! What always holds: the page never goes backwards, it shows the source and the age of its state, and it changes
//! nothing except through a plan. It deliberately decides nothing about the cluster: the planner on the server says
//! which changes are allowed, and their consequences.

mod address;
mod api;
mod app;
mod browser;
mod cluster_summary;
mod components;
mod format;
mod leadership;
mod linkify;
mod lock;
mod metrics;
mod operation;
mod pages;
mod peers;
mod quorum;
mod reachability;
mod signal;
mod store;
mod stream;
mod timeline;
mod tone;
mod traffic;
mod upstream_health;

fn main() {
    browser::show_panics();
    leptos::mount::mount_to_body(app::app);
    browser::remove("#boot");
}
