//! The pages of a node in a real browser, as an operator uses them; one module an area.

mod api_reference;
mod dashboard;
mod sentences;
mod traffic;

fn by_id(id: &str) -> String {
    format!("[data-testid=\"{id}\"]")
}
