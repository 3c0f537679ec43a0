//! Modules do not import each other in a circle.
//!
//! The rule: among the modules that have one parent, draw an arrow from each to every other whose items it, or a module
//! inside it, names by a path. These arrows never lead back to where they began. A module and those inside it are one
//! piece here: a child may use its parent's types, a parent composes its children, and only arrows between two such
//! pieces are counted. It follows that a reader can take the modules of a parent in an order in which each one builds on
//! what has been read.
//!
//! What counts: `use`, and every path that begins with `crate`, `super`, `self`, a child module or a module that was
//! imported, in macros too. A path to a re-export is an arrow to the file that has the item. What does not count:
//! `mod`, a `pub use` of something that the file itself does not use, the path of a visibility, tests, and methods,
//! which come with their type.

use super::{CRATES, files, folder};
use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Modules that still import each other in a circle, as the path of a file or folder without `.rs`. Nothing may be
/// added; what is solved is taken out.
const CIRCLES: &[&str] = &[];

type Module = Vec<String>;

/// A file's module, and what is found in it.
#[derive(Debug, Default)]
struct Source {
    name: String,
    children: BTreeSet<String>,
    /// By the name that it has here, with whether others can see it.
    imports: BTreeMap<String, (Module, bool)>,
    /// Paths outside of `use`, and names of imports that are used.
    paths: Vec<Module>,
    /// Imports of all that a module has.
    globs: Vec<Module>,
}

/// `backend/x/src/a/b.rs` is `a::b`; nothing for the tests.
fn module_of(name: &str) -> Option<Module> {
    let (_, path) = name.split_once("src/").expect("a source");
    let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if ["lib", "main"].contains(&path.trim_end_matches(".rs")) {
        module.clear();
    }
    let is_test = module.iter().any(|part| part == "tests" || part == "testing");
    (!is_test).then_some(module)
}

impl Source {
    fn read(name: &str, text: &str, module: &Module) -> Source {
        let mut source = Source { name: name.to_owned(), ..Source::default() };
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        source.scan(tokens, module);
        source
    }

    fn scan(&mut self, tokens: TokenStream, module: &Module) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        let mut is_public = false;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    at += 1;
                    if let Some(TokenTree::Group(attribute)) = tokens.get(at) {
                        at += 1;
                        if is_for_tests(&attribute.stream()) {
                            at = end_of_item(&tokens, at);
                        }
                    }
                }
                TokenTree::Ident(word) if word == "pub" => {
                    is_public = true;
                    at += 1;
                    // `pub(in crate::x)`
                    if matches!(tokens.get(at), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
                    {
                        at += 1;
                    }
                    continue;
                }
                TokenTree::Ident(word) if word == "mod" => {
                    if let (Some(TokenTree::Ident(name)), Some(body)) =
                        (tokens.get(at + 1), tokens.get(at + 2))
                    {
                        match body {
                            TokenTree::Group(group) => {
                                let inner = [module.as_slice(), &[name.to_string()]].concat();
                                self.scan(group.stream(), &inner);
                            }
                            _ => drop(self.children.insert(name.to_string())),
                        }
                        at += 2;
                    }
                    at += 1;
                }
                TokenTree::Ident(word) if word == "use" => {
                    let end = end_of_item(&tokens, at);
                    let tree = tokens[at + 1..end].iter().cloned().collect();
                    self.import(tree, &mut Vec::new(), module, is_public);
                    at = end;
                }
                TokenTree::Ident(word) => {
                    let mut path = vec![word.to_string()];
                    at += 1;
                    while let (
                        Some(TokenTree::Punct(first)),
                        Some(TokenTree::Punct(second)),
                        Some(TokenTree::Ident(next)),
                    ) = (tokens.get(at), tokens.get(at + 1), tokens.get(at + 2))
                    {
                        if first.as_char() != ':' || second.as_char() != ':' {
                            break;
                        }
                        path.push(next.to_string());
                        at += 3;
                    }
                    self.paths.push(absolute(&path, module));
                }
                TokenTree::Group(group) => {
                    self.scan(group.stream(), module);
                    at += 1;
                }
                _ => at += 1,
            }
            is_public = false;
        }
    }

    /// A tree of `use`, below the path that led to it.
    fn import(&mut self, tree: TokenStream, path: &mut Module, module: &Module, is_public: bool) {
        let depth = path.len();
        let mut renamed = None;
        let mut tokens = tree.into_iter().peekable();
        let mut is_group = false;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    renamed = tokens.next().map(|name| name.to_string());
                }
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Group(group) => {
                    is_group = true;
                    for part in split_at_commas(group.stream()) {
                        self.import(part, path, module, is_public);
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    is_group = true;
                    self.globs.push(absolute(path, module));
                }
                _ => {}
            }
        }
        if !is_group && path.len() > depth {
            if path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let name = renamed.or_else(|| path.last().cloned()).unwrap_or_default();
            self.imports.insert(name, (absolute(path, module), is_public));
        }
        path.truncate(depth);
    }
}

fn split_at_commas(tokens: TokenStream) -> Vec<TokenStream> {
    let mut parts = vec![Vec::new()];
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ',' => parts.push(Vec::new()),
            token => parts.last_mut().expect("there is one").push(token),
        }
    }
    parts.into_iter().map(|part| part.into_iter().collect()).collect()
}

/// Whether an attribute keeps an item to the tests.
fn is_for_tests(attribute: &TokenStream) -> bool {
    let text = attribute.to_string().replace(' ', "");
    text.starts_with("cfg(test") || text.starts_with("cfg(all(test") || text == "test"
}

/// The position behind the item that begins at `at`.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    // The braces of `use a::{b, c};` are not its end.
    let is_use = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word == "use");
    let is_import = tokens[at..].iter().take(3).any(is_use);
    let is_end = |token: &TokenTree| is_end(token) && !(is_import && matches!(token, TokenTree::Group(_)));
    tokens[at..].iter().position(is_end).map_or(tokens.len(), |end| at + end + 1)
}

/// A path as it is from the root of the crate: `crate` first, where it leads into the crate by its own words.
fn absolute(path: &[String], module: &Module) -> Module {
    let mut base: Option<Module> = None;
    let mut rest = path;
    while let Some((first, others)) = rest.split_first() {
        match (first.as_str(), &mut base) {
            ("crate", _) => base = Some(Vec::new()),
            ("self", None) => base = Some(module.clone()),
            ("super", None) => base = Some(module[..module.len().saturating_sub(1)].to_vec()),
            ("super", Some(base)) => drop(base.pop()),
            _ => break,
        }
        rest = others;
    }
    match base {
        Some(base) => [vec!["crate".to_owned()], base, rest.to_vec()].concat(),
        None => rest.to_vec(),
    }
}

/// The modules of a crate.
struct Crate(BTreeMap<Module, Source>);

impl Crate {
    fn read(folder: &str) -> Crate {
        let sources = files(folder, &["rs"]).into_iter().filter_map(|(name, text)| {
            let module = module_of(&name)?;
            let source = Source::read(&name, &text, &module);
            Some((module, source))
        });
        Crate(sources.collect())
    }

    /// The modules whose items `module` names, with a path by which it does.
    fn arrows(&self, module: &Module) -> BTreeMap<&Module, String> {
        let source = &self.0[module];
        let used: BTreeSet<_> = source.paths.iter().filter_map(|path| path.first()).collect();
        let imported =
            source.imports.iter().filter(|(name, (_, is_public))| !is_public || used.contains(name));
        let mut paths: Vec<Module> = imported.map(|(_, (path, _))| path.clone()).collect();
        paths.extend(source.globs.iter().cloned());
        paths.extend(source.paths.iter().cloned());
        let mut arrows = BTreeMap::new();
        for path in paths {
            if let Some(target) = self.resolve(&path, module, 0)
                && target != module
            {
                arrows.entry(target).or_insert_with(|| path.join("::"));
            }
        }
        arrows
    }

    /// The module that has what a path names, where that is in the crate.
    fn resolve(&self, path: &[String], from: &Module, depth: u32) -> Option<&Module> {
        /// More than any chain of re-exports has; those of the standard library and of macros end in themselves.
        const MAX_DEPTH: u32 = 8;
        let (first, rest) = path.split_first()?;
        if depth > MAX_DEPTH {
            return None;
        }
        if first != "crate" {
            let here = self.0.get(from)?;
            if let Some((import, _)) = here.imports.get(first).filter(|_| !rest.is_empty()) {
                if import.first() == Some(first) && import.len() == 1 {
                    return None;
                }
                return self.resolve(&[import.as_slice(), rest].concat(), from, depth + 1);
            }
            let is_child = here.children.contains(first) && !rest.is_empty();
            return is_child.then(|| {
                let path = [&["crate".to_owned()], from.as_slice(), path].concat();
                self.resolve(&path, from, depth + 1)
            })?;
        }
        let longest = (0..=rest.len()).rev().find(|length| self.0.contains_key(&rest[..*length]))?;
        let (module, source) = self.0.get_key_value(&rest[..longest])?;
        match rest.get(longest).and_then(|item| source.imports.get(item)) {
            Some((import, _)) if module != from => {
                let path = [import.as_slice(), &rest[longest + 1..]].concat();
                self.resolve(&path, module, depth + 1)
            }
            _ => Some(module),
        }
    }
}

/// The two modules with one parent that an arrow joins; nothing where one is inside the other.
fn siblings<'a>(from: &'a Module, to: &'a Module) -> Option<(&'a [String], &'a [String])> {
    let shared = from.iter().zip(to).take_while(|(from, to)| from == to).count();
    Some((from.get(..=shared)?, to.get(..=shared)?))
}

#[test]
fn modules_import_in_no_circle() {
    let mut found = BTreeSet::new();
    let mut text = String::new();
    for folder in CRATES.map(|krate| format!("{}/src", folder(krate))) {
        let krate = Crate::read(&folder);
        let mut graph = DiGraphMap::<&[String], ()>::new();
        let mut reasons = BTreeMap::<_, Vec<String>>::new();
        for (module, source) in &krate.0 {
            for (to, path) in krate.arrows(module) {
                if let Some((from, to)) = siblings(module, to) {
                    graph.add_edge(from, to, ());
                    reasons.entry((from, to)).or_default().push(format!("  {}: {path}", source.name));
                }
            }
        }
        for circle in tarjan_scc(&graph).into_iter().filter(|circle| circle.len() > 1) {
            let names: BTreeSet<_> =
                circle.iter().map(|part| format!("{folder}/{}", part.join("/"))).collect();
            writeln!(text, "\n{names:?}").expect("a string takes it");
            for ((from, to), reasons) in &reasons {
                if circle.contains(from) && circle.contains(to) {
                    let (from, to) = (from.join("::"), to.join("::"));
                    writeln!(text, "{from} → {to}\n{}", reasons.join("\n")).expect("a string takes it");
                }
            }
            found.extend(names);
        }
    }
    let known: BTreeSet<_> = CIRCLES.iter().map(|name| (*name).to_owned()).collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(new.is_empty(), "these modules are in a circle of imports: {new:#?}{text}");
    let solved: Vec<_> = known.difference(&found).collect();
    assert!(solved.is_empty(), "in no circle any more; take them from the list: {solved:#?}");
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let read = |files: &[(&str, &str)]| {
        let sources = files.iter().map(|(name, text)| {
            let module = module_of(&format!("src/{name}")).expect("no test");
            (module.clone(), Source::read(name, text, &module))
        });
        Crate(sources.collect())
    };
    let arrows = |text: &str| -> Vec<String> {
        let krate = read(&[
            ("lib.rs", "mod a; mod b; mod c; pub use c::{Moved, inner::Deep};"),
            ("a.rs", text),
            ("b.rs", "pub mod inner; pub struct B;"),
            ("b/inner.rs", ""),
            ("c.rs", "pub mod inner; pub struct Moved;"),
            ("c/inner.rs", "pub struct Deep;"),
        ]);
        krate.arrows(&vec!["a".to_owned()]).keys().map(|module| module.join("::")).collect()
    };
    for (text, expected) in [
        ("use crate::b::B;", &["b"][..]),
        ("use super::{b::{self, inner::{X, Y as Z}}, c as d};", &["b", "b::inner", "c"]),
        ("fn f() -> crate::b::B { panic!(\"crate::c\") } // crate::c::Moved", &["b"]),
        ("use crate::b; fn f() { vec![b::inner::new()] }", &["b", "b::inner"]),
        ("use crate::{Moved, Deep};", &["c", "c::inner"]),
        ("use crate::b::*;", &["b"]),
        ("fn f(x: std::b::B, b: u8) { b.c(); #[cfg(test)] { crate::b::x() } }", &[]),
        ("#[cfg(test)] use crate::b::B; #[cfg(test)] mod tests { use crate::c::Moved; }", &[]),
        ("pub use crate::b::B; pub(in crate::c) struct A;", &[]),
        ("pub use crate::b::B; pub struct A(B);", &["b"]),
    ] {
        assert_eq!(arrows(text), expected, "{text}");
    }
}
