//! The core, by properties of random histories.

mod locks;
mod repeats;
