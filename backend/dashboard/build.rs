//! Builds the dashboard and lays it out to be embedded, so that one `cargo build` makes the whole product.
//!
//! `OUT_DIR/dashboard` then holds `index.html`, and under `assets/` everything that it refers to, with the hash of
//! its contents in its name: so assets never change and may be cached for ever. Each file has its Brotli form
//! beside it, as `<name>.br`.
//!
//! The page is compiled by a nested cargo with a target directory of its own, because the outer one holds the lock
//! of the usual one, and because its flags are not for this target. Every build of the server embeds the same small
//! page: from scratch, a page without link-time optimisation takes as long and is a fifth larger. Trunk serves a page
//! that is built quickly after each edit. `compile_dashboard` in scripts/setup.sh gives the same command earlier.
//!
//! `RINGMASTER_SKIP_DASHBOARD=1` leaves the page out, for tools that only want to look at the code.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hasher},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};
use wasm_bindgen_cli_support::Bindgen;

const SKIP: &str = "RINGMASTER_SKIP_DASHBOARD";
const TARGET: &str = "wasm32-unknown-unknown";
/// The profile in the workspace's Cargo.toml.
const PROFILE: &str = "wasm";
/// Everything that the page is made of, from the root of the workspace.
const SOURCES: &[&str] = &[
    ".cargo/config.toml",
    "Cargo.lock",
    "Cargo.toml",
    "common/Cargo.toml",
    "common/src",
    "frontend/Cargo.toml",
    "frontend/favicon.svg",
    "frontend/index.html",
    "frontend/src",
    "frontend/style",
    "frontend/theme.js",
];
/// Flags and wrappers of the outer build, which are not for the nested one.
const OUTER_ENVIRONMENT: &[&str] = &[
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];
/// What marks the lines of index.html that name a file to be laid out.
const FOR_TRUNK: &str = "data-trunk";
const STYLE_SHEET: &str = r#"rel="css""#;
/// The strongest: it runs once, and every first visit waits for the result.
const BROTLI_QUALITY: u32 = 11;
const BROTLI_WINDOW: u32 = 22;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let workspace = PathBuf::from(required("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let out = PathBuf::from(required("OUT_DIR")?);
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo::rerun-if-env-changed={SKIP}");

    let dashboard = Dashboard::empty(out.join("dashboard"))?;
    if env::var_os(SKIP).is_some_and(|skip| !skip.is_empty() && skip != "0") {
        return dashboard.write("index.html", PLACEHOLDER.as_bytes());
    }
    check_target()?;
    let wasm = compile(&workspace, &target_directory(&out)?)?;
    dashboard.lay_out(&workspace, &wasm)
}

fn required(variable: &str) -> Result<OsString> {
    env::var_os(variable).ok_or_else(|| format!("cargo sets {variable} for build scripts").into())
}

/// A directory beside those of the outer build.
fn target_directory(out: &Path) -> Result<PathBuf> {
    // OUT_DIR is <target>/<profile>/build/<package>/out.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?;
    Ok(target.join("wasm"))
}

/// Compiles the page to WebAssembly and says where it is.
fn compile(workspace: &Path, target_directory: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new(required("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--package", "ringmaster-frontend", "--profile", PROFILE])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target_directory);
    for variable in OUTER_ENVIRONMENT {
        cargo.env_remove(variable);
    }
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!(
            "the dashboard did not compile ({status}); see above, or leave it out with {SKIP}=1"
        )
        .into());
    }
    Ok(target_directory.join(TARGET).join(PROFILE).join("ringmaster-frontend.wasm"))
}

/// Cargo's own message about a missing target speaks of the `core` crate. This one says what to do.
fn check_target() -> Result<()> {
    let output =
        Command::new(required("RUSTC")?).args(["--print", "target-libdir", "--target", TARGET]).output()?;
    let directory = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    if output.status.success() && directory.is_dir() {
        return Ok(());
    }
    Err(format!(
        "the dashboard needs Rust's target {TARGET}: run `rustup target add {TARGET}`, or leave the dashboard \
         out with {SKIP}=1"
    )
    .into())
}

/// The directory that the server embeds.
struct Dashboard(PathBuf);

impl Dashboard {
    fn empty(directory: PathBuf) -> Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(directory.join("assets"))?;
        Ok(Dashboard(directory))
    }

    fn lay_out(&self, workspace: &Path, wasm: &Path) -> Result<()> {
        let mut bindings = Bindgen::new()
            .input_path(wasm)
            .out_name("app")
            .web(true)?
            .typescript(false)
            .remove_name_section(true)
            .remove_producers_section(true)
            .omit_default_module_path(true)
            .generate_output()?;
        let foreign = bindings.snippets().values().flatten().next().is_some();
        if foreign || !bindings.local_modules().is_empty() {
            return Err(
                "a dependency of the dashboard brings JavaScript of its own, which is not laid out".into()
            );
        }
        let frontend = workspace.join("frontend");
        let script = self.asset("app", "js", bindings.js().as_bytes())?;
        let wasm = self.asset("app_bg", "wasm", &bindings.wasm_mut().emit_wasm())?;
        let boot = self.asset("boot", "js", boot(&script, &wasm).as_bytes())?;
        let theme = self.asset("theme", "js", &fs::read(frontend.join("theme.js"))?)?;
        let icon = self.asset("favicon", "svg", &fs::read(frontend.join("favicon.svg"))?)?;
        let index = fs::read_to_string(frontend.join("index.html"))?;
        let style = self.asset("style", "css", style(&frontend, &index)?.as_bytes())?;

        let mut tags = vec![
            (r#"rel="icon""#, format!(r#"<link rel="icon" href="/assets/{icon}">"#)),
            (STYLE_SHEET, format!(r#"<link rel="stylesheet" href="/assets/{style}">"#)),
            (r#"src="theme.js""#, format!(r#"<script src="/assets/{theme}"></script>"#)),
            (
                r#"rel="rust""#,
                format!(
                    r#"<link rel="preload" href="/assets/{wasm}" as="fetch" type="application/wasm" crossorigin>
    <link rel="modulepreload" href="/assets/{script}">
    <script type="module" src="/assets/{boot}"></script>"#
                ),
            ),
        ];
        // The lines that Trunk would replace; those of the style sheets become one.
        let mut page = String::new();
        for line in index.lines() {
            if !line.contains(FOR_TRUNK) {
                page.push_str(line);
                page.push('\n');
            } else if let Some(position) = tags.iter().position(|(mark, _)| line.contains(mark)) {
                page.push_str(&format!("    {}\n", tags.remove(position).1));
            } else if !line.contains(STYLE_SHEET) {
                return Err(format!("frontend/index.html has a line that is not known here: {line}").into());
            }
        }
        if let Some((mark, _)) = tags.first() {
            return Err(format!("frontend/index.html lacks a line with {FOR_TRUNK} and {mark}").into());
        }
        self.write("index.html", page.as_bytes())
    }

    /// Writes an asset under a name that says what is in it, and gives that name.
    fn asset(&self, stem: &str, extension: &str, contents: &[u8]) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        hasher.write(contents);
        let name = format!("{stem}-{:016x}.{extension}", hasher.finish());
        self.write(&format!("assets/{name}"), contents)?;
        Ok(name)
    }

    fn write(&self, path: &str, contents: &[u8]) -> Result<()> {
        fs::write(self.0.join(path), contents)?;
        let compressed = fs::File::create(self.0.join(format!("{path}.br")))?;
        let mut compressor =
            brotli::CompressorWriter::new(compressed, contents.len().max(1), BROTLI_QUALITY, BROTLI_WINDOW);
        compressor.write_all(contents)?;
        compressor.flush()?;
        Ok(())
    }
}

/// The style sheets that index.html names, in its order, as one.
fn style(frontend: &Path, index: &str) -> Result<String> {
    let mut style = String::new();
    for line in index.lines().filter(|line| line.contains(FOR_TRUNK) && line.contains(STYLE_SHEET)) {
        let href = line.split_once(r#"href=""#).and_then(|(_, rest)| rest.split_once('"'));
        let (href, _) = href.ok_or("a style sheet in frontend/index.html has no href")?;
        style.push_str(&fs::read_to_string(frontend.join(href))?);
    }
    Ok(style)
}

/// The script that starts the page. It is a file of its own, because the content security policy
/// forbids inline scripts.
fn boot(glue: &str, wasm: &str) -> String {
    format!(
        r#"import init from "./{glue}";

init({{ module_or_path: new URL("./{wasm}", import.meta.url) }}).catch((error) => {{
  const message = document.getElementById("boot-message");
  if (message) message.textContent = `The dashboard could not start: ${{error}}. Reload the page to try again.`;
}});
"#
    )
}

const PLACEHOLDER: &str = r#"<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>Ringmaster</title>
  </head>
  <body>
    <h1>Ringmaster</h1>
    <p>This binary was built without the dashboard. The API is at <a href="/openapi.json">/openapi.json</a>, and
      <code>ringmaster status</code> shows the cluster in a terminal.</p>
    <p>To have the dashboard, build it without <code>RINGMASTER_SKIP_DASHBOARD</code>.</p>
  </body>
</html>
"#;
