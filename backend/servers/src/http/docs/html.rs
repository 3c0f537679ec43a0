//! From an OpenAPI document to HTML.

use serde_json::{Map, Value};
use std::fmt::{self, Write};

/// What a page is written to.
type Page = String;

/// Writes a whole page.
pub fn page(document: &Value) -> String {
    let mut page = Page::new();
    write(&mut page, document).expect("a string takes all that is written");
    page
}

fn write(page: &mut Page, document: &Value) -> fmt::Result {
    let info = &document["info"];
    let title = Text(text(&info["title"]));
    write!(
        page,
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} API</title>
<link rel="icon" href="/docs/icon.svg">
<link rel="stylesheet" href="/docs/style.css">
</head>
<body>
<nav aria-label="Contents">
<a class="home" href="/">{title}</a>
"#
    )?;
    let tags = list(&document["tags"]);
    for tag in tags {
        let name = text(&tag["name"]);
        write!(page, r##"<h2><a href="#{0}">{0}</a></h2><ul>"##, Text(name))?;
        for (method, path, operation) in operations(document, name) {
            let id = Text(text(&operation["operationId"]));
            write!(
                page,
                r##"<li><a href="#{id}"><b class="{method}">{method}</b> {}</a></li>"##,
                Text(path)
            )?;
        }
        page.push_str("</ul>");
    }
    let schemas = &document["components"]["schemas"];
    page.push_str(r##"<h2><a href="#types">types</a></h2><ul>"##);
    for name in entries(schemas).map(|(name, _)| name) {
        write!(page, r##"<li><a href="#type-{0}">{0}</a></li>"##, Text(name))?;
    }
    write!(
        page,
        "</ul></nav>\n<main>\n<h1>{title} API</h1>\n<p class=\"facts\">version {}",
        Text(text(&info["version"]))
    )?;
    page.push_str(r#" · <a href="/openapi.json">openapi.json</a></p>"#);
    prose(page, &info["description"])?;
    for tag in tags {
        let name = text(&tag["name"]);
        write!(page, "\n<section id=\"{0}\"><h2>{0}</h2>", Text(name))?;
        prose(page, &tag["description"])?;
        for (method, path, operation) in operations(document, name) {
            write_operation(page, method, path, operation)?;
        }
        page.push_str("</section>");
    }
    page.push_str("\n<section id=\"types\"><h2>types</h2>");
    for (name, schema) in entries(schemas) {
        write!(page, r#"<article id="type-{0}"><h3>{0}</h3>"#, Text(name))?;
        write_schema(page, schema)?;
        page.push_str("</article>");
    }
    page.push_str("</section>\n</main>\n</body>\n</html>\n");
    Ok(())
}

fn write_operation(page: &mut Page, method: &str, path: &str, operation: &Value) -> fmt::Result {
    let id = Text(text(&operation["operationId"]));
    write!(
        page,
        r##"
<article id="{id}"><h3><b class="{method}">{method}</b> <code>{}</code> <a href="#{id}" aria-label="Link to this">#</a></h3>
<p class="summary">{}</p>"##,
        Text(path),
        Text(text(&operation["summary"]))
    )?;
    prose(page, &operation["description"])?;
    let parameters = list(&operation["parameters"]);
    if !parameters.is_empty() {
        page.push_str("<h4>Parameters</h4><table>");
        for parameter in parameters {
            let needed = if parameter["required"] == true { "required" } else { "optional" };
            write!(
                page,
                "<tr><td><code>{}</code><small>{} · {needed}</small></td><td>",
                Text(text(&parameter["name"])),
                Text(text(&parameter["in"]))
            )?;
            write_type(page, &parameter["schema"])?;
            page.push_str("</td><td>");
            prose(page, &parameter["description"])?;
            page.push_str("</td></tr>");
        }
        page.push_str("</table>");
    }
    for (_, content) in entries(&operation["requestBody"]["content"]) {
        page.push_str("<h4>Body</h4><p>");
        write_type(page, &content["schema"])?;
        page.push_str("</p>");
        for (_, example) in entries(&content["examples"]) {
            write_example(page, example)?;
        }
    }
    page.push_str("<h4>Answers</h4><table>");
    for (status, response) in entries(&operation["responses"]) {
        let class = if status.starts_with(['4', '5']) { "bad" } else { "good" };
        write!(page, r#"<tr><td><b class="{class}">{}</b></td><td>"#, Text(status))?;
        for (_, content) in entries(&response["content"]) {
            write_type(page, &content["schema"])?;
        }
        page.push_str("</td><td>");
        prose(page, &response["description"])?;
        for (header, _) in entries(&response["headers"]) {
            write!(page, "<small>header <code>{}</code></small>", Text(header))?;
        }
        page.push_str("</td></tr>");
    }
    page.push_str("</table></article>");
    Ok(())
}

fn write_example(page: &mut Page, example: &Value) -> fmt::Result {
    let value = serde_json::to_string_pretty(&example["value"]).expect("a value of JSON is JSON");
    let summary = text(&example["summary"]);
    let summary = Text(if summary.is_empty() { "Example" } else { summary });
    write!(page, "<details><summary>{summary}</summary><pre>{}</pre></details>", Text(&value))
}

/// A schema in full: its fields, its values, or its variants.
fn write_schema(page: &mut Page, schema: &Value) -> fmt::Result {
    prose(page, &schema["description"])?;
    let parts = [&schema["allOf"], &schema["oneOf"], &schema["anyOf"]].into_iter().flat_map(list);
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> =
            values.iter().map(|value| format!("<code>{}</code>", Text(text(value)))).collect();
        write!(page, "<p>{}</p>", values.join(" · "))?;
    }
    if let Some(fields) = schema["properties"].as_object() {
        write_fields(page, fields, list(&schema["required"]))?;
    } else if parts.clone().next().is_none() && schema["enum"].is_null() {
        page.push_str("<p>");
        write_type(page, schema)?;
        page.push_str("</p>");
    }
    for part in parts {
        if part["$ref"].is_string() {
            page.push_str("<p>all of ");
            write_type(page, part)?;
            page.push_str("</p>");
        } else {
            write_schema(page, part)?;
        }
    }
    Ok(())
}

fn write_fields(page: &mut Page, fields: &Map<String, Value>, required: &[Value]) -> fmt::Result {
    page.push_str("<table>");
    for (name, schema) in fields {
        write!(page, "<tr><td><code>{}</code>", Text(name))?;
        if !required.iter().any(|known| known == name) {
            page.push_str("<small>optional</small>");
        }
        page.push_str("</td><td>");
        write_type(page, schema)?;
        page.push_str("</td><td>");
        prose(page, &schema["description"])?;
        page.push_str("</td></tr>");
    }
    page.push_str("</table>");
    Ok(())
}

/// A type in a few words, with a link where it has a name.
fn write_type(page: &mut Page, schema: &Value) -> fmt::Result {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return write!(page, r##"<a href="#type-{0}">{0}</a>"##, Text(name));
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> =
            values.iter().map(|value| format!("<code>{}</code>", Text(text(value)))).collect();
        return page.write_str(&values.join(" or "));
    }
    let choices = ["oneOf", "anyOf", "allOf"].into_iter().flat_map(|kind| list(&schema[kind]));
    let mut separator = "";
    for choice in choices {
        page.push_str(separator);
        write_type(page, choice)?;
        separator = " or ";
    }
    if !separator.is_empty() {
        return Ok(());
    }
    let kinds: Vec<_> = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => vec!["any JSON"],
    };
    for kind in kinds {
        page.push_str(separator);
        separator = " or ";
        if kind == "array" {
            page.push_str("list of ");
            write_type(page, &schema["items"])?;
        } else {
            write!(page, "{}", Text(kind))?;
        }
    }
    match schema["format"].as_str() {
        Some(format @ ("date-time" | "uuid")) => write!(page, " ({})", Text(format)),
        _ => Ok(()),
    }
}

/// A few paragraphs, in which backticks mark code.
fn prose(page: &mut Page, value: &Value) -> fmt::Result {
    for paragraph in text(value).split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        page.push_str("<p>");
        // Links between types of the source lead nowhere here.
        let plain = paragraph.replace("[`", "`").replace("`]", "`");
        for (position, piece) in plain.split('`').enumerate() {
            let (open, close) = if position % 2 == 1 { ("<code>", "</code>") } else { ("", "") };
            write!(page, "{open}{}{close}", Text(piece))?;
        }
        page.push_str("</p>");
    }
    Ok(())
}

/// The operations of a tag, in the order of their paths.
fn operations<'a>(document: &'a Value, tag: &'a str) -> impl Iterator<Item = (&'a str, &'a str, &'a Value)> {
    entries(&document["paths"])
        .flat_map(|(path, item)| entries(item).map(move |(method, operation)| (method, path, operation)))
        .filter(move |(_, _, operation)| operation["tags"][0] == tag)
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text in which nothing is markup.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_never_markup() {
        let page = page(&json!({
            "info": { "title": "<script>", "version": "\"1\"", "description": "a `<b>` & c" },
            "tags": [],
        }));
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"), "{page}");
        assert!(page.contains("<p>a <code>&lt;b&gt;</code> &amp; c</p>"), "{page}");
    }

    #[test]
    fn types_are_written_in_a_few_words() {
        for (schema, expected) in [
            (json!({ "type": "integer", "format": "int64" }), "integer"),
            (json!({ "type": ["string", "null"] }), "string or null"),
            (
                json!({ "type": "array", "items": { "$ref": "#/components/schemas/Node" } }),
                r##"list of <a href="#type-Node">Node</a>"##,
            ),
            (
                json!({ "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Role" }] }),
                r##"null or <a href="#type-Role">Role</a>"##,
            ),
            (json!({ "type": "string", "format": "date-time" }), "string (date-time)"),
            (json!({}), "any JSON"),
        ] {
            let mut page = Page::new();
            write_type(&mut page, &schema).unwrap();
            assert_eq!(page, expected, "{schema}");
        }
    }
}
