//! The core, by golden scripts that read like a log, and by properties of random histories.

mod locks;
mod properties;
mod scripts;
