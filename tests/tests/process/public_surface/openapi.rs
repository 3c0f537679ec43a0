//! An OpenAPI document in short: a line for each operation, parameter, body, answer and field; no prose, no examples.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Paths with their operations, then schemas with their fields, each in the order of its name.
pub fn outline(document: &Value) -> String {
    let mut text = String::new();
    let operations = || {
        let paths = sorted(&document["paths"]).into_iter();
        paths.flat_map(|(path, item)| {
            sorted(item).into_iter().map(move |(method, operation)| (path, method, operation))
        })
    };
    let shared = operations().map(|(_, _, operation)| problems(operation));
    let shared = shared.reduce(|left, right| &left & &right).unwrap_or_default();
    line(&mut text, format_args!("every operation"));
    append_problems(&shared, &mut text);
    for (path, method, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap_or("-");
        line(&mut text, format_args!("{} {path} {id}", method.to_uppercase()));
        append_operation(operation, &shared, &mut text);
    }
    for (name, schema) in sorted(&document["components"]["schemas"]) {
        append_schema(name, schema, &mut text);
    }
    text
}

/// A line for each variant of an enum that has its name in `type`.
pub fn variants(document: &Value, union: &str) -> String {
    let variants = document["components"]["schemas"][union]["oneOf"].as_array().expect("variants").iter();
    let variants = variants.map(|variant| {
        let reference = variant["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        reference.and_then(|pointer| document.pointer(pointer)).expect("a named variant")
    });
    let mut lines: Vec<_> = variants.map(|variant| format!("{}\n", tagged(variant))).collect();
    lines.sort();
    lines.concat()
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes all that is written");
}

fn sorted(object: &Value) -> Vec<(&str, &Value)> {
    let mut entries: Vec<_> =
        object.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}

/// Every status with a code of a problem.
type Problems<'a> = BTreeSet<(&'a str, &'a str)>;

const PROBLEM_JSON: &str = "application/problem+json";

fn problems(operation: &Value) -> Problems<'_> {
    let mut problems = Problems::new();
    for (status, response) in sorted(&operation["responses"]) {
        let codes = sorted(&response["content"][PROBLEM_JSON]["examples"]);
        problems.extend(codes.into_iter().map(|(code, _)| (status, code)));
    }
    problems
}

fn append_problems(problems: &Problems<'_>, text: &mut String) {
    let mut by_status = BTreeMap::<&str, Vec<&str>>::new();
    problems.iter().for_each(|(status, code)| by_status.entry(status).or_default().push(code));
    for (status, codes) in by_status {
        line(text, format_args!("  {status} {}", codes.join(" ")));
    }
}

/// With those of its problems that not every operation has.
fn append_operation(operation: &Value, shared: &Problems<'_>, text: &mut String) {
    let mut parameters: Vec<_> = operation["parameters"].as_array().into_iter().flatten().collect();
    parameters.sort_by_key(|parameter| {
        (parameter["in"].as_str().unwrap_or_default(), parameter["name"].as_str().unwrap_or_default())
    });
    for parameter in parameters {
        let (place, name) = (string(&parameter["in"]), string(&parameter["name"]));
        let optional = if parameter["required"] == true { "" } else { "?" };
        line(text, format_args!("  {place} {name}{optional}: {}", shape(&parameter["schema"])));
    }
    for (kind, content) in sorted(&operation["requestBody"]["content"]) {
        line(text, format_args!("  body {kind}: {}", shape(&content["schema"])));
    }
    for (status, response) in sorted(&operation["responses"]) {
        let headers: Vec<_> = sorted(&response["headers"]).into_iter().map(|(name, _)| name).collect();
        let with = if headers.is_empty() { String::new() } else { format!(" with {}", headers.join(", ")) };
        let contents = sorted(&response["content"]);
        if contents.is_empty() {
            line(text, format_args!("  {status}{with}"));
        }
        for (kind, content) in contents.into_iter().filter(|(kind, _)| *kind != PROBLEM_JSON) {
            line(text, format_args!("  {status} {kind}: {}{with}", shape(&content["schema"])));
        }
    }
    append_problems(&(&problems(operation) - shared), text);
}

fn append_schema(name: &str, schema: &Value, text: &mut String) {
    if let Some(variants) = schema["oneOf"].as_array().filter(|variants| variants.len() > 1) {
        line(text, format_args!("{name} is one of"));
        let mut lines: Vec<_> = variants.iter().map(tagged).collect();
        lines.sort();
        lines.iter().for_each(|variant| line(text, format_args!("  {variant}")));
    } else if schema["properties"].is_object() {
        line(text, format_args!("{name}"));
        for field in fields(schema) {
            line(text, format_args!("  {field}"));
        }
    } else {
        line(text, format_args!("{name} = {}", shape(schema)));
    }
}

/// A variant, by its tag where it has one.
fn tagged(variant: &Value) -> String {
    match variant["properties"]["type"]["enum"][0].as_str() {
        Some(tag) => {
            let fields: Vec<_> =
                fields(variant).into_iter().filter(|field| !field.starts_with("type:")).collect();
            if fields.is_empty() { tag.to_owned() } else { format!("{tag} {{ {} }}", fields.join(", ")) }
        }
        None => shape(variant),
    }
}

fn fields(schema: &Value) -> Vec<String> {
    let required = schema["required"].as_array();
    let is_required =
        |name: &str| required.is_some_and(|names| names.iter().any(|required| required == name));
    sorted(&schema["properties"])
        .into_iter()
        .map(|(name, schema)| {
            let optional = if is_required(name) { "" } else { "?" };
            format!("{name}{optional}: {}", shape(schema))
        })
        .collect()
}

/// What a schema allows, in few words.
fn shape(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or(reference).to_owned();
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(string).collect::<Vec<_>>().join("|");
    }
    for (key, separator) in [("oneOf", " | "), ("anyOf", " | "), ("allOf", " & ")] {
        if let Some(parts) = schema[key].as_array() {
            let mut parts: Vec<_> = parts.iter().map(shape).collect();
            parts.sort();
            return parts.join(separator);
        }
    }
    if schema["properties"].is_object() {
        return format!("{{ {} }}", fields(schema).join(", "));
    }
    let kinds: Vec<_> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(string).collect(),
        Value::Null => vec!["any".to_owned()],
        kind => vec![string(kind)],
    };
    let kinds: Vec<_> = kinds
        .into_iter()
        .map(|kind| match kind.as_str() {
            "array" => format!("[{}]", shape(&schema["items"])),
            "object" if schema["additionalProperties"].is_object() => {
                format!("{{ name: {} }}", shape(&schema["additionalProperties"]))
            }
            _ => kind,
        })
        .collect();
    kinds.join("|")
}

fn string(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
