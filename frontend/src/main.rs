//! Ringmaster's dashboard: one page that folds the cluster's history and shows it live.
//!
//! The idea: a node streams its replicated state once, and then every event; the page folds them
//! with the same code that the servers prove correct ([`ringmaster_common::view`]). Everything that
//! thinks is pure and tested without a browser: what to say ([`situation`], [`timeline`], [`prose`]),
//! whom to stream from ([`peers`]), how to show figures ([`figures`], [`mod@format`]). Everything that
//! touches the world is thin: [`stream`], [`api`], [`browser`].
//!
//! What always holds: the page never goes backwards, it says where what it shows comes from and how
//! old it is, and it changes nothing except through a plan. It deliberately decides nothing about the
//! cluster: what may be done, and with which consequences, the planner on the server says.

mod address;
mod api;
mod app;
mod browser;
mod components;
mod figures;
mod format;
mod json;
mod lock;
mod operation;
mod pages;
mod peers;
mod prose;
mod quorum;
mod situation;
mod store;
mod stream;
mod timeline;
mod traffic;
mod var;
mod who_sees_whom;

fn main() {
    browser::show_panics();
    leptos::mount::mount_to_body(app::app);
    browser::remove("#boot");
}
