//! The last touch on the document, for the tools that make clients from it: what the annotations cannot say.
//!
//! - Each variant of a type with a tag is a schema with a name, and the type names its tag as `discriminator`. The tag
//!   stays an `enum` of one value: tools do not check a `const`.
//! - A page refers to the schema of its items instead of repeating it.
//! - A body that may be left out is no union with `null`.
//! - Descriptions are prose: references of the Rust documentation lose their paths.

use super::headers;
use serde_json::{Map, Value, json};

const REF: &str = "$ref";

pub fn shape(document: &mut Value) {
    // Requests need no credentials.
    document["security"] = json!([]);
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        refer_to_items(schemas);
        name_variants(schemas);
    }
    visit(document, &mut |object: &mut Map<String, Value>| {
        if object.contains_key("operationId") {
            headers::add(object);
        }
        optional_body(object);
        plain_description(object);
    });
}

fn reference(name: &str) -> Value {
    json!({ REF: format!("#/components/schemas/{name}") })
}

/// Calls `change` for every object, the outer ones first.
fn visit(value: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|value| visit(value, change));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| visit(value, change)),
        _ => {}
    }
}

/// A generic type repeats its parameter. Lists of it refer to it instead, where it has a name: `Page_Node` is a page
/// of `Node`.
fn refer_to_items(schemas: &mut Map<String, Value>) {
    let named: Vec<String> = schemas.keys().cloned().collect();
    for (name, schema) in schemas.iter_mut() {
        let item =
            name.split_once('_').map(|(_, item)| item).filter(|item| named.iter().any(|known| known == item));
        let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
        let lists = properties.into_iter().flat_map(|all| all.values_mut());
        for items in lists.filter_map(|list| list.get_mut("items")) {
            if let Some(item) = item.filter(|_| items.get(REF).is_none()) {
                *items = reference(item);
            }
        }
    }
}

fn name_variants(schemas: &mut Map<String, Value>) {
    let unions: Vec<String> = schemas
        .iter()
        .filter(|(_, schema)| schema["oneOf"].is_array())
        .map(|(name, _)| name.clone())
        .collect();
    for union in unions {
        let Some(variants) = schemas[&union]["oneOf"].as_array().cloned() else { continue };
        let tags: Option<Vec<String>> = variants.iter().map(tag).collect();
        // A union without tags is one with null, or of plain values.
        let Some(tags) = tags else { continue };
        let mut mapping = Map::new();
        for (variant, tag) in variants.into_iter().zip(tags) {
            let name = format!("{union}{}", pascal(&tag));
            mapping.insert(tag, reference(&name)[REF].clone());
            let taken = schemas.insert(name.clone(), variant);
            assert!(taken.is_none(), "two schemas are called {name}");
        }
        schemas[&union]["oneOf"] = mapping.values().map(|variant| json!({ REF: variant })).collect();
        schemas[&union]["discriminator"] = json!({ "propertyName": "type", "mapping": mapping });
    }
}

/// The value of `type` that a variant has, in its own properties or in those of one of its parts.
fn tag(variant: &Value) -> Option<String> {
    let own = variant["properties"]["type"]["enum"].as_array().filter(|values| values.len() == 1);
    match own {
        Some(values) => values[0].as_str().map(str::to_owned),
        None => variant["allOf"].as_array()?.iter().find_map(tag),
    }
}

fn pascal(words: &str) -> String {
    words
        .split('_')
        .filter_map(|word| Some(word.chars().next()?.to_ascii_uppercase().to_string() + &word[1..]))
        .collect()
}

/// A body that may be left out is marked as such, and has the schema of a body that is there.
fn optional_body(object: &mut Map<String, Value>) {
    let Some(body) = object.get_mut("requestBody") else { return };
    let Some(schema) = body.pointer_mut("/content/application~1json/schema") else { return };
    let is_null = |one: &Value| one["type"] == "null";
    if let Some(union) = schema["oneOf"].as_array().filter(|union| union.iter().any(is_null))
        && let Some(given) = union.iter().find(|one| !is_null(one))
    {
        *schema = given.clone();
        body["required"] = json!(false);
    }
}

/// `` [`Type::NAME`] `` becomes `` `NAME` ``.
fn plain_description(object: &mut Map<String, Value>) {
    for key in ["description", "summary"] {
        if let Some(Value::String(text)) = object.get_mut(key)
            && text.contains("[`")
        {
            let mut plain = String::new();
            let mut rest = text.as_str();
            while let Some((before, link)) = rest.split_once("[`") {
                let Some((target, after)) = link.split_once("`]") else { break };
                let name = target.rsplit("::").next().unwrap_or(target);
                plain.push_str(&format!("{before}`{name}`"));
                rest = after;
            }
            plain.push_str(rest);
            *text = plain;
        }
    }
}
