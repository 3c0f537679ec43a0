//! Builds the dashboard and lays it out to be embedded, so that one `cargo build` makes the whole
//! product.
//!
//! `OUT_DIR/dashboard` then holds `index.html`, and under `assets/` everything that it refers to,
//! with the hash of its contents in its name: so assets never change and may be cached for ever. Each
//! file has its Brotli form beside it, as `<name>.br`.
//!
//! The page is compiled by a nested cargo with a target directory of its own, because the outer one
//! holds the lock of the usual one, and because its flags are not for this target.
//!
//! `RINGMASTER_SKIP_DASHBOARD=1` leaves the page out, for tools that only want to look at the code.

use std::{
    convert::Infallible,
    env,
    error::Error,
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hasher},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};
use walrus::Module;
use wasm_bindgen_cli_support::Bindgen;
use wasm_encoder::reencode::{self, Reencode};
use wasmparser::{Parser, Payload, TypeRef};

const SKIP: &str = "RINGMASTER_SKIP_DASHBOARD";
const TARGET: &str = "wasm32-unknown-unknown";
/// Everything that the page is made of, from the root of the workspace.
const SOURCES: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "common/Cargo.toml",
    "common/src",
    "frontend/Cargo.toml",
    "frontend/favicon.svg",
    "frontend/index.html",
    "frontend/src",
    "frontend/style.css",
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
/// The strongest there is: it runs once, and every first visit waits for the result.
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
    let wasm = compile(&workspace, &target_directory(&out)?)?;
    dashboard.lay_out(&workspace.join("frontend"), &wasm)
}

fn required(variable: &str) -> Result<OsString> {
    env::var_os(variable).ok_or_else(|| format!("cargo sets {variable} for build scripts").into())
}

/// A directory beside those of the outer build, wherever that one was told to build.
fn target_directory(out: &Path) -> Result<PathBuf> {
    // OUT_DIR is <target>/<profile>/build/<package>/out.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?;
    Ok(target.join("wasm"))
}

/// Compiles the page to WebAssembly and says where it is.
fn compile(workspace: &Path, target_directory: &Path) -> Result<PathBuf> {
    check_target()?;
    let mut cargo = Command::new(required("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--package", "ringmaster-frontend", "--profile", "wasm"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target_directory);
    for variable in OUTER_ENVIRONMENT {
        cargo.env_remove(variable);
    }
    // Views of one type instead of one type for each view: a tenth less to load.
    cargo.env("RUSTFLAGS", "--cfg erase_components");
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!(
            "the dashboard did not compile ({status}); see above, or leave it out with {SKIP}=1"
        )
        .into());
    }
    Ok(target_directory.join(TARGET).join("wasm").join("ringmaster-frontend.wasm"))
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

    fn lay_out(&self, frontend: &Path, wasm: &Path) -> Result<()> {
        let mut bindings = Bindgen::new()
            .input_path(wasm)
            .out_name("app")
            .web(true)?
            .typescript(false)
            .remove_name_section(true)
            .remove_producers_section(true)
            .omit_default_module_path(true)
            .generate_output()?;
        prune(bindings.wasm_mut());
        let foreign = bindings.snippets().values().flatten().next().is_some();
        if foreign || !bindings.local_modules().is_empty() {
            return Err(
                "a dependency of the dashboard brings JavaScript of its own, which is not laid out".into()
            );
        }
        let script = without_comments(bindings.js());
        let script = shorten_imports(bindings.wasm_mut(), own_part(&script)?)?;
        let wasm = self.asset("app_bg", "wasm", &by_likeness(&bindings.wasm_mut().emit_wasm())?)?;
        let glue = self.asset("app", "js", script.as_bytes())?;
        let boot = self.asset("boot", "js", boot(&glue, &wasm).as_bytes())?;
        let style =
            self.asset("style", "css", compact(&fs::read_to_string(frontend.join("style.css"))?).as_bytes())?;
        let theme = self.asset("theme", "js", &fs::read(frontend.join("theme.js"))?)?;
        let icon = self.asset("favicon", "svg", &fs::read(frontend.join("favicon.svg"))?)?;

        // What Trunk would replace, and with what.
        let replacements = [
            (
                r#"<link data-trunk rel="icon" href="favicon.svg">"#,
                format!(r#"<link rel="icon" href="/assets/{icon}">"#),
            ),
            (
                r#"<link data-trunk rel="css" href="style.css">"#,
                format!(r#"<link rel="stylesheet" href="/assets/{style}">"#),
            ),
            (
                r#"<script data-trunk src="theme.js"></script>"#,
                format!(r#"<script src="/assets/{theme}"></script>"#),
            ),
            (
                r#"<link data-trunk rel="rust" data-wasm-opt="0"/>"#,
                format!(
                    r#"<link rel="preload" href="/assets/{wasm}" as="fetch" type="application/wasm" crossorigin>
    <link rel="modulepreload" href="/assets/{glue}">
    <script type="module" src="/assets/{boot}"></script>"#
                ),
            ),
        ];
        let mut page = fs::read_to_string(frontend.join("index.html"))?;
        for (line, replacement) in replacements {
            if !page.contains(line) {
                return Err(format!("frontend/index.html lacks the line {line}").into());
            }
            page = page.replace(line, &replacement);
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

/// What the classes that Leptos' server functions bring along export. There are no such functions here,
/// and nobody calls them; but an export keeps all alive that it calls.
const UNCALLED: &str = "intounderlying";

fn prune(module: &mut Module) {
    let is_uncalled = |export: &&walrus::Export| export.name.contains(UNCALLED);
    let uncalled: Vec<_> = module.exports.iter().filter(is_uncalled).map(walrus::Export::id).collect();
    for export in uncalled {
        module.exports.delete(export);
    }
    walrus::passes::gc::run(module);
}

/// The script without those classes, which stand at its head.
fn own_part(script: &str) -> Result<&str> {
    let start = script.find("function __wbg_get_imports()").ok_or("the imports of the page are not found")?;
    Ok(&script[start..])
}

/// Gives every import a name of two or three letters, in the module and in the script. The names that
/// wasm-bindgen makes have sixteen digits of a hash each, which do not compress.
fn shorten_imports(module: &mut Module, script: &str) -> Result<String> {
    let mut script = script.to_owned();
    for (index, import) in module.imports.iter_mut().enumerate() {
        let (long, short) = (format!("\n{}:", import.name), format!("i{index}"));
        if !script.contains(&long) {
            return Err(format!("the script of the page does not define {}", import.name).into());
        }
        script = script.replacen(&long, &format!("\n{short}:"), 1);
        import.name = short;
    }
    Ok(script)
}

/// The module with its functions in another order: those of one signature together, and those that begin alike
/// side by side. What the compressor has seen just now costs it least, so a fortieth less is loaded.
fn by_likeness(wasm: &[u8]) -> Result<Vec<u8>> {
    let (mut imported, mut signatures, mut bodies) = (0, Vec::new(), Vec::new());
    for part in Parser::new(0).parse_all(wasm) {
        match part? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    imported += usize::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::FunctionSection(functions) => {
                signatures = functions.into_iter().collect::<std::result::Result<_, _>>()?;
            }
            Payload::CodeSectionEntry(body) => bodies.push(body.as_bytes()),
            _ => {}
        }
    }
    let mut order: Vec<usize> = (0..bodies.len()).collect();
    order.sort_by_key(|&function| (signatures[function], bodies[function]));
    let mut indexes: Vec<u32> = (0..u32::try_from(imported + bodies.len())?).collect();
    for (place, &function) in order.iter().enumerate() {
        indexes[imported + function] = u32::try_from(imported + place)?;
    }
    let mut module = wasm_encoder::Module::new();
    Reordering { order, indexes }.parse_core_module(&mut module, Parser::new(0), wasm)?;
    Ok(module.finish())
}

struct Reordering {
    /// Which function goes where; imported ones are not counted.
    order: Vec<usize>,
    /// What each function is called by then.
    indexes: Vec<u32>,
}

type Reordered<T = ()> = std::result::Result<T, reencode::Error<Infallible>>;

impl Reencode for Reordering {
    type Error = Infallible;

    fn function_index(&mut self, index: u32) -> Reordered<u32> {
        Ok(self.indexes[index as usize])
    }

    fn parse_function_section(
        &mut self,
        functions: &mut wasm_encoder::FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Reordered {
        let signatures = section.into_iter().collect::<std::result::Result<Vec<u32>, _>>()?;
        for &function in &self.order {
            functions.function(signatures[function]);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut wasm_encoder::CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Reordered {
        let bodies = section.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
        for function in self.order.clone() {
            self.parse_function_body(code, bodies[function].clone())?;
        }
        Ok(())
    }
}

/// A style sheet without comments, indentation and most spaces. None of these may occur inside a string
/// of it.
fn compact(style: &str) -> String {
    let mut pieces = style.split("/*");
    let mut code = pieces.next().unwrap_or_default().to_owned();
    code.extend(pieces.filter_map(|piece| piece.split_once("*/")).map(|(_, code)| code));
    let code = code.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    let spaced = [
        (" { ", "{"),
        (" {\n", "{"),
        ("; }", "}"),
        (";\n}", "}"),
        (";\n", ";"),
        ("; ", ";"),
        (": ", ":"),
        (", ", ","),
        ("}\n", "}"),
    ];
    spaced.iter().fold(code, |code, (long, short)| code.replace(long, short))
}

/// A script without indentation, and without the lines that hold a comment and nothing else.
fn without_comments(script: &str) -> String {
    let mut in_comment = false;
    let is_code = |line: &&str| {
        let begins = line.starts_with("/*");
        let is_comment = in_comment || begins || line.starts_with("//");
        in_comment = (in_comment || begins) && !line.ends_with("*/");
        !is_comment && !line.is_empty()
    };
    script.lines().map(str::trim).filter(is_code).collect::<Vec<_>>().join("\n")
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
