//! The composition root.
use crate::config::NodeConfig;
use std::path::Path;

pub async fn run(_: NodeConfig) -> Result<(), String> {
    Err("not there yet".to_owned())
}

pub fn has_identity(data_dir: &Path) -> bool {
    data_dir.join("identity.json").exists()
}

#[cfg(test)]
pub fn give_identity(data_dir: &Path) {
    std::fs::write(data_dir.join("identity.json"), "").unwrap();
}
