//! The dashboard's files: compiled to WebAssembly, compressed and embedded.
//!
//! Names of assets carry a hash of what is in them; each file has its Brotli form beside it, as `<name>.br`.

pub use rust_embed::EmbeddedFile;

#[derive(rust_embed::RustEmbed)]
#[folder = "$OUT_DIR/dashboard"]
struct Assets;

/// The file of that name, if the dashboard has it.
pub fn file(name: &str) -> Option<EmbeddedFile> {
    <Assets as rust_embed::RustEmbed>::get(name)
}
