//! One file a page.

pub mod audit;
pub mod consensus;
pub mod events;
pub mod locks;
pub mod missing;
pub mod node;
pub mod nodes;
pub mod operation;
pub mod operations;
pub mod overview;
pub mod settings;
pub mod traffic;
pub mod upstream;
