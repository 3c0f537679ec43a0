//! The core, by golden scripts that read like a log, and by properties of random histories.

mod fold_in_wasm;
mod locks;
mod properties;
mod scripts;
