//! The state and the planners together: golden scripts that read like a log, and properties of random histories.

mod failover;
mod fold_in_wasm;
mod properties;
mod scripts;
